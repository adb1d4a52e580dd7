"""How surprised is a language model by a text? For each word, whatever its labels are, with an interval."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from csp.train import text
from csp.train.text import Sentences

RESAMPLED = 1000
MOST_AT_ONCE = 2**20  # sentences that are drawn


class Surprise(NamedTuple):
    """Nats that each sentence costs, its end and the spelling of its unknown words included; and what it is long."""

    nats: np.ndarray
    words: np.ndarray
    labels: int
    characters: int

    @property
    def perplexity(self) -> float:
        """Of a word; the end of a sentence counts as one, as usual."""
        return _perplexity(self.nats.sum(), self.words.sum() + len(self.words))

    def summary(self) -> dict[str, Any]:
        """Plain JSON."""
        low, high = interval(self.nats, self.words)
        return {
            "perplexity": self.perplexity,
            "perplexity_low": low,
            "perplexity_high": high,
            "label_perplexity": _perplexity(self.nats.sum(), self.labels),
            "bits_per_character": float(self.nats.sum() / math.log(2) / (self.characters + len(self.words))),
            "words": int(self.words.sum()),
            "sentences": len(self.words),
            "labels": self.labels,
        }


def measure(
    losses: Callable[[Any, text.Batch], Any], params: Any, sentences: Sentences, size: int, length: int
) -> Surprise:
    """Of every sentence, by `losses(params, batch)`, nats for each label."""
    nats = sentences.spelling.copy()
    for own, batch in text.in_order(sentences, size, length):
        found = np.asarray(losses(params, batch), np.float64)
        np.add.at(nats, own[np.arange(size)[:, None], batch.documents], found)
    return of(nats, sentences)


def of(nats: np.ndarray, sentences: Sentences) -> Surprise:
    """What these sentences cost, if each costs so much."""
    labels = len(sentences.labels) + len(sentences)
    return Surprise(nats, sentences.words, labels, int(sentences.characters.sum()))


def interval(nats: np.ndarray, words: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % of the perplexities of as many sentences, drawn again and again."""
    return tuple(np.quantile(np.exp(_drawn(nats, words + 1, seed)), (0.025, 0.975)).tolist())


def difference(a: Surprise, b: Surprise, seed: int = 0) -> tuple[float, float, float]:
    """Nats of a word that a costs more than b, of the same sentences, and 95 % of what as many drawn ones say."""
    more, words = a.nats - b.nats, a.words + 1
    low, high = np.quantile(_drawn(more, words, seed), (0.025, 0.975))
    return float(more.sum() / words.sum()), float(low), float(high)


def _drawn(nats: np.ndarray, words: np.ndarray, seed: int) -> np.ndarray:
    """Nats of a word of as many sentences, drawn a thousand times; few at once, so that books are not too long."""
    rng, rows = np.random.default_rng(seed), max(1, MOST_AT_ONCE // len(nats))
    found = []
    for first in range(0, RESAMPLED, rows):
        drawn = rng.integers(0, len(nats), (min(rows, RESAMPLED - first), len(nats)), dtype=np.int32)
        found.append(nats[drawn].sum(1) / words[drawn].sum(1))
    return np.concatenate(found)


def _perplexity(nats: float, count: float) -> float:
    return float(math.exp(min(nats / count, 700)))
