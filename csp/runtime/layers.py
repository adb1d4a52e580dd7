"""The parts of a network as they run: matrices packed for the kernels, vectors in float32, state outside of them."""

from typing import NamedTuple

import numpy as np

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
        found = matrix.read(self.file, name)
        if self.form is None:
            return [self.kernels.pack(coded) for coded in found]
        return [self.kernels.pack(matrix.dense(found, self.form), "dense")]

    def vector(self, name: str) -> np.ndarray:
        return matrix.vector(self.file, name)


class Linear:
    """x W + b, where W may be two factors."""

    def __init__(self, source: Source, path: str):
        self.kernels, self.matrices = source.kernels, source.matrices(f"{path}/kernel")
        self.bias = source.vector(f"{path}/bias") if source.has(f"{path}/bias") else None

    def __call__(self, x_TxD: np.ndarray) -> np.ndarray:
        *before, last = self.matrices
        for w in before:
            x_TxD = self.kernels.linear(w, None, x_TxD)
        return self.kernels.linear(last, self.bias, x_TxD)


class Norm:
    """Zero mean and unit variance of each row, then a scale and a shift; plus `added`."""

    def __init__(self, source: Source, path: str):
        self.kernels = source.kernels
        self.scale, self.bias = source.vector(f"{path}/scale"), source.vector(f"{path}/bias")

    def __call__(self, x_TxD: np.ndarray, added: np.ndarray | None = None) -> np.ndarray:
        return self.kernels.norm(x_TxD, self.scale, self.bias, added)


class LSTM:
    """One layer, forward in time; its state is h and c."""

    def __init__(self, source: Source, path: str):
        self.kernels = source.kernels
        self.input, self.recurrent = source.matrices(f"{path}/input"), source.matrices(f"{path}/recurrent")
        self.bias = source.vector(f"{path}/bias")
        self.width = len(self.bias) // 4

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
