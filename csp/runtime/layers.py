"""The parts of a network as they run: matrices packed for the kernels, vectors in float32, state outside of them."""

import functools
from typing import Any, NamedTuple

import numpy as np

from csp.formats import FormatError
from csp.formats.reading import File
from csp.runtime import matrix
from csp.runtime.native import Kernels

State = dict[str, np.ndarray]  # what a stream remembers of a layer


class Source(NamedTuple):
    """Where layers come from: a file, the kernels that will run them, and a form other than the file's, if any."""

    file: File
    kernels: Kernels
    form: str | None = None

    def has(self, name: str) -> bool:
        return name in self.file.names

    def matrices(self, name: str) -> list:
        """One matrix, or two to be multiplied by in turn."""
        found = matrix.read(self.file, name)
        if self.form is None:
            return [self.kernels.pack(coded) for coded in found]
        w = functools.reduce(np.matmul, (coded.weights() for coded in found))
        return [self.kernels.pack(matrix.dense(w, self.form), "dense")]

    def vector(self, name: str, size: int) -> np.ndarray:
        """One dimension, of that size."""
        return self.table(name, (size,))

    def table(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """A small tensor in float32; None stands for any size."""
        found = matrix.vector(self.file, name)
        fits = found.ndim == len(shape) and all(n in (None, own) for n, own in zip(shape, found.shape, strict=True))
        return found if fits else expect(False, name, f"has shape {found.shape}, where {shape} is expected")


def expect(holds: bool, name: str, what: str) -> Any:
    """Kernels believe the sizes that they are told: a file is checked before."""
    if not holds:
        raise FormatError(f"{name!r} {what}")


class Linear:
    """x W + b, where W may be two factors."""

    def __init__(self, source: Source, path: str):
        self.kernels, self.matrices = source.kernels, source.matrices(f"{path}/kernel")
        self.inputs, self.outputs = self.matrices[0].inputs, self.matrices[-1].outputs
        self.bias = source.vector(f"{path}/bias", self.outputs) if source.has(f"{path}/bias") else None

    @property
    def layer(self) -> matrix.Layer:
        return self.matrices, self.bias

    def __call__(self, x_TxD: np.ndarray) -> np.ndarray:
        *before, last = self.matrices
        for w in before:
            x_TxD = self.kernels.linear(w, None, x_TxD)
        return self.kernels.linear(last, self.bias, x_TxD)


class Norm:
    """Zero mean and unit variance of each row, then a scale and a shift; plus `added`."""

    def __init__(self, source: Source, path: str, width: int):
        self.kernels = source.kernels
        self.scale, self.bias = source.vector(f"{path}/scale", width), source.vector(f"{path}/bias", width)

    def __call__(self, x_TxD: np.ndarray, added: np.ndarray | None = None) -> np.ndarray:
        return self.kernels.norm(x_TxD, self.scale, self.bias, added)


class LSTM:
    """One layer, forward in time; its state is h and c."""

    def __init__(self, source: Source, path: str):
        self.kernels = source.kernels
        self.input, self.recurrent = source.matrices(f"{path}/input"), source.matrices(f"{path}/recurrent")
        self.inputs, self.width = self.input[0].inputs, self.recurrent[0].inputs
        self.bias = source.vector(f"{path}/bias", 4 * self.width)
        gates = {self.input[-1].outputs, self.recurrent[-1].outputs}
        expect(gates == {4 * self.width}, path, f"has {sorted(gates)} gates, for {self.width} cells")

    def start(self) -> State:
        return {"h": np.zeros(self.width, np.float32), "c": np.zeros(self.width, np.float32)}

    def __call__(self, x_TxD: np.ndarray, state: State) -> np.ndarray:
        """Every h; `state` is brought up to date."""
        for w in self.input[:-1]:
            x_TxD = self.kernels.linear(w, None, x_TxD)
        if len(self.recurrent) == 1:
            return self.kernels.lstm(self.input[-1], self.recurrent[0], self.bias, x_TxD, state["h"], state["c"])
        gates_TxG = self.kernels.linear(self.input[-1], self.bias, x_TxD)
        return np.stack([self._step(gates, state) for gates in gates_TxG]) if len(gates_TxG) else gates_TxG[:, :0]

    def _step(self, gates: np.ndarray, state: State) -> np.ndarray:
        """With a recurrent matrix of two factors."""
        h = state["h"][None]
        for w in self.recurrent:
            h = self.kernels.linear(w, None, h)
        state["h"], state["c"] = self.kernels.step(gates + h[0], state["c"])
        return state["h"]


class Embedding:
    """Row n of a table, which stays as it is stored: floats or codes, all or those that are not zero; or factors."""

    def __init__(self, source: Source, path: str, count: int, width: int):
        self.table, *others = matrix.read(source.file, path)
        self.kernels, self.others = source.kernels, [source.kernels.pack(w) for w in others]
        outputs = others[-1].outputs if others else self.table.outputs
        sizes = f"is {self.table.inputs} x {outputs}, where {count} x {width} is expected"
        expect((self.table.inputs, outputs) == (count, width), path, sizes)
        if self.table.order is not None:
            by_row = np.argsort(self.table.order, kind="stable")
            order = self.table.order[by_row]
            self.table = self.table._replace(values=self.table.values[by_row], order=order)
            self.starts = np.searchsorted(order, np.arange(count + 1) * self.table.outputs)

    def __call__(self, n: int) -> np.ndarray:
        """[1, width]."""
        table, width = self.table, self.table.outputs
        if table.order is None:
            row = table.values[n * width : (n + 1) * width].astype(np.float32)
        else:
            here = slice(self.starts[n], self.starts[n + 1])
            row = np.zeros(width, np.float32)
            row[table.order[here] - n * width] = table.values[here]
        row = (row if table.scale is None else row * table.scale)[None]
        for w in self.others:
            row = self.kernels.linear(w, None, row)
        return row
