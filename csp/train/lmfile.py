"""A finished language model as one file: its weights, its vocabulary, and all that is needed to run it."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import csp
from csp import formats, lowrank, structures
from csp.models import lm
from csp.models.lm import LMConfig
from csp.models.smaller import smaller
from csp.speech import tokens as tokens_
from csp.speech.tokens import Tokens
from csp.train import pruning
from csp.train.config import Config
from csp.train.plain import as_plain, build

KIND = "lm"


class Model(NamedTuple):
    config: LMConfig
    structure: Any
    params: Any
    tokens: Tokens


def save(
    path: Path,
    config: Config,
    params: Any,
    tokens: Tokens,
    rules: tuple[csp.Rule, ...] = (),
    about: dict[str, Any] | None = None,
) -> Path:
    """Writes the model, smaller where whole units are zero, and reads it back before it counts as written."""
    model, params = config.model, jax.tree.map(np.asarray, params)
    whole = [isinstance(rule.structure, structures.Slices | structures.Heads) for rule in rules]
    if any(whole):
        model, params = smaller(model, params)
    model = dataclasses.replace(model, ranks=ranks_of(params))
    kept = () if any(whole) else rules
    formats.save(
        path,
        {"model": params},
        config.decode.codec,
        {"kind": KIND, "model": as_plain(model), "tokens": tokens.as_json()},
        values=None if config.decode.values == "f32" else config.decode.values,
        rules=[dataclasses.replace(rule, pattern=f"model/(?:{rule.pattern})") for rule in kept],
        method=pruning.method_of(config.sparsity, config.train.steps) if kept else None,
        about=about,
        overwrite=True,
    )
    return path


def load(path: str | Path) -> Model:
    """The model of a file; its weights are dense in memory, its factors stay factors."""
    with formats.open(path) as file:
        said = file.manifest.config
    if not isinstance(said, dict) or said.get("kind") != KIND:
        raise ValueError(f"{path} holds no language model that csp trained: csp inspect {path} shows what it holds")
    config, tokens = build(LMConfig, said["model"], "model."), tokens_.from_json(said["tokens"])
    structure, like = lm.abstract(config, tokens.size)
    tree, _ = formats.load(path, like={"model": like})
    return Model(config, structure, jax.tree.map(jnp.asarray, tree["model"]), tokens)


def ranks_of(params: Any) -> dict[str, int]:
    """Of the matrices that are two factors, by path."""
    leaves = jax.tree.flatten_with_path(params, is_leaf=lambda x: isinstance(x, lowrank.Factors))[0]
    return {csp.rules.path_name(path): leaf.rank for path, leaf in leaves if isinstance(leaf, lowrank.Factors)}
