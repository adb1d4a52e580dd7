"""How much shall a language model have to say? The weight and bonus with the fewest wrong words on a dev set.

Each utterance is searched once without the language model, and its best hypotheses are scored by it: then every pair of
weight and bonus costs nothing (rescoring). For a say in the search itself, the neighbourhood of the best pair is tried.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csp.runtime import Recognizer
from csp.runtime.fusion import Fusion
from csp.runtime.lm import LanguageModel
from csp.speech import wer
from csp.train import evaluate, language, recognise
from csp.train.corpus import Corpus

WEIGHTS = tuple(np.round(np.arange(0, 1.55, 0.1), 2).tolist())
BONUSES = tuple(np.round(np.arange(-1, 3.05, 0.25), 2).tolist())
_NEAR = ((1.0, 0.0), (1.25, 0.0), (0.75, 0.0), (0.5, 0.0), (1.0, 0.5), (1.0, -0.5), (0.5, -0.5))  # (times, plus)


class Choice(NamedTuple):
    """One hypothesis of an utterance: the recogniser's score, the language model's, its labels, and its errors."""

    sound: float
    told: float
    labels: int
    errors: wer.Errors


class Tried(NamedTuple):
    weight: float
    bonus: float
    wer: float


def tune(
    model: Path, lm: Path, manifest: Path, split: str, beam: int, rescore: bool, say: Callable[[str], Any]
) -> dict[str, Any]:
    """Plain JSON: the best pair, its error rate and that without, and what the language model thinks of the texts."""
    plain, teller = recognise.open_(model, beam), LanguageModel(lm)
    Fusion(teller, rescore=rescore).check(plain.model.tokens)
    corpus = recognise.corpus_of(plain, manifest, split)
    texts = [u.text for u in corpus.utterances]
    perplexity = language.of_lines(lm, texts, str(manifest))["perplexity"]
    every = _choices(plain, teller, corpus)
    tried = [Tried(w, b, _rate(every, w, b)) for w in WEIGHTS for b in BONUSES]
    best = _best(tried)
    say(f"rescored: {best.wer:.2%} at weight {best.weight:g}, bonus {best.bonus:g}")
    without = Tried(0.0, 0.0, _rate(every, 0.0, 0.0))
    found: dict[str, Any] = {"without": without.wer, "oracle": _oracle(every), "rescored": best._asdict()}
    if not rescore:
        tried = []
        for times, beside in _NEAR:
            weight, bonus = round(max(best.weight, 0.1) * times, 3), best.bonus + beside
            fused = Recognizer(plain.model, beam, fusion=Fusion(teller, weight, bonus))
            tried.append(Tried(weight, bonus, evaluate.listen(fused, corpus).errors.rate))
            say(f"fused: {tried[-1].wer:.2%} at weight {weight:g}, bonus {bonus:g}")
        found["fused"] = _best(tried)._asdict()
        best = _best([*tried, without])
    return found | {
        "perplexity": perplexity,
        "beam": beam,
        "words": sum(len(plain.model.tokens.normalise(text).split()) for text in texts),
        "best": best._asdict(),
        "tried": [one._asdict() for one in tried],
    }


def _choices(recognizer: Recognizer, lm: LanguageModel, corpus: Corpus) -> list[list[Choice]]:
    told, found = Fusion(lm, rescore=True), []
    for row, u in enumerate(corpus.utterances):
        x = corpus.sound(row)
        recognizer.accept(x) if x.ndim == 1 else recognizer.accept_features(x)
        rows, reference = recognizer.finish_with(), recognizer.model.tokens.normalise(u.text)
        scores = told.scores([one.text for one in rows]).tolist()
        found.append(
            [Choice(r.score, s, r.labels, wer.count(reference, r.text)) for r, s in zip(rows, scores, strict=True)]
        )
    return found


def _rate(every: Sequence[Sequence[Choice]], weight: float, bonus: float) -> float:
    chosen = [max(row, key=lambda c: c.sound + weight * c.told + bonus * c.labels).errors for row in every]
    return wer.total(chosen).rate


def _oracle(every: Sequence[Sequence[Choice]]) -> float:
    """With the best hypothesis of each beam, whatever it is worth: no weight does better."""
    return wer.total([min(row, key=lambda c: c.errors.total).errors for row in every]).rate


def _best(tried: Sequence[Tried]) -> Tried:
    """The fewest errors; of equals the smallest weight, then the smallest bonus."""
    return min(tried, key=lambda one: (one.wer, one.weight, abs(one.bonus)))
