"""What is said in this sound? Samples go in as they come, words come out, with times and confidences."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csp.runtime.decoders import Label
from csp.runtime.fusion import Fusion
from csp.runtime.model import Model
from csp.speech.features import LogMel, Stream

BESIDE = 8  # hypotheses of a search that a language model has a say in
LOUDEST = 100.0  # as csp.speech.audio has it
EVERY = 16  # frames of features after which it is asked whether a sentence is over, however they came


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


class Recognizer:
    """One stream of sound; see `stream` for more of them that share the model.

    Args:
      path: of a model file, or a `Model` that is loaded.
      beam: hypotheses; those of the model's config by default, and BESIDE with a language model if that is one.
      kernels: "vbmi", "avx512", "avx2", "portable" or "reference" forces one.
      fusion: a language model that has a say.
      pause: seconds without a label after which a sentence is over, and what comes is heard as a new recording is;
        never by default. A model trained on sentences of seconds may hear less and less of a stream without end.
    """

    def __init__(
        self,
        path: "str | Path | Model",
        beam: int | None = None,
        kernels: str | None = None,
        fusion: Fusion | None = None,
        pause: float | None = None,
    ):
        self.model, self.fusion = path if isinstance(path, Model) else Model(path, kernels), fusion
        own = self.model.beam if fusion is None or self.model.beam > 1 else BESIDE
        self.beam = own if beam is None else beam
        if self.beam < 1 or (fusion is not None and self.beam < 2):
            least = "1 or more" if self.beam < 1 else "a language model chooses among 2 or more"
            raise ValueError(f"a beam of {self.beam} hypotheses: {least}")
        if fusion is not None:
            fusion.check(self.model.tokens)
        if pause is not None and not (math.isfinite(pause) and pause > 0):
            raise ValueError(f"a pause of {pause} seconds must be positive")
        config = self.model.config
        if pause is not None and config.encoder == "conformer" and not config.streaming:
            raise ValueError("this model hears a recording once it is whole: it cannot tell a pause in it")
        self.pause = pause
        self.reset()

    def stream(self) -> "Recognizer":
        """Another stream of the same model, which may run in another thread."""
        return Recognizer(self.model, self.beam, fusion=self.fusion, pause=self.pause)

    def reset(self) -> None:
        """Forgets what was heard."""
        mel = self.model.mel
        self._mel = Stream(mel, self.model.features) if isinstance(mel, LogMel) else None
        self._resampler: Any = None
        self._said: list[Result] = []  # sentences that are over
        self._before = 0  # frames of features before this sentence
        self._begin()

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
        return _joined([*self._said, self._result(self._decoder.labels)])

    def sentences(self) -> list[Result]:
        """Those that a pause has ended since this was last asked; `result` and `finish` have what comes after them."""
        found, self._said = self._said, []
        return found

    def finish(self) -> Result:
        """What was heard in all; the next sample begins a new recording."""
        self._hear_the_rest()
        found = _joined([*self._said, self._sentence()])
        self.reset()
        return found

    def finish_with(self) -> list[Hypothesis]:
        """As `finish`, but every row that the beam has left, the best first, as it was searched."""
        if self.beam == 1:
            raise ValueError("one hypothesis is no choice: a beam of 2 or more")
        if self.pause is not None:
            raise ValueError("hypotheses are of one sentence: hear it without a pause")
        self._hear_the_rest()
        self._end()
        best = self._best()
        self.reset()
        return [Hypothesis(self.model.tokens.decode(o.number for o in row), s, len(row)) for s, row in best]

    def _best(self) -> list[tuple[float, list[Label]]]:
        return [(score, row.labels()) for score, row in self._decoder.best()]

    def _begin(self) -> None:
        """A sentence."""
        self._state = self.model.encoder.start()
        self._decoder = self.model.decoder(self.beam, self.fusion)
        self._seen = self._heard = 0  # frames of features, and of the encoder

    def _end(self) -> None:
        self._decoder.push(self.model.encoder.finish(self._state))
        self._decoder.finish()

    def _sentence(self) -> Result:
        """It is over: the best of what was heard."""
        self._end()
        if self.fusion is None or not self.fusion.rescore:
            return self._result(self._decoder.labels)
        best = self._best()
        told = self.fusion.scores([self.model.tokens.decode(one.number for one in row) for _, row in best])
        weight, bonus = self.fusion.weight, self.fusion.bonus
        worth = [s + weight * t + bonus * len(row) for (s, row), t in zip(best, told.tolist(), strict=True)]
        return self._result(best[int(np.argmax(worth))][1])

    def _is_over(self) -> bool:
        labels = self._decoder.labels if self.pause is not None and self._seen % EVERY == 0 else []
        return bool(labels) and (self._heard - 1 - labels[-1].frame) * self.model.seconds_per_frame >= self.pause

    def _result(self, labels: list[Label]) -> Result:
        begin = self._before * self.model.mel.step / self.model.mel.rate
        return Result(self.model.tokens.decode(label.number for label in labels), _words(labels, self.model, begin))

    def _hear_the_rest(self) -> None:
        """What the resampler has kept."""
        if self._resampler is not None:
            self._hear(self._resampled(np.zeros(0, np.float32), self._resampler[0], last=True))

    def _hear(self, x: np.ndarray) -> None:
        assert self._mel is not None
        self._see(self._mel.push(x))

    def _see(self, frames_TxF: np.ndarray) -> None:
        y_TxF = (frames_TxF - self.model.mean) / self.model.deviation
        while len(y_TxF):
            now = len(y_TxF) if self.pause is None else EVERY - self._seen % EVERY
            h_TxD = self.model.encoder.push(y_TxF[:now], self._state)
            self._decoder.push(h_TxD)
            self._seen, self._heard = self._seen + len(y_TxF[:now]), self._heard + len(h_TxD)
            y_TxF = y_TxF[now:]
            if self._is_over():
                said = self._sentence()
                self._said += [said] if said.words else []
                self._before += self._seen
                self._begin()

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


def _joined(said: list[Result]) -> Result:
    """One after the other."""
    return Result(" ".join(one.text for one in said if one.text), [word for one in said for word in one.words])


def _words(labels: list[Label], model: Model, begin: float) -> list[Word]:
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
            round(begin + group[0].frame * step, 6),
            round(begin + (group[-1].frame + 1) * step, 6),
            math.fsum(label.probability for label in group) / len(group),
        )
        for group in groups
    ]
