"""Which data does a config mean? Corpora, a vocabulary, and what normalises features."""

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csp.formats import writing
from csp.speech import features, synth, tokens
from csp.speech.errors import DataError
from csp.speech.tokens import Normaliser, Tokens
from csp.train import corpus, mesh, modelfile
from csp.train.config import Config, ConfigError
from csp.train.corpus import Corpus

log = logging.getLogger("csp")
INPUTS = "inputs.json"  # of the run directory: what a model file needs beside its weights


class Prepared(NamedTuple):
    train: Corpus
    valid: Corpus
    test: Corpus
    tokens: Tokens
    mean: np.ndarray
    deviation: np.ndarray

    @property
    def inputs(self) -> dict[str, Any]:
        return {"tokens": self.tokens.as_json(), "mean": self.mean.tolist(), "deviation": self.deviation.tolist()}

    def digest(self) -> str:
        return self.train.digest()

    def said(self) -> str:
        return f"{self.train.hours:.2f} hours to train on, {self.tokens.size - 1} {self.tokens.kind}"

    def facts(self) -> dict[str, Any]:
        return {
            "train_hours": self.train.hours,
            "train_utterances": len(self.train.utterances),
            "dropped": self.train.dropped,
            "valid_utterances": len(self.valid.utterances),
            "valid_dropped": self.valid.dropped,
            "test_utterances": len(self.test.utterances),
            "test_dropped": self.test.dropped,
        }

    def batches(self, config: Config, share: tuple[int, int]) -> corpus.Batches:
        return corpus.Batches(self.train, config.train.batch, config.data.buckets, config.train.seed, share)


def prepare(config: Config, out: Path, check: Callable[[], None] = lambda: None) -> Prepared:
    """Speaks the corpus if there is none, reads everything, and learns the vocabulary from the training transcripts.

    `check` is called now and then, and may raise.
    """
    data, f = config.data, config.features
    where = data.train
    if data.synth:
        if data.synth not in synth.GRAMMARS:
            raise ConfigError(f"data.synth {data.synth!r} is none of {', '.join(synth.GRAMMARS)}")
        if not synth.has_voices():
            log.warning("espeakng-loader is not installed: the voices are a few formants (pip install 'csp-jax[demo]')")
        order = (out / "corpus", data.synth, data.count, f.rate, config.train.seed)
        if mesh.is_first():
            synth.speak(*order, check)
        mesh.after_the_first("spoken")
        where = str(synth.speak(*order))  # it is there
    texts = corpus.texts(where, data.train_split)
    first = modelfile.load(config.train.init) if config.train.init else None
    vocabulary = first.tokens if first else tokens.learn(data.tokens, texts, _normaliser(config), data.pieces)
    read = partial(corpus.load, config=config, tokens=vocabulary, check=check)
    train = read(where, data.train_split, training=True)
    valid = read(data.valid or where, data.valid_split, training=False)
    test = read(data.test or where, data.test_split, training=False)
    if both := corpus.shared(train, test):
        raise DataError(
            f"{len(both)} of {len(test.utterances)} recordings of the test are trained on, such as {both[0].path}: "
            "choose data.train_split and data.test_split so that they share none"
        )
    if both := corpus.shared(train, valid):
        log.warning("%d of %d recordings of the validation are trained on", len(both), len(valid.utterances))
    if first is not None:
        mean, deviation = np.asarray(first.setup.mean), np.asarray(first.setup.deviation)
    else:
        mean, deviation = corpus.statistics(train, features.of(f))
    found = Prepared(train, valid, test, vocabulary, mean, deviation)
    remember(out, found.inputs)
    return found


def remember(out: Path, inputs: dict[str, Any]) -> None:
    """Keeps what a model file will need in the run directory; one process does."""
    if mesh.is_first():
        text = json.dumps(inputs, ensure_ascii=False) + "\n"
        writing.atomically(out / INPUTS, [text.encode("utf-8")], overwrite=True)


def _normaliser(config: Config) -> Normaliser:
    return Normaliser(config.data.upper, config.data.keep)
