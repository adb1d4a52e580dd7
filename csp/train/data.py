"""Which data does a config mean? Corpora, a vocabulary, and what normalises features."""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csp.speech import synth, tokens
from csp.speech.features import LogMel
from csp.speech.tokens import Normaliser, Tokens
from csp.train import corpus
from csp.train.config import Config, ConfigError
from csp.train.corpus import Corpus

log = logging.getLogger("csp")


class Prepared(NamedTuple):
    train: Corpus
    valid: Corpus
    test: Corpus
    tokens: Tokens
    mean: np.ndarray
    deviation: np.ndarray


def prepare(config: Config, out: Path) -> Prepared:
    """Speaks the corpus if there is none, reads everything, and learns the vocabulary from the training transcripts."""
    data, f = config.data, config.features
    where = data.train
    if data.synth:
        if data.synth not in synth.GRAMMARS:
            raise ConfigError(f"data.synth {data.synth!r} is none of {', '.join(synth.GRAMMARS)}")
        if not synth.has_voices():
            log.warning("espeakng-loader is not installed: the voices are a few formants (pip install 'csp-jax[demo]')")
        where = str(synth.speak(out / "corpus", data.synth, data.count, f.rate, config.train.seed))
    texts = corpus.texts(where, data.train_split)
    vocabulary = tokens.learn(data.tokens, texts, Normaliser(data.upper, data.keep), data.pieces)
    train = corpus.load(where, data.train_split, config, vocabulary, training=True)
    valid = corpus.load(data.valid or where, data.valid_split, config, vocabulary, training=False)
    test = corpus.load(data.test or where, data.test_split, config, vocabulary, training=False)
    mean, deviation = corpus.statistics(train, LogMel(f.rate, f.bins, f.window, f.hop))
    return Prepared(train, valid, test, vocabulary, mean, deviation)
