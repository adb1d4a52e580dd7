"""From frames to labels as they arrive, one hypothesis at a time; see search.py for beams.

A decoder has `push(h_TxD)`, `finish()` and `labels`: what is heard so far, each with its frame and its probability.
"""

from typing import Any, NamedTuple

import numpy as np

from csp.runtime.encoders import linear
from csp.runtime.layers import LSTM, Embedding, Source, expect

MOST = 4  # labels that a transducer may emit in one frame, as in training


class Label(NamedTuple):
    number: int
    frame: int
    probability: float


class CTCHead:
    def __init__(self, config: Any, vocabulary: int, source: Source, path: str):
        self.output = linear(source, f"{path}/output", config.width, vocabulary)


class TransducerHead:
    """The predictor and the joint network."""

    def __init__(self, config: Any, vocabulary: int, source: Source, path: str):
        self.kernels, width = source.kernels, config.predictor
        self.embedding = Embedding(source, f"{path}/embedding/embedding", vocabulary, width)
        self.predictor = LSTM(source, f"{path}/predictor")
        expect((self.predictor.inputs, self.predictor.width) == (width, width), path, f"predicts not by {width} cells")
        self.from_encoder = linear(source, f"{path}/from_encoder", config.width, config.joint)
        self.from_predictor = linear(source, f"{path}/from_predictor", width, config.joint)
        self.output = linear(source, f"{path}/output", config.joint, vocabulary)

    def start(self) -> "Predicted":
        """Before the first label, which stands for the blank."""
        return self.after(0, Predicted(np.zeros(0, np.float32), **self.predictor.start()))

    def after(self, label: int, before: "Predicted") -> "Predicted":
        """What is predicted once this label is said."""
        state = {"h": before.h.copy(), "c": before.c.copy()}
        said_1xD = self.predictor(self.embedding(label), state)
        return Predicted(self.from_predictor(said_1xD)[0], **state)

    def logits(self, h_TxJ: np.ndarray, g_TxJ: np.ndarray) -> np.ndarray:
        return self.output(self.kernels.tanh_of_sum(h_TxJ, g_TxJ))


class Predicted(NamedTuple):
    """A predictor's output, projected, and its state."""

    g: np.ndarray
    h: np.ndarray
    c: np.ndarray


class GreedyCTC:
    """The most probable label of each frame; repetitions and blanks are dropped."""

    def __init__(self, head: CTCHead):
        self.head, self.labels = head, list[Label]()
        self._last, self._frame = 0, 0

    def push(self, h_TxD: np.ndarray) -> None:
        logits_TxK = self.head.output(h_TxD)
        for row, best in zip(logits_TxK, logits_TxK.argmax(axis=1).tolist(), strict=True):
            if best not in (0, self._last):
                self.labels.append(Label(best, self._frame, probability(row, best)))
            self._last = best
            self._frame += 1

    def finish(self) -> None:
        pass


class GreedyTransducer:
    """The most probable label at each turn, and at most MOST in a frame."""

    def __init__(self, head: TransducerHead):
        self.head, self.labels = head, list[Label]()
        self._predicted, self._frame = head.start(), 0

    def push(self, h_TxD: np.ndarray) -> None:
        for h_J in self.head.from_encoder(h_TxD):
            for _ in range(MOST):
                logits_K = self.head.logits(h_J[None], self._predicted.g[None])[0]
                best = int(logits_K.argmax())
                if best == 0:
                    break
                self.labels.append(Label(best, self._frame, probability(logits_K, best)))
                self._predicted = self.head.after(best, self._predicted)
            self._frame += 1

    def finish(self) -> None:
        pass


def probability(logits_K: np.ndarray, best: int) -> float:
    return float(1 / np.exp(logits_K - logits_K[best]).sum(dtype=np.float64))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Of each row, in float64."""
    logits = logits.astype(np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
