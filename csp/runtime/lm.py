"""Which label comes next, by the file of a language model? Many hypotheses at once, each with its own past.

`start()` is the past of an empty sentence; `after(labels, pasts)` gives, for each hypothesis, the log-probabilities of
its next label and its new past. Pasts are never changed: hypotheses that part share what they have in common.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from csp import formats
from csp.runtime import matrix, native
from csp.runtime.decoders import log_softmax
from csp.runtime.encoders import FeedForward, Turn, linear, turn, turned
from csp.runtime.layers import LSTM, Embedding, Linear, Norm, Source, expect
from csp.speech import tokens as tokens_
from csp.speech.tokens import BLANK

KIND = "lm"
REMEMBERED = 512  # labels before the next one that attention sees: a stream without end needs no memory without end


class Past(NamedTuple):
    """What a hypothesis has said: how many labels, and what each layer remembers of them."""

    count: int
    layers: tuple[Any, ...]


class LanguageModel:
    """Nothing in it changes, so that threads and streams share it. `form` makes its weights dense, as in `Model`."""

    def __init__(self, path: str | Path, kernels: str | None = None, form: str | None = None):
        with formats.open(path) as file:
            said = file.manifest.config
            if not isinstance(said, dict) or said.get("kind") != KIND:
                raise ValueError(
                    f"{path} holds no language model that csp trained: csp inspect {path} shows what it is"
                )
            try:
                self._read(said, Source(file, native.kernels(kernels), form))
            except (formats.FormatError, KeyError, AttributeError, TypeError, ValueError) as error:
                raise formats.FormatError(f"{path}: {str(error) or 'its config is not whole'}") from None

    def _read(self, said: dict[str, Any], source: Source) -> None:
        self.kernels, self.tokens = source.kernels, tokens_.from_json(said["tokens"])
        config, size = _config(said["model"]), self.tokens.size
        self.embedding = Embedding(source, "model/embedding/embedding", size, config.width)
        self.positions = None
        if config.network == "transformer" and config.positions == "learned":
            self.positions = source.table("model/positions/embedding", (config.context, config.width))
        self.head = config.width // config.heads
        block = Block if config.network == "transformer" else Layer
        self.blocks = [block(config, source, f"model/blocks/{i}") for i in range(config.layers)]
        self.norm = Norm(source, "model/norm", config.width)
        self.output = (
            Tied(source, "model/embedding/embedding")
            if config.tied
            else linear(source, "model/output", config.width, size)
        )

    def start(self) -> Past:
        return Past(0, tuple(block.start() for block in self.blocks))

    def after(self, labels: Sequence[int], pasts: Sequence[Past]) -> list[tuple[np.ndarray, Past]]:
        """(log-probabilities of the next label, past with this label) of each hypothesis; 0 begins a sentence."""
        x_KxD = np.concatenate([self.embedding(label) for label in labels])
        at_K = np.array([past.count for past in pasts])
        if self.positions is not None:
            x_KxD = x_KxD + self.positions[np.minimum(at_K, len(self.positions) - 1)]
        layers, by = [], turn(at_K, self.head)
        for number, block in enumerate(self.blocks):
            x_KxD, remembered = block(x_KxD, by, [past.layers[number] for past in pasts])
            layers.append(remembered)
        log_KxV = log_softmax(self.output(self.norm(x_KxD)))
        new = [Past(past.count + 1, kept) for past, kept in zip(pasts, zip(*layers, strict=True), strict=True)]
        return list(zip(log_KxV, new, strict=True))

    def score(self, sentences: Sequence[Sequence[int]]) -> np.ndarray:
        """log p of each row of labels and of its end."""
        totals, pasts = np.zeros(len(sentences)), [self.start() for _ in sentences]
        labels, going = [BLANK] * len(sentences), list(range(len(sentences)))
        while going:
            found = self.after([labels[i] for i in going], [pasts[i] for i in going])
            for i, (log_V, past) in zip(list(going), found, strict=True):
                said, at = sentences[i], pasts[i].count
                labels[i], pasts[i] = said[at] if at < len(said) else BLANK, past
                totals[i] += log_V[labels[i]]
                if at == len(said):
                    going.remove(i)
        return totals


class Block:
    """Attention over the past and a feed-forward network, each added to what came before."""

    def __init__(self, config: Any, source: Source, path: str):
        width, self.size, self.rotary = config.width, config.width // config.heads, config.positions == "rotary"
        here = f"{path}/attention"
        self.kernels, self.norm = source.kernels, Norm(source, f"{here}/norm", width)
        three = [Linear(source, f"{here}/{name}") for name in ("query", "key", "value")]
        self.query, self.key, self.value = three
        inner, sizes = self.query.outputs, {(part.inputs, part.outputs) for part in three}
        expect(
            sizes == {(width, inner)} and inner % self.size == 0,
            here,
            f"has heads of {inner} numbers, {self.size} each",
        )
        self.three = self.kernels.several(*(part.layer for part in three))
        self.out, self.heads = linear(source, f"{here}/out", inner, width), inner // self.size
        self.feed = FeedForward(config, source, f"{path}/feed")

    def start(self) -> np.ndarray:
        """Keys and values, [2, labels, heads, width of a head]."""
        return np.zeros((2, 0, self.heads, self.size), np.float32)

    def __call__(self, x_KxD: np.ndarray, by: Turn, pasts: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        three = self.kernels.project(x_KxD, self.norm.scale, self.norm.bias, self.three)
        three = three.reshape(3, len(x_KxD), self.heads, self.size)
        if self.rotary:
            three = turned(self.kernels, three, by)
        counts = [past.shape[1] + 1 for past in pasts]
        memory = np.empty((len(x_KxD), 2, max(counts), self.heads, self.size), np.float32)
        for k, (past, count) in enumerate(zip(pasts, counts, strict=True)):
            memory[k, :, : count - 1] = past
            memory[k, :, count - 1] = three[1:, k]
        x_KxD = x_KxD + self.out(self.kernels.attend(three[0], memory, np.array(counts)))
        kept = [memory[k, :, max(0, count - REMEMBERED) : count] for k, count in enumerate(counts)]
        return self.feed(x_KxD), kept


class Layer:
    """An LSTM, normalised and added to what came before."""

    def __init__(self, config: Any, source: Source, path: str):
        self.lstm, self.norm = LSTM(source, f"{path}/lstm"), Norm(source, f"{path}/norm", config.width)
        expect((self.lstm.inputs, self.lstm.width) == (config.width, config.width), path, f"is not {config.width} wide")

    def start(self) -> dict[str, np.ndarray]:
        return self.lstm.start()

    def __call__(self, x_KxD: np.ndarray, by: Turn, pasts: Sequence[Any]) -> tuple[np.ndarray, list[Any]]:
        new = [{name: x.copy() for name, x in past.items()} for past in pasts]
        y_KxD = np.concatenate([self.lstm(x_KxD[k : k + 1], state) for k, state in enumerate(new)])
        return self.norm(y_KxD, x_KxD), new


class Tied:
    """x E^T: the table of the embedding as an output; the scales of its columns go to x."""

    def __init__(self, source: Source, path: str):
        tables = matrix.read(source.file, path)
        expect(len(tables) == 1, path, "is two factors, and the output too: untie them")
        coded, self.scale = matrix.transposed(tables[0])
        self.kernels = source.kernels
        if source.form is None:
            self.matrix = source.kernels.pack(coded)
        else:
            self.matrix = source.kernels.pack(matrix.dense(coded.weights(), source.form), "dense")

    def __call__(self, x_KxD: np.ndarray) -> np.ndarray:
        return self.kernels.linear(self.matrix, None, x_KxD if self.scale is None else x_KxD * self.scale)


def _config(said: dict[str, Any]) -> SimpleNamespace:
    """Sizes within reason."""
    config = SimpleNamespace(**said)
    expect(config.network in ("transformer", "lstm"), "model.network", f"is {str(config.network)[:20]}")
    for key in ("layers", "width", "heads", "context"):
        value = said[key]
        expect(type(value) is int and 1 <= value <= 1 << 20, f"model.{key}", f"is {str(value)[:20]}")
    expect(config.layers <= 1000, "model.layers", f"are {config.layers}")
    whole = config.network == "lstm" or config.width % (2 * config.heads) == 0
    expect(whole, "model.heads", f"are {config.heads}, of {config.width} numbers")
    return config
