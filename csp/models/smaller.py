"""Which units does nobody listen to? Hidden units and heads of a Transformer whose outgoing weights are all zero."""

import dataclasses
from typing import Any

import numpy as np

from csp.lowrank import Factors
from csp.models.lm import LMConfig

Params = Any


def smaller(config: LMConfig, params: Params) -> tuple[LMConfig, Params]:
    """The model without them, and the config that says so; the same logits, to the rounding. Each layer keeps one."""
    if config.network != "transformer":
        return config, params
    size, hidden, heads, blocks = config.width // config.heads, [], [], {}
    for number, block in params["blocks"].items():
        feed, attention = dict(block["feed"]), dict(block["attention"])
        keep = _listened(feed["down"]["kernel"], 1)
        feed["up"], feed["down"] = _outputs(feed["up"], keep), _inputs(feed["down"], keep)
        hidden.append(int(keep.sum()))
        keep = _listened(attention["out"]["kernel"], size)
        attention |= {name: _outputs(attention[name], keep) for name in ("query", "key", "value")}
        attention["out"] = _inputs(attention["out"], keep)
        heads.append(int(keep.sum()) // size)
        blocks[number] = block | {"feed": feed, "attention": attention}
    left = dataclasses.replace(config, left_heads=tuple(heads), left_hidden=tuple(hidden))
    return left, params | {"blocks": blocks}


def _listened(w: Any, size: int) -> np.ndarray:
    """Which rows belong to a unit of `size` rows that has a weight that is not zero; all of factors."""
    if isinstance(w, Factors):
        return np.ones(w.shape[0], bool)
    lives = (np.asarray(w) != 0).reshape(-1, size * w.shape[1]).any(1)
    if not lives.any():
        lives[0] = True
    return np.repeat(lives, size)


def _outputs(linear: Params, keep: np.ndarray) -> Params:
    w = linear["kernel"]
    cut = Factors(w.u, w.v[:, keep]) if isinstance(w, Factors) else np.asarray(w)[:, keep]
    return linear | {"kernel": cut, "bias": np.asarray(linear["bias"])[keep]}


def _inputs(linear: Params, keep: np.ndarray) -> Params:
    w = linear["kernel"]
    return linear | {"kernel": w if isinstance(w, Factors) else np.asarray(w)[keep]}
