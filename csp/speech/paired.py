"""Is one recogniser better than another? A bootstrap of the difference, and Holm's correction for many questions.

Words of one sentence, and words cut from one recording, hang together. Every way of grouping the words is drawn by
itself, with replacement, and a word counts as often as all of its groups were drawn together (the pigeonhole bootstrap,
Owen 2007), and so are the training runs; an interval of that kind is rather too wide than too narrow.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """Of error rates, as fractions, and how likely so large a one is by chance."""

    mean: float
    low: float
    high: float
    p: float


def difference(
    a_RxW: np.ndarray,
    b_RxW: np.ndarray,
    groups: Sequence[Sequence[object]],
    level: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Difference:
    """a - b.

    Args:
      a_RxW: the errors of each word in each training run of one recogniser.
      b_RxW: those of the other, of the same words; a run stands where its partner (the same seed) does.
      groups: ways of grouping; each names the group of every word.
      level: of the interval.
      draws: of the bootstrap.
      seed: of its random numbers.
    """
    a_RxW, b_RxW = np.asarray(a_RxW, float), np.asarray(b_RxW, float)
    if a_RxW.shape != b_RxW.shape or a_RxW.ndim != 2 or not a_RxW.size:
        raise ValueError(f"a paired comparison needs two tables runs x words alike, got {a_RxW.shape}, {b_RxW.shape}")
    rng, x_RxW = np.random.default_rng(seed), a_RxW - b_RxW
    numbers = [np.unique([str(one) for one in way], return_inverse=True)[1] for way in groups]
    found = np.empty(draws)
    for i in range(draws):
        weight_W = np.ones(x_RxW.shape[1])
        for number in numbers:
            weight_W *= _drawn(rng, number.max() + 1)[number]
        weight_R = _drawn(rng, len(x_RxW))
        found[i] = weight_R @ x_RxW @ weight_W / max(weight_R.sum() * weight_W.sum(), 1)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    tail = min(np.sum(found <= 0), np.sum(found >= 0))
    return Difference(float(x_RxW.mean()), float(low), float(high), float(min(1, 2 * (tail + 1) / (draws + 1))))


def _drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    """How often each of `count` is drawn in as many draws."""
    return np.bincount(rng.integers(count, size=count), minlength=count).astype(float)


def holm(p: Sequence[float]) -> list[float]:
    """The p values of several questions, each raised so that all of them together err as seldom as one."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
