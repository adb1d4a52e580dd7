"""A language model as a task: it reads text, and is judged by how little a word surprises it."""

import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import csp
from csp import models
from csp.models import lm
from csp.runtime import lmbench
from csp.runtime.model import file_of
from csp.speech import synth, text
from csp.speech import tokens as tokens_
from csp.speech.errors import DataError
from csp.speech.tokens import Normaliser, Tokens
from csp.train import calibrate, limits, lmfile, perplexity, pruning, task
from csp.train import text as packing
from csp.train.config import Config, ConfigError, Data, Decode, Sparsity, Train
from csp.train.data import remember
from csp.train.storing import values_in
from csp.train.text import Batch, Sentences

log = logging.getLogger("csp")
_CALIBRATING = 16  # batches
_LOOKED_AT = 20_000  # lines
_MANY = 0.01  # of the letters
_EVERY = 50  # sentences of a text without splits, of which one is for validation and one for the test


class Texts(NamedTuple):
    """Sentences to train on, to be judged by, and to be tested on."""

    train: Sentences
    valid: Sentences
    test: Sentences
    tokens: Tokens

    @property
    def inputs(self) -> dict[str, Any]:
        return {"tokens": self.tokens.as_json()}

    def digest(self) -> str:
        return self.train.digest()

    def said(self) -> str:
        return f"{self.train.words.sum():,} words to train on, {self.tokens.size - 1} {self.tokens.kind}"

    def facts(self) -> dict[str, Any]:
        return {
            "train_words": int(self.train.words.sum()),
            "train_sentences": len(self.train),
            "train_labels": len(self.train.labels),
            "dropped": {"out of the vocabulary": self.train.dropped} if self.train.dropped else {},
            "test_sentences": len(self.test),
        }

    def batches(self, config: Config, share: tuple[int, int]) -> packing.Packed:
        return packing.Packed(self.train, config.train.batch, config.data.length, config.train.seed)


def prepare(config: Config, out: Path, check: Callable[[], None] = lambda: None) -> Texts:
    """Reads the text, or makes up one, and learns the vocabulary from what is trained on."""
    found = _prepared(config.data, config.train.init, config.train.seed if config.data.synth else 0)
    remember(out, found.inputs)
    return found


@functools.lru_cache(maxsize=1)  # the runs of a sweep share their text
def _prepared(data: Data, first: str, seed: int) -> Texts:
    train, valid, test = _made_up(data, seed) if data.synth else _read(data)
    tokens = _vocabulary(data, first, train)
    _warn_of_cut(train, tokens.normalise)
    encoded = packing.encode(train, tokens, data.train or data.synth)
    if encoded.dropped:
        log.warning("%d of %d sentences are left out: the vocabulary cannot write them", encoded.dropped, len(train))
    return Texts(
        encoded,
        packing.encode(valid, tokens, data.valid or "valid").some(data.most),
        packing.encode(test, tokens, data.test or "test").some(data.most),
        tokens,
    )


def _read(data: Data) -> tuple[list[str], list[str], list[str]]:
    """Named texts, or splits of the manifest that is named, or every fiftieth sentence of the text."""
    train, splits = text.lines(data.train, data.train_split), text.splits(data.train)
    own_valid = data.valid or (data.train if {*data.valid_split.split(",")} <= splits else "")
    own_test = data.test or (data.train if {*data.test_split.split(",")} <= splits else "")
    valid = text.lines(own_valid, data.valid_split) if own_valid else train[::_EVERY]
    test = text.lines(own_test, data.test_split) if own_test else train[_EVERY // 2 :: _EVERY] or valid
    if not own_valid or not own_test:
        out = {*range(0, len(train), _EVERY)} if not own_valid else set()
        out |= {*range(_EVERY // 2, len(train), _EVERY)} if not own_test else set()
        train, every = [line for number, line in enumerate(train) if number not in out], len(train)
        if not train:
            raise DataError(
                f"{data.train} has {every} sentences, one a line: too few to keep some for validation and test; "
                "name data.valid and data.test, or more text"
            )
    return train, valid, test


def _warn_of_cut(lines: Sequence[str], normalise: Normaliser) -> None:
    """Letters and digits that the vocabulary's normaliser takes for spaces, if they are many."""
    count = Counter(c for line in lines[:: 1 + len(lines) // _LOOKED_AT] for c in line if c.isalnum())
    cut = Counter({c: n for c, n in count.items() if not normalise(c)})
    if (share := cut.total() / max(count.total(), 1)) > _MANY:
        some = "".join(c for c, _ in cut.most_common(8))
        log.warning("%.1f %% of the letters are outside data.keep %r and cut: %s", 100 * share, normalise.keep, some)


def _made_up(data: Data, seed: int) -> tuple[list[str], list[str], list[str]]:
    if data.synth not in synth.GRAMMARS:
        raise ConfigError(f"data.synth {data.synth!r} is none of {', '.join(synth.GRAMMARS)}")
    few = max(data.count // 10, 1)
    return tuple(  # pyrefly: ignore[bad-return]
        synth.sentences(data.synth, count, seed, part) for part, count in enumerate((data.count, few, few))
    )


def _vocabulary(data: Data, first: str, train: list[str]) -> Tokens:
    if first:
        return lmfile.load(first).tokens
    if data.vocabulary:
        return of_model(data.vocabulary)
    normalise = Normaliser(data.upper, data.keep)
    return tokens_.learn(data.tokens, train, normalise, data.pieces, most=data.pieces)


def of_model(path: str) -> Tokens:
    """The vocabulary of a model file, of whatever kind."""
    with csp.formats.open(file_of(path)) as file:
        said = file.manifest.config
    if not isinstance(said, dict) or "tokens" not in said:
        raise ValueError(f"{path} has no vocabulary: name a model that csp trained")
    return tokens_.from_json(said["tokens"])


class Language(task.Task):
    def __init__(self, config: Config, inputs: dict[str, Any]):
        self.config, self.tokens = config, tokens_.from_json(inputs["tokens"])
        self.structure, self.initial = lm.create(config.model, self.tokens.size, config.train.seed)
        if config.train.init:
            self.initial = _initial(config)
        self.teacher = lmfile.load(config.train.teacher) if config.train.teacher else None
        if self.teacher is not None and self.teacher.tokens != self.tokens:
            raise ValueError(
                f"train.teacher {config.train.teacher} has another vocabulary: data.vocabulary takes it over"
            )
        if config.sparsity.method == pruning.CALIBRATED and config.sparsity.structure == "rank":
            for target in filter(None, pruning.targets_of(config)):
                calibrate.check_saving(self.initial, target)
        self.losses = functools.partial(_losses, self.structure)
        self._grams = functools.partial(_grams, self.structure)

    def loss(self, params: Any, key: jax.Array, batch: Batch) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        labels = jnp.sum(batch.documents > 0).astype(jnp.float32)
        total = jnp.sum(_losses(self.structure, params, batch))
        if self.teacher is not None:
            share = self.config.train.teacher_weight
            total = (1 - share) * total + share * self._distance(params, batch)
        return total, (labels, jnp.zeros((), jnp.int32))

    REMEMBERED = ("ranks", "norms")

    def calibrated(
        self, target: float | None, params: Any, batches: packing.Packed, said: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        many = min(self.config.sparsity.options.get("batches", _CALIBRATING), batches.per_epoch)
        return self.pruned(target, params, [batches.at(number) for number in range(many)], said)

    def pruned(
        self, target: float | None, params: Any, some: Sequence[Batch], said: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """By what these batches say."""
        sparsity, model = self.config.sparsity, calibrate.Model(self.losses, self._grams)
        criterion = pruning.metric_of(sparsity)
        if sparsity.structure == "rank":
            assert target is not None  # the fraction of the bytes that factors save: configs without one are refused
            params, norms = calibrate.factor(model, params, some, criterion, target, said.get("norms"))
            return params, said | {"ranks": lmfile.ranks_of(params), "norms": norms}
        rules = pruning.rules_of(sparsity, params, target)
        return calibrate.prune(model, params, some, criterion, rules), said

    def shaped(self, params: Any, said: Mapping[str, Any]) -> Any:
        shapes = lm.factored(params, said.get("ranks", {}))
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def _distance(self, params: Any, batch: Batch) -> jax.Array:
        """Kullback-Leibler divergence from the teacher's labels, summed."""
        assert self.teacher is not None
        seen = (batch.inputs, batch.documents)
        own_BxTxK = jax.nn.log_softmax(models.apply(self.structure, params, "logits", *seen))
        right = models.apply(self.teacher.structure, self.teacher.params, "logits", *seen)
        right_BxTxK = jax.nn.log_softmax(jax.lax.stop_gradient(right))
        far_BxT = jnp.sum(jnp.exp(right_BxTxK) * (right_BxTxK - own_BxTxK), -1)
        return jnp.sum(jnp.where(batch.documents > 0, far_BxT, 0))

    def judge(self, params: Any, data: Texts) -> task.Judged:
        found = self._surprise(self.losses, params, data.valid)
        record = {"valid_perplexity": found.perplexity, "words": int(found.words.sum())}
        return task.Judged(found.perplexity, record, f"perplexity {found.perplexity:.2f} of a word (valid)")

    def save(self, path: Path, params: Any, rules: tuple[csp.Rule, ...], about: dict[str, Any]) -> None:
        lmfile.save(path, self.config, params, self.tokens, rules, about)

    def test(self, path: Path, data: Texts) -> dict[str, Any]:
        return self.score(path, data.test).summary() | {"label_us": lmbench.latency(path)}

    def score(self, path: Path, sentences: Sentences) -> perplexity.Surprise:
        model = lmfile.load(path)
        return self._surprise(functools.partial(_losses, model.structure), model.params, sentences)

    def _surprise(self, losses: Any, params: Any, sentences: Sentences) -> perplexity.Surprise:
        return perplexity.measure(losses, params, sentences, self.config.train.batch, self.config.data.length)


def prune(path: Path, out: Path, sparsity: Sparsity, where: Path | None, about: dict[str, Any]) -> None:
    """Writes a model file anew, pruned by what a text says of its weights; by magnitude it needs none."""
    found = lmfile.load(path)
    if found.config.ranks and sparsity.structure != "rank":
        raise ConfigError(f"{path} is made of factors already: prune what they come from, or --structure rank")
    data = Data(train=str(where or ""), synth="" if where else "digits", length=found.length)
    config = Config(
        kind=lmfile.KIND,
        data=data,
        model=found.config,
        sparsity=sparsity,
        train=Train(init=str(path)),
        decode=Decode(values=values_in(path)),
    )
    limits.demand([*limits.of_heads(config), *limits.of_targets(sparsity)])
    task = Language(config, {"tokens": found.tokens.as_json()})
    if where is None and sparsity.metric != "magnitude":
        raise ConfigError(f"metric {sparsity.metric!r} looks at data: --text FILE")
    some: list[Batch] = []
    if where is not None:
        sentences = packing.encode(text.lines(where), found.tokens, str(where)).some(_CALIBRATING * 250)
        some = [batch for _, batch in packing.in_order(sentences, 16, found.length)][:_CALIBRATING]
    params, said = task.pruned(sparsity.target, task.initial, some, {})
    if found.config.ranks and said["ranks"] == found.config.ranks:
        raise ConfigError(f"sparsity {sparsity.target:g} saves nothing: the factors of {path} take no more already")
    rules = pruning.rules_of(sparsity, params, sparsity.target)
    task.save(out, params, rules, about)


def read(path: Path, where: Path, split: str = "", size: int = 16) -> dict[str, Any]:
    """How a text surprises a model file, in rows as long as those of its training, as plain JSON."""
    if split and not text.is_manifest(where):
        raise ConfigError(f"{where} has no splits, --split {split!r} is of manifests: leave it out")
    return of_lines(path, text.lines(where, split), str(where), size)


def of_lines(path: Path, lines: Sequence[str], where: str, size: int = 16) -> dict[str, Any]:
    """How these sentences do."""
    model = lmfile.load(path)
    sentences = packing.encode(lines, model.tokens, where)
    losses = functools.partial(_losses, model.structure)
    found = perplexity.measure(losses, model.params, sentences, size, model.length)
    return found.summary() | {"dropped": sentences.dropped}


@functools.partial(jax.jit, static_argnums=0)
def _losses(structure: Any, params: Any, batch: Batch) -> jax.Array:
    return models.apply(structure, params, "losses", *batch)


@functools.partial(jax.jit, static_argnums=0)
def _grams(structure: Any, params: Any, batch: Batch) -> dict[str, jax.Array]:
    return models.grams(structure, params, batch.documents > 0, "logits", batch.inputs, batch.documents)


def _initial(config: Config) -> Any:
    """The parameters of `train.init`, which must be of the model that the config describes."""
    found = lmfile.load(config.train.init)
    if found.config != config.model:
        cure = "begin with the model its factors come from" if found.config.ranks else "copy its [model]"
        raise ValueError(f"train.init {config.train.init} is another model than the config's: {cure}")
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float32), found.params)
