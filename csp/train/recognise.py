"""A finished model at work: the errors of the file that is shipped, run as it will be run."""

from pathlib import Path
from typing import Any

from csp.runtime import Recognizer
from csp.runtime.fusion import Fusion
from csp.runtime.model import file_of
from csp.speech.features import Given
from csp.train import corpus, evaluate
from csp.train.config import Config, Data, Features
from csp.train.corpus import Corpus


def open_(path: Path, beam: int | None = None, fusion: Fusion | None = None) -> Recognizer:
    """Of a model file, or of a run directory; searched with `beam` hypotheses."""
    return Recognizer(file_of(path), beam, fusion=fusion)


def score(recognizer: Recognizer, where: Path, split: str) -> dict[str, Any]:
    """The summary of all utterances of a manifest."""
    return evaluate.listen(recognizer, corpus_of(recognizer, where, split)).summary()


def corpus_of(recognizer: Recognizer, where: Path, split: str) -> Corpus:
    """The recordings of a manifest, as this recogniser hears them."""
    mel = recognizer.model.mel
    given = isinstance(mel, Given)
    config = Config(
        data=Data(synth="digits", masks=()), features=Features(rate=recognizer.rate, bins=mel.bins, given=given)
    )
    return corpus.load(str(where), split, config, recognizer.model.tokens, training=False)
