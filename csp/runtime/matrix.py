"""What is a matrix of a model file, before kernels pack it? Its values, or codes and scales, and where they stand."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from csp.formats.reading import File


class Coded(NamedTuple):
    """A matrix [inputs, outputs]: y = x W."""

    inputs: int
    outputs: int
    values: np.ndarray  # float32, or int8 codes
    scale: np.ndarray | None  # of each output's codes
    order: np.ndarray | None  # input x outputs + output of each value; None: of all, in turn

    @property
    def floats(self) -> bool:
        return self.scale is None

    def dense(self) -> np.ndarray:
        """Values or codes at their places, zeros elsewhere."""
        if self.order is None:
            return self.values.reshape(self.inputs, self.outputs)
        w = np.zeros(self.inputs * self.outputs, self.values.dtype)
        if len(self.order) and not 0 <= self.order.min() <= self.order.max() < len(w):
            raise ValueError("a place lies beyond the matrix")
        w[self.order] = self.values
        return w.reshape(self.inputs, self.outputs)

    def weights(self) -> np.ndarray:
        """The matrix in float32."""
        w = self.dense()
        return w if self.scale is None else w * self.scale


class Matrix(NamedTuple):
    """A matrix that kernels have packed, in whatever they hold it."""

    inputs: int
    outputs: int
    layout: str
    nbytes: int
    held: Any


Layer = tuple[Sequence[Matrix], np.ndarray | None]  # one matrix, or two in turn; and a bias


class Several(NamedTuple):
    """Layers that kernels run in one call, in whatever they hold them."""

    inputs: int
    outputs: int
    held: Any


def read(file: File, name: str) -> list[Coded]:
    """The matrix of that name; two of them, to be multiplied by in turn, where factors are stored."""
    entry, (values, scale, order) = file.numbers(name)
    inputs, outputs = entry.matrix
    values = values if scale is not None else values.astype(np.float32)
    if entry.codec != "factors":
        return [Coded(inputs, outputs, values, scale, None if order is None else np.ascontiguousarray(order, np.int64))]
    rank = entry.fields["rank"]
    u, v = values[: inputs * rank], values[inputs * rank :]
    scales = (None, None) if scale is None else (scale[:rank], scale[rank:])
    return [Coded(inputs, rank, u, scales[0], None), Coded(rank, outputs, v, scales[1], None)]


def transposed(coded: Coded) -> tuple[Coded, np.ndarray | None]:
    """The matrix with inputs and outputs exchanged, and by what its inputs have to be multiplied, if it is codes."""
    order, (inputs, outputs) = coded.order, (coded.inputs, coded.outputs)
    if order is None:
        values = np.ascontiguousarray(coded.values.reshape(inputs, outputs).T).reshape(-1)
    else:
        moved = order % outputs * inputs + order // outputs
        by_row = np.argsort(moved, kind="stable")
        order, values = moved[by_row], coded.values[by_row]
    scale = None if coded.scale is None else np.ones(inputs, np.float32)
    return Coded(outputs, inputs, values, scale, order), coded.scale


def dense(w: np.ndarray, form: str) -> Coded:
    """All of a matrix, in "float32" or "int8"."""
    inputs, outputs = w.shape
    if form == "float32":
        return Coded(inputs, outputs, np.ascontiguousarray(w).reshape(-1), None, None)
    scale = np.maximum(np.abs(w).max(axis=0, initial=0) / np.float32(127), np.finfo(np.float32).tiny)
    return Coded(inputs, outputs, np.rint(w / scale).astype(np.int8).reshape(-1), scale, None)


def sparse(w: np.ndarray, form: str) -> Coded:
    """What is not zero of a matrix, likewise."""
    every = dense(w, form)
    order = np.flatnonzero(every.values)
    return every._replace(values=every.values[order], order=order.astype(np.int64))


def vector(file: File, name: str) -> np.ndarray:
    """A vector, or a small table, in float32."""
    return np.ascontiguousarray(file.decode(name), np.float32)
