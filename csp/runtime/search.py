"""Which row of labels is most probable, all its alignments together? The beam searches of csp.models.beam, streaming.

A row is a chain of nodes, so that hypotheses share what they have in common; two ways to the same row meet by its key.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csp.runtime.decoders import CTCHead, Label, Predicted, TransducerHead, log_softmax
from csp.runtime.fusion import Guide

NEVER = -np.inf
PER_FRAME = 4  # as csp.models.beam has it


class Row(NamedTuple):
    """A row of labels by its last, and the row before it; the empty row has neither."""

    key: int
    label: Label | None = None
    before: "Row | None" = None
    count: int = 0

    def labels(self) -> list[Label]:
        found, row = [], self
        while row.label is not None and row.before is not None:
            found.append(row.label)
            row = row.before
        return found[::-1]

    @property
    def last(self) -> int:
        return -1 if self.label is None else self.label.number

    def grown(self, number: int, frame: int, probability: float) -> "Row":
        return Row(self.grown_key(number), Label(number, frame, probability), self, self.count + 1)

    def grown_key(self, number: int) -> int:
        return hash((self.key, number))


class Heard(NamedTuple):
    """A row that may have been said, and its score."""

    score: float
    row: Row


class BeamCTC:
    """A row's probability is kept in two parts: of its paths that end with a blank, and of those that do not."""

    def __init__(self, head: CTCHead, width: int, guide: Guide | None = None):
        self.head, self.width, self.guide = head, width, guide
        self._rows, self._blank, self._said = [Row(0)], np.zeros(1), np.full(1, NEVER)
        self._frame, self._ended = 0, False

    @property
    def labels(self) -> list[Label]:
        return self.best()[0].row.labels()

    def best(self) -> list[Heard]:
        """The rows, the best first."""
        scores = np.logaddexp(self._blank, self._said)
        if self._ended and self.guide is not None:
            scores = scores + self.guide.ends(self._rows)
        return [Heard(float(scores[r]), self._rows[r]) for r in np.argsort(-scores, kind="stable")]

    def push(self, h_TxD: np.ndarray) -> None:
        for log_K in log_softmax(self.head.output(h_TxD)):
            self._step(log_K)
            self._frame += 1

    def finish(self) -> None:
        self._ended = True

    def _step(self, log_K: np.ndarray) -> None:
        rows, whole = self._rows, np.logaddexp(self._blank, self._said)
        last = np.array([row.last for row in rows])
        grow_RxK = whole[:, None] + log_K
        some = np.flatnonzero(last >= 0)
        grow_RxK[some, last[some]] = self._blank[some] + log_K[last[some]]  # a blank stands between equal labels
        grow_RxK[:, 0] = NEVER
        if self.guide is not None:
            grow_RxK += self.guide.gains(rows)
        said = np.where(last >= 0, self._said + log_K[np.maximum(last, 0)], NEVER)
        said = _meet(rows, said, grow_RxK)
        blank = whole + log_K[0]
        chosen = _best(np.logaddexp(blank, said), grow_RxK, self.width)
        self._rows = [_chosen(rows, c, self._frame, log_K, grow_RxK.shape[1]) for c in chosen]
        flat, grows = grow_RxK.reshape(-1), chosen >= len(rows)
        parent = np.where(grows, 0, chosen)
        self._blank = np.where(grows, NEVER, blank[parent])
        self._said = np.where(grows, flat[np.maximum(chosen - len(rows), 0)], said[parent])


class BeamTransducer:
    """All hypotheses have taken equally many moves, blanks and labels together, so that equal rows share a frame.

    A move is made once the frame after each hypothesis's is there, or the end is known.
    """

    def __init__(self, head: TransducerHead, width: int, guide: Guide | None = None):
        self.head, self.width, self.guide = head, width, guide
        self._rows, self._scores, self._predicted = [Row(0)], np.zeros(1), [head.start()]
        self._moves, self._first, self._frames = 0, 0, np.zeros((0, len(head.start().g)), np.float32)
        self._ended: list[Heard] = []

    @property
    def labels(self) -> list[Label]:
        return self.best()[0].row.labels()

    def best(self) -> list[Heard]:
        """The rows that have ended, or as far as they are, the best first."""
        if self._ended:
            return self._ended
        return [Heard(float(self._scores[r]), self._rows[r]) for r in np.argsort(-self._scores, kind="stable")]

    def push(self, h_TxD: np.ndarray) -> None:
        self._frames = np.concatenate([self._frames, self.head.from_encoder(h_TxD)])
        while self._rows and max(self._at()) + 1 < self._first + len(self._frames):
            self._move(None)
        done = min(self._at()) - self._first  # frames that no hypothesis needs again
        if done > 64:
            self._frames, self._first = self._frames[done:].copy(), self._first + done

    def finish(self) -> None:
        end = self._first + len(self._frames)
        while end and self._rows and not self._is_decided(end):
            self._move(end)

    def _is_decided(self, end: int) -> bool:
        """Nothing that goes on can beat what has ended: together they are worth less than the least of those.

        Where labels gain a bonus, as if each row said PER_FRAME more of them, for nothing, in each frame that is left.
        """
        if len(self._ended) < self.width:
            return False
        bonus = max(self.guide.fusion.bonus, 0.0) if self.guide is not None else 0.0
        hopes = self._scores + bonus * PER_FRAME * (end - np.array(self._at()))
        return bool(np.logaddexp.reduce(hopes) <= self._ended[-1].score)

    def _at(self) -> list[int]:
        return [self._moves - row.count for row in self._rows]

    def _move(self, end: int | None) -> None:
        at = np.array(self._at())
        g_RxJ = np.stack([predicted.g for predicted in self._predicted])
        log_RxK = log_softmax(self.head.logits(self._frames[at - self._first], g_RxJ))
        grow_RxK = self._scores[:, None] + log_RxK
        stay_R = grow_RxK[:, 0].copy()
        grow_RxK[:, 0] = NEVER
        grow_RxK[[row.count >= PER_FRAME * (t + 1) for row, t in zip(self._rows, at, strict=True)]] = NEVER
        if self.guide is not None:
            grow_RxK += self.guide.gains(self._rows)
        if end is not None:
            self._end(at == end - 1, stay_R)
        stay_R = _meet(self._rows, stay_R, grow_RxK)
        chosen = _best(stay_R, grow_RxK, self.width)
        rows, predicted, width = self._rows, self._predicted, grow_RxK.shape[1]
        self._scores = np.concatenate([stay_R, grow_RxK.reshape(-1)])[chosen]
        self._rows, self._predicted = [], []
        for c in chosen:
            parent, label = _parent(c, len(rows), width)
            row, log_K = rows[parent], log_RxK[parent]
            self._rows.append(row if label is None else row.grown(label, int(at[parent]), float(np.exp(log_K[label]))))
            self._predicted.append(_predicted(self.head, predicted[parent], label))
        self._moves += 1

    def _end(self, ends_R: np.ndarray, stay_R: np.ndarray) -> None:
        """A blank at the last frame ends a row."""
        gains_R = self.guide.ends(self._rows) if self.guide is not None else np.zeros(len(self._rows))
        self._ended += [Heard(float(stay_R[r] + gains_R[r]), self._rows[r]) for r in np.flatnonzero(ends_R)]
        self._ended = sorted(self._ended, key=lambda heard: -heard.score)[: self.width]
        stay_R[ends_R] = NEVER


def _predicted(head: TransducerHead, before: Predicted, label: int | None) -> Predicted:
    return before if label is None else head.after(label, before)


def _meet(rows: Sequence[Row], stay_R: np.ndarray, grow_RxK: np.ndarray) -> np.ndarray:
    """What grows into a row that is there already is added to that row, and grows no more."""
    where = {row.key: r for r, row in enumerate(rows)}
    for r, row in enumerate(rows):
        if row.before is not None and row.before.key in where:
            parent = where[row.before.key]
            stay_R[r] = np.logaddexp(stay_R[r], grow_RxK[parent, row.last])
            grow_RxK[parent, row.last] = NEVER
    return stay_R


def _best(stay_R: np.ndarray, grow_RxK: np.ndarray, width: int) -> np.ndarray:
    """The best of the rows as they are and of those that grow, in the order of their scores."""
    scores = np.concatenate([stay_R, grow_RxK.reshape(-1)])
    some = np.argpartition(-scores, min(width, len(scores)) - 1)[:width]
    some = some[scores[some] > NEVER]
    return some[np.lexsort((some, -scores[some]))]


def _parent(chosen: int, rows: int, labels: int) -> tuple[int, int | None]:
    """The row it comes from, and the label that it adds."""
    if chosen < rows:
        return int(chosen), None
    return int(chosen - rows) // labels, int(chosen - rows) % labels


def _chosen(rows: Sequence[Row], chosen: int, frame: int, log_K: np.ndarray, labels: int) -> Row:
    parent, label = _parent(chosen, len(rows), labels)
    return rows[parent] if label is None else rows[parent].grown(label, frame, float(np.exp(log_K[label])))
