"""A finished language model as one file: its weights, its vocabulary, and all that is needed to run it."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import csp
from csp import formats, lowrank, structures
from csp.formats import FormatError
from csp.models import lm
from csp.models.lm import LMConfig
from csp.models.smaller import smaller
from csp.runtime.model import file_of
from csp.speech import tokens as tokens_
from csp.speech.tokens import Tokens
from csp.train.config import Config
from csp.train.plain import as_plain, build
from csp.train.storing import said_in, store

KIND = "lm"
LENGTH = 128  # of files that say nothing


class Model(NamedTuple):
    config: LMConfig
    structure: Any
    params: Any
    tokens: Tokens
    length: int  # of the rows that it was trained on


def save(
    path: Path,
    config: Config,
    params: Any,
    tokens: Tokens,
    rules: tuple[csp.Rule, ...] = (),
    about: dict[str, Any] | None = None,
) -> Path:
    """Writes the model, smaller where whole units are zero."""
    model, params = config.model, jax.tree.map(np.asarray, params)
    whole = [isinstance(rule.structure, structures.Slices | structures.Heads) for rule in rules]
    if any(whole):
        model, params = smaller(model, params)
    model = dataclasses.replace(model, ranks=ranks_of(params))
    said = {"kind": KIND, "model": as_plain(model), "tokens": tokens.as_json(), "length": config.data.length}
    return store(path, {"model": params}, said, config, () if any(whole) else rules, about)


def load(path: str | Path) -> Model:
    """The model of a file, or of a run directory; its weights are dense in memory, its factors stay factors."""
    path = file_of(path)
    said = said_in(path, KIND, "language model")
    try:
        config, tokens = build(LMConfig, said["model"], "model."), tokens_.from_json(said["tokens"])
        structure, like = lm.abstract(config, tokens.size)
        length = int(said.get("length", LENGTH))
        if length < 2:
            raise ValueError(f"length {length}")
    except (KeyError, AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise FormatError(f"{path}: its config is not that of a language model: {error}") from None
    try:
        tree, _ = formats.load(path, like={"model": like})
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"{path}: its weights are not those of its config and its vocabulary: {error}") from None
    return Model(config, structure, jax.tree.map(jnp.asarray, tree["model"]), tokens, length)


def ranks_of(params: Any) -> dict[str, int]:
    """Of the matrices that are two factors, by path."""
    leaves = csp.rules.path_names(params, lambda x: isinstance(x, lowrank.Factors))
    return {name: leaf.rank for _, name, leaf in leaves if isinstance(leaf, lowrank.Factors)}
