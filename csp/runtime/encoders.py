"""From features to frames as they arrive: stacked LSTMs, or a Conformer by chunks, or one that waits for the end.

An encoder keeps nothing; `start()` gives what a stream remembers, `push(y, state)` the frames that y completes, and
`finish(state)` those that are left. How the features are cut into pieces changes no bit of a frame.
"""

from typing import Any

import numpy as np

from csp.runtime.layers import LSTM, Linear, Norm, Source, State, expect
from csp.runtime.native import Kernels
from csp.speech import features

Turn = tuple[np.ndarray, np.ndarray]


class LSTMEncoder:
    def __init__(self, config: Any, inputs: int, source: Source, path: str):
        self.stack, self.reduce_after = config.stack, config.reduce_after
        self.layers = [LSTM(source, f"{path}/layers/{i}") for i in range(config.layers)]
        self.norms = [Norm(source, f"{path}/norms/{i}", config.width) for i in range(config.layers)]
        widths = [inputs * config.stack] + [config.width] * config.layers
        if config.reduce_after:
            widths[config.reduce_after] *= 2
        expect([layer.inputs for layer in self.layers] == widths[:-1], path, f"has other layers than {widths}")
        expect({layer.width for layer in self.layers} == {config.width}, path, f"has other cells than {config.width}")

    def start(self) -> dict[str, Any]:
        return {"layers": [layer.start() for layer in self.layers]}

    def push(self, y_TxF: np.ndarray, state: dict[str, Any]) -> np.ndarray:
        h_TxD = _stacked(y_TxF, self.stack, state, "rest")
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True), 1):
            out_TxD = layer(h_TxD, state["layers"][number - 1])
            h_TxD = norm(out_TxD, h_TxD if out_TxD.shape == h_TxD.shape else None)
            if number == self.reduce_after:
                h_TxD = _stacked(h_TxD, 2, state, "pair")
        return h_TxD

    def finish(self, state: dict[str, Any]) -> np.ndarray:
        return np.zeros((0, self.layers[-1].width), np.float32)


class Conformer:
    """Chunk after chunk; a frame sees its chunk and `left` chunks before it, whose keys and values are kept."""

    def __init__(self, config: Any, inputs: int, source: Source, path: str):
        self.config = config
        self.input = linear(source, f"{path}/input", inputs * config.stack, config.width)
        self.blocks = [Block(config, source, f"{path}/blocks/{i}") for i in range(config.layers)]

    def start(self) -> dict[str, Any]:
        return {"blocks": [block.start() for block in self.blocks], "seen": 0}

    def push(self, y_TxF: np.ndarray, state: dict[str, Any]) -> np.ndarray:
        h_TxF = _together(state, "waiting", _stacked(y_TxF, self.config.stack, state, "rest"))
        whole = len(h_TxF) // self.config.chunk * self.config.chunk if self.config.streaming else 0
        state["waiting"] = h_TxF[whole:].copy()
        chunks = [h_TxF[i : i + self.config.chunk] for i in range(0, whole, self.config.chunk)]
        return _joined([self._chunk(chunk, state) for chunk in chunks], self.config.width)

    def finish(self, state: dict[str, Any]) -> np.ndarray:
        left = state.get("waiting", np.zeros((0, 0), np.float32))
        return self._chunk(left, state) if len(left) else _joined([], self.config.width)

    def _chunk(self, h_TxF: np.ndarray, state: dict[str, Any]) -> np.ndarray:
        x_TxD = self.input(h_TxF)
        by = turn(state["seen"] + np.arange(len(x_TxD)), self.config.width // self.config.heads)
        for block, remembered in zip(self.blocks, state["blocks"], strict=True):
            x_TxD = block(x_TxD, remembered, by)
        state["seen"] += len(x_TxD)
        return x_TxD


class Block:
    """Half a feed-forward, attention, convolution, half a feed-forward, a norm."""

    def __init__(self, config: Any, source: Source, path: str):
        self.first = FeedForward(config, source, f"{path}/first")
        self.second = FeedForward(config, source, f"{path}/second")
        self.attention = Attention(config, source, f"{path}/attention")
        self.convolution = Convolution(config, source, f"{path}/convolution")
        self.norm = Norm(source, f"{path}/norm", config.width)

    def start(self) -> State:
        return self.attention.start() | self.convolution.start()

    def __call__(self, x_TxD: np.ndarray, state: State, by: Turn) -> np.ndarray:
        x_TxD = self.first(x_TxD, 0.5)
        x_TxD = x_TxD + self.attention(x_TxD, state, by)
        x_TxD = x_TxD + self.convolution(x_TxD, state)
        return self.norm(self.second(x_TxD, 0.5))


class FeedForward:
    """x and a share of what the network makes of it."""

    def __init__(self, config: Any, source: Source, path: str):
        self.kernels, self.norm = source.kernels, Norm(source, f"{path}/norm", config.width)
        self.up = Linear(source, f"{path}/up")
        inputs = self.up.inputs
        expect(inputs == config.width, f"{path}/up/kernel", f"has {inputs} inputs, where {config.width} are expected")
        self.down = linear(source, f"{path}/down", self.up.outputs, config.width)
        self.two = self.kernels.several(self.up.layer, self.down.layer)

    def __call__(self, x_TxD: np.ndarray, share: float = 1.0) -> np.ndarray:
        return self.kernels.feed(x_TxD, self.norm.scale, self.norm.bias, self.two, share)


class Attention:
    """Scaled dot products with rotary positions, over the keys and values that are remembered and the chunk's own."""

    NAMES = ("query", "key", "value", "out")

    def __init__(self, config: Any, source: Source, path: str):
        self.kernels, self.heads, self.width = source.kernels, config.heads, config.width
        self.remembered = config.left * config.chunk if config.streaming else 0
        self.norm = Norm(source, f"{path}/norm", config.width)
        expect(config.width % (2 * config.heads) == 0, path, f"shares {config.width} among {config.heads} heads")
        made = [linear(source, f"{path}/{name}", config.width, config.width) for name in self.NAMES]
        self.query, self.key, self.value, self.out = made
        self.three = self.kernels.several(*(part.layer for part in made[:3]))

    def start(self) -> State:
        return {"memory": np.zeros((2, 0, self.heads, self.width // self.heads), np.float32)}

    def __call__(self, x_TxD: np.ndarray, state: State, by: Turn) -> np.ndarray:
        three = self.kernels.project(x_TxD, self.norm.scale, self.norm.bias, self.three)
        q_TxHxE, *new = turned(self.kernels, three.reshape(3, len(x_TxD), self.heads, -1), by)
        memory = np.concatenate([state["memory"], new], axis=1)
        places = memory.shape[1]
        mixed_TxD = self.kernels.attend(q_TxHxE, memory, np.full(len(x_TxD), places))
        state["memory"] = memory[:, max(0, places - self.remembered) :].copy()
        return self.out(mixed_TxD)


class Convolution:
    """A gate, a convolution over time of each feature by itself, and back; streaming, it remembers some frames."""

    def __init__(self, config: Any, source: Source, path: str):
        self.kernels, self.streaming = source.kernels, config.streaming
        width = config.width
        self.norm, self.middle = Norm(source, f"{path}/norm", width), Norm(source, f"{path}/middle", width)
        self.up = linear(source, f"{path}/up", width, 2 * width)
        self.down = linear(source, f"{path}/down", width, width)
        self.taps = source.table(f"{path}/taps", (config.kernel, width))

    def start(self) -> State:
        before = len(self.taps) - 1 if self.streaming else (len(self.taps) - 1) // 2
        return {"before": np.zeros((before, self.taps.shape[1]), np.float32)}

    def __call__(self, x_TxD: np.ndarray, state: State) -> np.ndarray:
        y_TxD = np.concatenate([state["before"], self.kernels.gate(self.up(self.norm(x_TxD)))])
        if self.streaming:
            state["before"] = y_TxD[len(x_TxD) :].copy()
        else:
            after = len(self.taps) - 1 - len(state["before"])
            y_TxD = np.concatenate([y_TxD, np.zeros((after, y_TxD.shape[1]), np.float32)])
        return self.down(self.kernels.silu(self.middle(self.kernels.depthwise(y_TxD, self.taps))))


def linear(source: Source, path: str, inputs: int, outputs: int) -> Linear:
    """One of these sizes."""
    found = Linear(source, path)
    sizes = f"is {found.inputs} x {found.outputs}, where {inputs} x {outputs} is expected"
    expect((found.inputs, found.outputs) == (inputs, outputs), f"{path}/kernel", sizes)
    return found


def turn(at_T: np.ndarray, size: int) -> Turn:
    """Cosines and sines of angles that grow with the position, for queries and then for keys of that size."""
    half = size // 2
    angle_TxE = np.tile(at_T, 2)[:, None] * 10_000.0 ** (-np.arange(half) / half)
    return np.cos(angle_TxE).astype(np.float32), np.sin(angle_TxE).astype(np.float32)


def turned(kernels: Kernels, three: np.ndarray, by: Turn) -> np.ndarray:
    """Queries, keys and values [3, T, H, E], of which the first two turn."""
    both = three[:2].reshape(-1, *three.shape[2:])
    return np.concatenate([kernels.rotate(both, *by).reshape(2, *three.shape[1:]), three[2:]])


def _stacked(y_TxF: np.ndarray, width: int, state: dict[str, Any], name: str) -> np.ndarray:
    """Neighbours side by side; what does not fill a stack waits in the state."""
    y_TxF = _together(state, name, y_TxF)
    stacked = features.stack(y_TxF, width)
    state[name] = y_TxF[len(stacked) * width :].copy()
    return stacked


def _together(state: dict[str, Any], name: str, y_TxF: np.ndarray) -> np.ndarray:
    waiting = state.get(name)
    return y_TxF if waiting is None or not len(waiting) else np.concatenate([waiting, y_TxF])


def _joined(pieces: list[np.ndarray], width: int) -> np.ndarray:
    return np.concatenate(pieces) if pieces else np.zeros((0, width), np.float32)
