"""What is said in this sound? Samples go in as they come, words come out, with times and confidences."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from csp import formats
from csp.runtime import encoders, native
from csp.runtime.decoders import CTCHead, GreedyCTC, GreedyTransducer, Label, TransducerHead
from csp.runtime.fusion import Fusion, Guide
from csp.runtime.layers import Source, expect
from csp.runtime.matrix import sparse
from csp.runtime.search import BeamCTC, BeamTransducer
from csp.speech import tokens as tokens_
from csp.speech.features import Given, LogMel, Stream, bands
from csp.speech.tokens import Tokens

KIND = "recogniser"
BESIDE = 8  # hypotheses of a search that a language model has a say in
LOUDEST = 100.0  # as csp.speech.audio has it


class Word(NamedTuple):
    text: str
    start: float  # seconds, from the frame of its first label
    end: float  # to that of its last
    confidence: float  # the mean probability of its labels


class Result(NamedTuple):
    text: str
    words: list[Word]


class Hypothesis(NamedTuple):
    """What may have been said: its log-probability, and of how many labels it is."""

    text: str
    score: float
    labels: int


def file_of(path: str | Path) -> Path:
    """A model file itself, or the one of a run directory."""
    return Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)


def kind_of(path: str | Path) -> str:
    """ "recogniser" or "lm"; nothing if csp did not train it."""
    with formats.open(path) as file:
        return _kind(file.manifest.config)


def _kind(said: Any) -> str:
    return said.get("kind", "") if isinstance(said, dict) else ""


class Model:
    """What streams share: packed weights, nothing that changes. `form` "float32" or "int8" makes the weights dense."""

    def __init__(self, path: str | Path, kernels: str | None = None, form: str | None = None):
        with formats.open(path) as file:
            said = file.manifest.config
            if (kind := _kind(said)) != KIND:
                shown = f"csp inspect {path} shows what it holds"
                hint = f"it is for --lm {path}, or csp eval --text" if kind == "lm" else shown
                raise ValueError(f"{path} holds no recogniser that csp trained: {hint}")
            try:
                self._read(said, Source(file, native.kernels(kernels), form))
            except (formats.FormatError, KeyError, AttributeError, TypeError, ValueError) as error:
                raise formats.FormatError(f"{path}: {str(error) or 'its config is not whole'}") from None

    def _read(self, said: dict[str, Any], source: Source) -> None:
        self.config, self.kernels = _config(said["model"]), source.kernels
        self.beam = said["decode"]["beam"]
        expect(type(self.beam) is int and self.beam > 0, "decode.beam", f"is {str(self.beam)[:20]}")
        self.tokens: Tokens = tokens_.from_json(said["tokens"])
        self.mel = _mel(said["features"])
        self.mean = source.vector("features/mean", self.mel.bins)
        self.deviation = source.vector("features/deviation", self.mel.bins)
        expect(bool((self.deviation > 0).all()), "features/deviation", "is not positive")
        self.bands: Any = None
        if isinstance(self.mel, LogMel):
            triangles = bands(self.mel.rate, self.mel.bins, self.mel.length)
            self.bands = source.kernels.pack(sparse(triangles, "float32"))
        encoder = encoders.LSTMEncoder if self.config.encoder == "lstm" else encoders.Conformer
        self.encoder = encoder(self.config, self.mel.bins, source, "model/encoder")
        transducer, size = self.config.head == "transducer", self.tokens.size
        self.ctc = None if transducer else CTCHead(self.config, size, source, "model/ctc")
        self.transducer = TransducerHead(self.config, size, source, "model/transducer") if transducer else None

    @property
    def seconds_per_frame(self) -> float:
        halved = self.config.encoder == "lstm" and self.config.reduce_after
        return self.mel.step / self.mel.rate * self.config.stack * (2 if halved else 1)

    def decoder(self, beam: int, fusion: Fusion | None = None) -> Any:
        guide = Guide(fusion) if fusion is not None and not fusion.rescore else None
        if self.transducer is not None:
            return GreedyTransducer(self.transducer) if beam == 1 else BeamTransducer(self.transducer, beam, guide)
        assert self.ctc is not None
        return GreedyCTC(self.ctc) if beam == 1 else BeamCTC(self.ctc, beam, guide)

    def features(self, power: np.ndarray) -> np.ndarray:
        """Energies of the bands."""
        return self.kernels.linear(self.bands, None, power)


class Recognizer:
    """One stream of sound; see `stream` for more of them that share the model.

    Args:
      path: of a model file, or a `Model` that is loaded.
      beam: hypotheses; those of the model's config by default, and BESIDE with a language model if that is one.
      kernels: "vbmi", "avx512", "avx2", "portable" or "reference" forces one.
      fusion: a language model that has a say.
    """

    def __init__(
        self,
        path: "str | Path | Model",
        beam: int | None = None,
        kernels: str | None = None,
        fusion: Fusion | None = None,
    ):
        self.model, self.fusion = path if isinstance(path, Model) else Model(path, kernels), fusion
        own = self.model.beam if fusion is None or self.model.beam > 1 else BESIDE
        self.beam = own if beam is None else beam
        if self.beam < 1 or (fusion is not None and self.beam < 2):
            least = "1 or more" if self.beam < 1 else "a language model chooses among 2 or more"
            raise ValueError(f"a beam of {self.beam} hypotheses: {least}")
        if fusion is not None:
            fusion.check(self.model.tokens)
        self.reset()

    def stream(self) -> "Recognizer":
        """Another stream of the same model, which may run in another thread."""
        return Recognizer(self.model, self.beam, fusion=self.fusion)

    def reset(self) -> None:
        """Forgets what was heard."""
        mel = self.model.mel
        self._mel = Stream(mel, self.model.features) if isinstance(mel, LogMel) else None
        self._state = self.model.encoder.start()
        self._decoder = self.model.decoder(self.beam, self.fusion)
        self._resampler: Any = None

    @property
    def rate(self) -> int:
        """Samples a second that it hears."""
        return self.model.mel.rate

    def accept(self, samples: Any, rate: int | None = None) -> None:
        """Hears more samples, float in -1..1 or int16; at another `rate` they are resampled (which needs soxr)."""
        if self._mel is None:
            raise ValueError("this model hears features, not sound: accept_features(y_TxF)")
        x = _checked(samples)
        if rate not in (None, self.rate) or self._resampler is not None:
            x = self._resampled(x, rate or self.rate, last=False)
        self._hear(x)

    def accept_features(self, y_TxF: Any) -> None:
        """Hears more frames, of a model whose features are given."""
        frames_TxF, bins = np.asarray(y_TxF, np.float32), self.model.mel.bins
        if self._mel is not None:
            raise ValueError("this model hears sound, not features: accept(samples)")
        if frames_TxF.ndim != 2 or frames_TxF.shape[1] != bins or not np.isfinite(frames_TxF).all():
            raise ValueError(f"frames of shape {frames_TxF.shape}: give finite numbers, [frames, {bins}]")
        self._see(frames_TxF)

    def result(self) -> Result:
        """What was heard so far; its last words may change."""
        return self._result(self._decoder.labels)

    def finish(self) -> Result:
        """What was heard in all; the next sample begins a new recording."""
        self._end()
        labels = self._decoder.labels
        if self.fusion is not None and self.fusion.rescore:
            best = self._best()
            told = self.fusion.scores([self.model.tokens.decode(one.number for one in row) for _, row in best])
            weight, bonus = self.fusion.weight, self.fusion.bonus
            worth = [s + weight * t + bonus * len(row) for (s, row), t in zip(best, told.tolist(), strict=True)]
            labels = best[int(np.argmax(worth))][1]
        found = self._result(labels)
        self.reset()
        return found

    def finish_with(self) -> list[Hypothesis]:
        """As `finish`, but every row that the beam has left, the best first, as it was searched."""
        if self.beam == 1:
            raise ValueError("one hypothesis is no choice: a beam of 2 or more")
        self._end()
        best = self._best()
        self.reset()
        return [Hypothesis(self.model.tokens.decode(o.number for o in row), s, len(row)) for s, row in best]

    def _best(self) -> list[tuple[float, list[Label]]]:
        return [(score, row.labels()) for score, row in self._decoder.best()]

    def _end(self) -> None:
        if self._resampler is not None:
            self._hear(self._resampled(np.zeros(0, np.float32), self._resampler[0], last=True))
        self._decoder.push(self.model.encoder.finish(self._state))
        self._decoder.finish()

    def _result(self, labels: list[Label]) -> Result:
        return Result(self.model.tokens.decode(label.number for label in labels), _words(labels, self.model))

    def _hear(self, x: np.ndarray) -> None:
        assert self._mel is not None
        self._see(self._mel.push(x))

    def _see(self, frames_TxF: np.ndarray) -> None:
        if len(frames_TxF):
            y_TxF = (frames_TxF - self.model.mean) / self.model.deviation
            self._decoder.push(self.model.encoder.push(y_TxF, self._state))

    def _resampled(self, x: np.ndarray, rate: int, last: bool) -> np.ndarray:
        if self._resampler is None:
            if not 4_000 <= rate <= 192_000:
                raise ValueError(f"{rate} samples a second: csp hears 4000 to 192000")
            try:
                import soxr
            except ImportError:
                raise ValueError(f"hearing {rate} samples a second needs soxr: pip install soxr") from None
            self._resampler = (rate, soxr.ResampleStream(rate, self.rate, 1, dtype="float32"))
        if rate != self._resampler[0]:
            raise ValueError(f"{rate} samples a second after {self._resampler[0]}: finish() first")
        return self._resampler[1].resample_chunk(x, last=last)


def _config(said: dict[str, Any]) -> SimpleNamespace:
    """Sizes within reason."""
    config = SimpleNamespace(**said)
    expect(
        config.encoder in ("lstm", "conformer") and config.head in ("ctc", "transducer"), "model", "is of no known kind"
    )
    least = {"layers": 1, "width": 1, "stack": 1, "reduce_after": 0, "predictor": 1, "joint": 1}
    least |= {"heads": 1, "kernel": 1, "chunk": 1, "left": 0}
    for key, low in least.items():
        value = said[key]
        expect(type(value) is int and low <= value <= 1 << 20, f"model.{key}", f"is {str(value)[:20]}")
    expect(config.layers <= 1000 and config.reduce_after < config.layers + 1, "model.layers", f"are {config.layers}")
    return config


def _mel(said: dict[str, Any]) -> LogMel | Given:
    rate, bins, window, hop = (said[key] for key in ("rate", "bins", "window", "hop"))
    slowest = 1 if said.get("given") else 4_000
    right = type(rate) is int and slowest <= rate <= 192_000 and type(bins) is int and 1 <= bins <= 4096
    expect(right and 0 < hop <= window <= 1, "features", "have a rate, bins, window or hop beyond all reason")
    return Given(rate, bins) if said.get("given") else LogMel(rate, bins, window, hop)


def _checked(samples: Any) -> np.ndarray:
    x = np.asarray(samples)
    if x.ndim != 1:
        raise ValueError(f"samples of shape {x.shape}: give one channel, such as x.mean(axis=1)")
    if x.dtype == np.int16:
        return x.astype(np.float32) / np.float32(32767)
    if x.dtype.kind != "f" and x.size:
        raise ValueError(f"samples of type {x.dtype}: give floats in -1..1, or int16")
    x = x.astype(np.float32)
    if x.size and not (np.abs(x).max() <= LOUDEST):  # of NaN too
        raise ValueError(f"samples that are NaN, infinite or beyond {LOUDEST:g} are no sound")
    return x


def _words(labels: list[Label], model: Model) -> list[Word]:
    """Units between spaces, with the times of their first and last labels."""
    groups: list[list[Label]] = []
    begins = True
    for label in labels:
        unit = model.tokens.units[label.number - 1]
        if model.tokens.kind == "words" or unit.startswith("\u2581"):
            begins = True
        if unit in (" ", "\u2581"):
            begins = True
            continue
        if begins:
            groups.append([])
        groups[-1].append(label)
        begins = False
    step = model.seconds_per_frame
    return [
        Word(
            model.tokens.decode(label.number for label in group),
            round(group[0].frame * step, 6),
            round((group[-1].frame + 1) * step, 6),
            math.fsum(label.probability for label in group) / len(group),
        )
        for group in groups
    ]
