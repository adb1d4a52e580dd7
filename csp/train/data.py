"""Which data does a config mean? Corpora, a vocabulary, and what normalises features."""

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csp.formats import writing
from csp.speech import features, synth, tokens
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
            "test_utterances": len(self.test.utterances),
        }

    def batches(self, config: Config, share: tuple[int, int]) -> corpus.Batches:
        return corpus.Batches(self.train, config.train.batch, config.data.buckets, config.train.seed, share)


def prepare(config: Config, out: Path) -> Prepared:
    """Speaks the corpus if there is none, reads everything, and learns the vocabulary from the training transcripts."""
    data, f = config.data, config.features
    where = data.train
    if data.synth:
        if data.synth not in synth.GRAMMARS:
            raise ConfigError(f"data.synth {data.synth!r} is none of {', '.join(synth.GRAMMARS)}")
        if not synth.has_voices():
            log.warning("espeakng-loader is not installed: the voices are a few formants (pip install 'csp-jax[demo]')")
        order = (out / "corpus", data.synth, data.count, f.rate, config.train.seed)
        if mesh.is_first():
            synth.speak(*order)
        mesh.after_the_first("spoken")
        where = str(synth.speak(*order))  # it is there
    texts = corpus.texts(where, data.train_split)
    first = modelfile.load(config.train.init) if config.train.init else None
    vocabulary = first.tokens if first else tokens.learn(data.tokens, texts, _normaliser(config), data.pieces)
    train = corpus.load(where, data.train_split, config, vocabulary, training=True)
    valid = corpus.load(data.valid or where, data.valid_split, config, vocabulary, training=False)
    test = corpus.load(data.test or where, data.test_split, config, vocabulary, training=False)
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
