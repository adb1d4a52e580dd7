"""How many words does a model get wrong?"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from csp import models
from csp.runtime import Recognizer
from csp.speech import wer
from csp.speech.tokens import Tokens
from csp.train.corpus import Corpus, in_order
from csp.train.objective import Setup, front


class Scored(NamedTuple):
    """One utterance: what was said, what was heard, and the errors between them."""

    id: str
    speaker: str
    reference: str
    heard: str
    errors: wer.Errors


class Result(NamedTuple):
    scored: list[Scored]
    seconds: float  # of computing
    audio: float  # seconds

    @property
    def errors(self) -> wer.Errors:
        return wer.total([one.errors for one in self.scored])

    def summary(self) -> dict[str, Any]:
        """Plain JSON: the rate, its interval, counts, speakers and the worst utterances."""
        total, each = self.errors, [one.errors for one in self.scored]
        low, high = wer.interval(each)
        speakers = sorted({one.speaker for one in self.scored})
        by_speaker = {s: wer.total([o.errors for o in self.scored if o.speaker == s]) for s in speakers}
        worst = sorted(self.scored, key=lambda one: (-one.errors.total, one.id))[:10]
        return {
            "wer": total.rate,
            "wer_low": low,
            "wer_high": high,
            "words": total.words,
            "utterances": len(self.scored),
            "substitutions": total.substitutions,
            "insertions": total.insertions,
            "deletions": total.deletions,
            "rtf": self.seconds / max(self.audio, 1e-9),
            "speakers": {s: {"wer": e.rate, "words": e.words} for s, e in by_speaker.items()},
            "examples": [_said(one) for one in self.scored[:3]],
            "worst": [_said(one) for one in worst if one.errors.total],
        }


def _said(one: Scored) -> dict[str, str]:
    return {"id": one.id, "reference": one.reference, "heard": one.heard}


def decoder(setup: Setup) -> Callable[[Any, Any, Any], Any]:
    """decode(params, x_BxS, samples_B), compiled once for each length."""

    @jax.jit
    def decode(params, x_BxS, samples_B):
        seen = front(setup, None, x_BxS, samples_B)
        if setup.config.decode.beam == 1:
            return models.apply(setup.structure, params, "greedy", *seen)
        return models.apply(setup.structure, params, "search", *seen, setup.config.decode.beam)

    return decode


def evaluate(decode: Callable, params: Any, corpus: Corpus, tokens: Tokens, size: int = 16) -> Result:
    """Hears every utterance once. Timed are features, network and search; not reading, and not compiling."""
    heard: dict[int, str] = {}
    seconds = 0.0
    compiled: set[tuple[int, ...]] = set()
    for rows, batch in in_order(corpus, size):
        if batch.x.shape not in compiled:
            jax.block_until_ready(decode(params, batch.x, batch.samples))
            compiled.add(batch.x.shape)
        start = time.perf_counter()
        numbers, counts = map(np.asarray, decode(params, batch.x, batch.samples))
        seconds += time.perf_counter() - start
        for row, line, count in zip(rows, numbers, counts, strict=False):
            heard[int(row)] = tokens.decode(line[:count])
    return _scored(corpus, tokens, heard, seconds)


def listen(recognizer: Recognizer, corpus: Corpus) -> Result:
    """As `evaluate`, by the runtime, one utterance after the other, on one core."""
    heard: dict[int, str] = {}
    start = time.perf_counter()
    for row in range(len(corpus.audio)):
        x = corpus.sound(row)
        recognizer.accept(x) if x.ndim == 1 else recognizer.accept_features(x)
        heard[row] = recognizer.finish().text
    return _scored(corpus, recognizer.model.tokens, heard, time.perf_counter() - start)


def _scored(corpus: Corpus, tokens: Tokens, heard: Mapping[int, str], seconds: float) -> Result:
    scored = []
    for row, u in enumerate(corpus.utterances):
        reference = tokens.normalise(u.text)
        scored.append(Scored(u.id, u.speaker, reference, heard[row], wer.count(reference, heard[row])))
    return Result(scored, seconds, 3600 * corpus.hours)
