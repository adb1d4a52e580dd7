"""Sentences as numbers, packed into rows of one length, in an order that a step's number decides.

A row holds whole sentences; none sees another. A batch is a function of the seed and of its position, as that of
recordings is.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from csp.speech.errors import DataError
from csp.speech.tokens import BLANK, Tokens
from csp.train.corpus import Ahead


class Batch(NamedTuple):
    """Rows of labels, of those after them, and of the number of each one's sentence, from 1; 0 is nothing."""

    inputs: Any  # of NumPy, or of JAX once it is placed
    targets: Any
    documents: Any


class Sentences(NamedTuple):
    """All labels, one sentence after the other, and where each begins; how many words and characters each has.

    `spelling` is what the unknown words of a sentence cost beside their label: nats to spell them with characters that
    are all alike, so that perplexities of any two vocabularies can be compared.
    """

    labels: np.ndarray
    starts: np.ndarray
    words: np.ndarray
    characters: np.ndarray
    spelling: np.ndarray
    dropped: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def digest(self) -> str:
        return hashlib.blake2b(self.labels.tobytes() + self.starts.tobytes(), digest_size=16).hexdigest()

    def some(self, most: int) -> "Sentences":
        """At most so many of them, evenly chosen; all for 0."""
        if not most or most >= len(self):
            return self
        rows = np.linspace(0, len(self) - 1, most).astype(int)
        labels = [self.labels[self.starts[i] : self.starts[i + 1]] for i in rows]
        starts = np.concatenate([[0], np.cumsum([len(line) for line in labels])])
        counts = (self.words[rows], self.characters[rows], self.spelling[rows])
        return Sentences(np.concatenate(labels), starts, *counts, self.dropped)


def encode(lines: Sequence[str], tokens: Tokens, where: str) -> Sentences:
    """The sentences' labels; one with a unit that the vocabulary lacks, or of none, is left out and counted."""
    labels, counts, spelling, dropped = [], [], [], 0
    cut: Callable[[str], list[int] | None] = tokens.encode if tokens.kind == "characters" else _Words(tokens).cut
    for line in lines:
        said = tokens.normalise(line)
        try:
            found = cut(said)
        except DataError:
            dropped += 1
            continue
        dropped += not found and bool(line.strip())  # nothing that the normaliser keeps
        if found:
            labels.append(np.array(found, np.int32))
            counts.append((len(found), said.count(" ") + 1, len(said)))
            spelling.append(tokens.spelling(said))
    if not labels:
        raise DataError(f"{where} has no sentence that the vocabulary can write: look at data.tokens and data.keep")
    lengths, words, characters = np.array(counts).T
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Sentences(np.concatenate(labels), starts, words, characters, np.array(spelling), dropped)


class _Words(dict[str, list[int]]):
    """The labels of words: pieces do not cross them, so that each is cut once only."""

    def __init__(self, tokens: Tokens):
        super().__init__()
        self.tokens = tokens

    def __missing__(self, word: str) -> list[int]:
        self[word] = self.tokens.encode(word)
        return self[word]

    def cut(self, said: str) -> list[int]:
        return [label for word in said.split() for label in self[word]]


class Packed(Ahead):
    """Batches of `size` rows of `length` labels, by position."""

    def __init__(self, sentences: Sentences, size: int, length: int, seed: int):
        self.pieces = _pieces(sentences, length)
        self.sentences, self.size, self.length, self.seed = sentences, size, length, seed
        self.per_epoch = int(_lengths(self.pieces).sum()) // (length * size)
        if not self.per_epoch:
            raise DataError(f"{len(sentences)} sentences fill no batch of {size} rows: lower train.batch, or add text")
        self._plan: tuple[int, np.ndarray, np.ndarray] = (-1, np.zeros(0), np.zeros(0))

    def at(self, position: int) -> Batch:
        order, edges = self._epoch(position // self.per_epoch)
        first = position % self.per_epoch * self.size
        rows = [self.pieces[order[edges[r] : edges[r + 1]]] for r in range(first, first + self.size)]
        return fill(self.sentences, rows, self.length)

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """All sentences shuffled; row r has those from edges[r] to edges[r + 1]. What fills no batch waits an epoch."""
        if self._plan[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            order = rng.permutation(len(self.pieces))
            edges = _edges(_lengths(self.pieces[order]), self.length)
            self._plan = (epoch, order, edges)
        return self._plan[1:]


def in_order(sentences: Sentences, size: int, length: int) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every sentence once: (the sentence of each document of each row, batch); the last batch is padded."""
    pieces = _pieces(sentences, length)
    edges = _edges(_lengths(pieces), length)
    for first in range(0, len(edges) - 1, size):
        spans = [(edges[r], edges[r + 1]) for r in range(first, min(first + size, len(edges) - 1))]
        spans += [(0, 0)] * (size - len(spans))
        own = np.zeros((size, max(b - a for a, b in spans) + 1), np.int64)
        for row, (a, b) in enumerate(spans):
            own[row, 1 : 1 + b - a] = pieces[a:b, 0]
        yield own, fill(sentences, [pieces[a:b] for a, b in spans], length)


def fill(sentences: Sentences, rows: Sequence[np.ndarray], length: int) -> Batch:
    """Rows of these pieces."""
    inputs, targets, documents = (np.zeros((len(rows), length), np.int32) for _ in range(3))
    for row, pieces in enumerate(rows):
        at = 0
        for number, (_, first, count, ends, begins) in enumerate(pieces, 1):
            here, labels = slice(at, at + count + ends), sentences.labels[first : first + count]
            before = BLANK if begins else sentences.labels[first - 1]
            inputs[row, here] = np.concatenate([[before], labels])[: count + ends]
            targets[row, here] = np.concatenate([labels, [BLANK]])[: count + ends]
            documents[row, here] = number
            at += count + ends
    return Batch(inputs, targets, documents)


def _pieces(sentences: Sentences, length: int) -> np.ndarray:
    """(sentence, first label, how many, does the sentence end there, does it begin); one longer than a row is cut."""
    first, counts = sentences.starts[:-1], np.diff(sentences.starts)
    if counts.max() < length:
        yes = np.ones_like(counts)
        return np.stack([np.arange(len(counts)), first, counts, yes, yes], 1)
    cut = []
    for number, (begin, count) in enumerate(zip(first.tolist(), counts.tolist(), strict=True)):
        for at in range(0, count + 1, length):
            cut.append((number, begin + at, min(length, count - at), int(count - at < length), int(at == 0)))
    return np.array(cut)


def _lengths(pieces: np.ndarray) -> np.ndarray:
    """Places in a row: the labels, and the end."""
    return pieces[:, 2] + pieces[:, 3]


def _edges(lengths: np.ndarray, length: int) -> np.ndarray:
    """Where rows begin, if each takes what still fits, in order."""
    ends, edges = np.cumsum(lengths), [0]
    while edges[-1] < len(ends):
        before = ends[edges[-1] - 1] if edges[-1] else 0
        edges.append(int(np.searchsorted(ends, before + length, side="right")))
    return np.array(edges)
