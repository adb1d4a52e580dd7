"""A finished recogniser as one file: its weights, what normalises its features, and all that is needed to run it."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import csp
from csp import formats, models
from csp.models.recogniser import ModelConfig, abstract
from csp.runtime.model import file_of
from csp.speech import features
from csp.speech import tokens as tokens_
from csp.speech.tokens import Tokens
from csp.train.config import Config, ConfigError, Data, Decode, Features
from csp.train.objective import Setup, Teacher
from csp.train.plain import as_plain, build
from csp.train.storing import said_in, store

KIND = "recogniser"


class Model(NamedTuple):
    setup: Setup
    params: Any
    tokens: Tokens


def save(
    path: Path,
    setup: Setup,
    params: Any,
    tokens: Tokens,
    rules: tuple[csp.Rule, ...] = (),
    about: dict[str, Any] | None = None,
) -> Path:
    """Writes the model."""
    config = setup.config
    tree = {"model": params, "features": {"mean": setup.mean, "deviation": setup.deviation}}
    said = {
        "kind": KIND,
        "model": as_plain(config.model),
        "features": as_plain(config.features),
        "decode": as_plain(config.decode),
        "tokens": tokens.as_json(),
    }
    return store(path, tree, said, config, rules, about)


def load(path: str | Path) -> Model:
    """The model of a file, or of a run directory, its weights dense in memory."""
    path = file_of(path)
    said = said_in(path, KIND, "recogniser")
    config = Config(
        data=Data(synth="digits", masks=()),
        features=build(Features, said["features"], "features."),
        model=build(ModelConfig, said["model"], "model."),
        decode=build(Decode, said["decode"], "decode."),
    )
    tokens = tokens_.from_json(said["tokens"])
    structure, like = abstract(config.model, config.features.bins, tokens.size)
    bins = jax.ShapeDtypeStruct((config.features.bins,), jnp.float32)
    tree, _ = formats.load(path, like={"model": like, "features": {"mean": bins, "deviation": bins}})
    found = tree["features"]
    return Model(setup(config, structure, found["mean"], found["deviation"]), tree["model"], tokens)


def setup(config: Config, structure: Any, mean: Any, deviation: Any, teacher: Model | None = None) -> Setup:
    mel = features.of(config.features)
    taught = None
    if teacher is not None:
        known = teacher.setup
        taught = Teacher(known.structure, jax.tree.map(jnp.asarray, teacher.params), known.mean, known.deviation)
    return Setup(config, structure, mel, jnp.asarray(mean), jnp.asarray(deviation), taught)


def teacher(config: Config, tokens: Tokens) -> Model | None:
    """The model of `train.teacher`, whose labels and frames must be those of the config's."""
    if not config.train.teacher:
        return None
    found = load(config.train.teacher)
    own, model = found.setup.config, config.model
    for what, here, there in [
        ("vocabulary", tokens.as_json(), found.tokens.as_json()),
        ("features", config.features, own.features),
        ("model.stack", model.stack, own.model.stack),
        ("model.reduce_after", model.reduce_after, own.model.reduce_after),
    ]:
        if here != there:
            raise ConfigError(f"train.teacher {config.train.teacher} has another {what}: its frames say other things")
    for which, head, weight in (("its", own.model.head, own.model.ctc_weight), ("the", model.head, model.ctc_weight)):
        if head != "ctc" and weight <= 0:
            raise ConfigError(f"train.teacher: {which} transducer has no CTC head to compare: model.ctc_weight > 0")
    return found


def create(config: Config, tokens: Tokens) -> tuple[Any, Any]:
    return models.create(config.model, config.features.bins, tokens.size, config.train.seed)


def initial(config: Config, fresh: Any) -> Any:
    """The parameters of `train.init`, which must be of the model that the config describes."""
    found = load(config.train.init)
    if found.setup.config.model != config.model or found.setup.config.features != config.features:
        raise ValueError(
            f"train.init {config.train.init} is another model than the config's: copy its [model], [features]"
        )
    return jax.tree.map(lambda new, old: jnp.asarray(old, new.dtype), fresh, found.params)
