"""A finished model at work: transcripts of files, and the errors on a manifest."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from csp.speech import audio
from csp.train import corpus, evaluate, modelfile
from csp.train.modelfile import Model


def open_(path: Path, beam: int | None = None) -> Model:
    """Of a model file, or of a run directory; searched with `beam` hypotheses."""
    model = modelfile.load(path / "model.safetensors" if path.is_dir() else path)
    if beam is None:
        return model
    if beam < 1:
        raise ValueError(f"--beam {beam} must be positive")
    config = model.setup.config
    config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, beam=beam))
    return model._replace(setup=model.setup._replace(config=config))


def transcribe(model: Model, path: Path) -> str:
    """What is said in one recording; nothing in one that is shorter than a window."""
    x = audio.read(path, model.setup.mel.rate)
    if model.setup.mel.frames(len(x)) < model.setup.config.model.stack:
        return ""
    size = -(-len(x) // model.setup.mel.rate) * model.setup.mel.rate  # whole seconds: few shapes to compile
    padded = np.zeros((1, size), np.int16)
    padded[0, : len(x)] = np.clip(x, -1, 1) * 32767
    numbers, counts = evaluate.decoder(model.setup)(model.params, padded, np.array([len(x)], np.int32))
    return model.tokens.decode(np.asarray(numbers)[0, : int(counts[0])])


def score(model: Model, where: Path, split: str) -> dict[str, Any]:
    """The summary of all utterances of a manifest."""
    found = corpus.load(str(where), split, model.setup.config, model.tokens, training=False)
    return evaluate.evaluate(evaluate.decoder(model.setup), model.params, found, model.tokens).summary()
