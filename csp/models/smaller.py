"""Which units does nobody listen to, or say the same always? Hidden units and heads of a Transformer, all of whose
outgoing or incoming weights are zero.
"""

import dataclasses
from collections.abc import Callable
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
        feed["down"] = _folded(feed["up"], feed["down"], 1, _silu)
        keep = _listened(feed["down"]["kernel"], 1)
        feed["up"], feed["down"] = _outputs(feed["up"], keep), _inputs(feed["down"], keep)
        hidden.append(int(keep.sum()))
        attention["out"] = _folded(attention["value"], attention["out"], size, lambda x: x)
        keep = _listened(attention["out"]["kernel"], size)
        attention |= {name: _outputs(attention[name], keep) for name in ("query", "key", "value")}
        attention["out"] = _inputs(attention["out"], keep)
        heads.append(int(keep.sum()) // size)
        blocks[number] = block | {"feed": feed, "attention": attention}
    left = dataclasses.replace(config, left_heads=tuple(heads), left_hidden=tuple(hidden))
    return left, params | {"blocks": blocks}


def _folded(first: Params, second: Params, size: int, activation: Callable[[np.ndarray], np.ndarray]) -> Params:
    """What a unit says whose `size` incoming columns are zero, its bias, becomes the next layer's: none listens then.

    So with heads, whose output is a mean of equal values.
    """
    if isinstance(first["kernel"], Factors) or isinstance(second["kernel"], Factors):
        return second
    silent = ~(np.asarray(first["kernel"]) != 0).any(0).reshape(-1, size).any(1).repeat(size)
    w, said = np.asarray(second["kernel"]), activation(np.asarray(first["bias"]))
    bias = np.asarray(second["bias"]) + np.where(silent, said, 0) @ w
    return second | {"kernel": np.where(silent[:, None], 0, w), "bias": bias.astype(w.dtype)}


def _silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


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
