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
    words, moves = len(reference.split()), _moves(reference.split(), hypothesis.split())
    kinds = [kind for kind, _ in moves]
    return Errors(kinds.count("substitution"), kinds.count("insertion"), kinds.count("deletion"), words)


def charged(reference: str, hypothesis: str) -> list[int]:
    """How many errors of that alignment each reference word has; what is inserted is the word's before it, or the
    first's. A reference without words has nobody to charge.
    """
    errors = [0] * len(reference.split())
    for _, word in _moves(reference.split(), hypothesis.split()):
        if errors:
            errors[max(word, 0)] += 1
    return errors


def _moves(right: list[str], said: list[str]) -> list[tuple[str, int]]:
    """(what is wrong, at which word of the reference)"""
    table = np.zeros((len(right) + 1, len(said) + 1), np.int64)
    table[:, 0], table[0] = np.arange(len(right) + 1), np.arange(len(said) + 1)
    for i, word in enumerate(right, 1):
        for j, other in enumerate(said, 1):
            table[i, j] = min(table[i - 1, j - 1] + (word != other), table[i - 1, j] + 1, table[i, j - 1] + 1)
    i, j = len(right), len(said)
    found = []
    while i or j:
        if i and j and table[i, j] == table[i - 1, j - 1] + (right[i - 1] != said[j - 1]):
            i, j = i - 1, j - 1
            found += [("substitution", i)] if right[i] != said[j] else []
        elif j and table[i, j] == table[i, j - 1] + 1:
            j -= 1
            found.append(("insertion", i - 1))
        else:
            i -= 1
            found.append(("deletion", i))
    return found


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
