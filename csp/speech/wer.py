"""How many words are wrong? Substitutions, insertions and deletions, an interval, and where they stand."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Errors(NamedTuple):
    substitutions: int
    insertions: int
    deletions: int
    words: int

    @property
    def total(self) -> int:
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """A fraction; of no words it is 0 if nothing was inserted, else 1."""
        return self.total / self.words if self.words else float(self.total > 0)


def count(reference: str, hypothesis: str) -> Errors:
    """The errors of the alignment with the fewest."""
    right, said = reference.split(), hypothesis.split()
    table = np.zeros((len(right) + 1, len(said) + 1), np.int64)
    table[:, 0], table[0] = np.arange(len(right) + 1), np.arange(len(said) + 1)
    for i, word in enumerate(right, 1):
        for j, other in enumerate(said, 1):
            table[i, j] = min(table[i - 1, j - 1] + (word != other), table[i - 1, j] + 1, table[i, j - 1] + 1)
    i, j = len(right), len(said)
    substitutions = insertions = deletions = 0
    while i or j:
        if i and j and table[i, j] == table[i - 1, j - 1] + (right[i - 1] != said[j - 1]):
            substitutions += right[i - 1] != said[j - 1]
            i, j = i - 1, j - 1
        elif j and table[i, j] == table[i, j - 1] + 1:
            insertions += 1
            j -= 1
        else:
            deletions += 1
            i -= 1
    return Errors(substitutions, insertions, deletions, len(right))


def total(errors: Sequence[Errors]) -> Errors:
    return Errors(*(sum(column) for column in zip(*errors, strict=True))) if errors else Errors(0, 0, 0, 0)


def interval(
    errors: Sequence[Errors], groups: Sequence[str] | None = None, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """A bootstrap interval of the rate; whole `groups` (speakers, recordings) are drawn if there are any."""
    if not errors:
        return 0.0, 0.0
    names = np.unique(np.asarray(groups if groups is not None else np.arange(len(errors))), return_inverse=True)[1]
    wrong = np.bincount(names, [e.total for e in errors])
    words = np.bincount(names, [e.words for e in errors])
    chosen = np.random.default_rng(seed).integers(len(words), size=(draws, len(words)))
    rates = wrong[chosen].sum(axis=1) / np.maximum(words[chosen].sum(axis=1), 1)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
