"""A finished model at work: the errors of the file that is shipped, run as it will be run."""

from pathlib import Path
from typing import Any

from csp.runtime import Recognizer
from csp.runtime.recognizer import file_of
from csp.speech.features import Given
from csp.train import corpus, evaluate
from csp.train.config import Config, Data, Features


def open_(path: Path, beam: int | None = None) -> Recognizer:
    """Of a model file, or of a run directory; searched with `beam` hypotheses."""
    return Recognizer(file_of(path), beam)


def score(recognizer: Recognizer, where: Path, split: str) -> dict[str, Any]:
    """The summary of all utterances of a manifest."""
    mel = recognizer.model.mel
    given = isinstance(mel, Given)
    config = Config(
        data=Data(synth="digits", masks=()), features=Features(rate=recognizer.rate, bins=mel.bins, given=given)
    )
    found = corpus.load(str(where), split, config, recognizer.model.tokens, training=False)
    return evaluate.listen(recognizer, found).summary()
