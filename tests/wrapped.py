"""A small problem to train with any optimizer and any wrapper."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from csp import Rule, structures

STEPS = 6
LEARNING_RATE = 1e-2
RULE = Rule("w", structures.entries(), sparsity=0.75)
LABELS = {"w": "matrix", "b": "vector"}


def make_params(seed: jax.typing.ArrayLike = 0) -> dict[str, jax.Array]:
    return {"w": jax.random.normal(jax.random.key(seed), (16, 8)), "b": jnp.ones(8)}


def make_gradients(params: Any, seed: int = 1) -> Any:
    """Of a quadratic with noise: the same for the same parameters and seed."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p - jnp.asarray(rng.normal(size=p.shape), p.dtype), params)


def apply(tx: optax.GradientTransformation, params: Any, state: Any, gradients: Any) -> tuple[Any, Any]:
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


def compiled(tx: optax.GradientTransformation, params: Any, state: Any) -> Callable:
    return jax.jit(functools.partial(apply, tx)).lower(params, state, params).compile()


def train(tx: optax.GradientTransformation, params: Any, steps: int = STEPS) -> tuple[Any, Any]:
    state = tx.init(params)
    step = compiled(tx, params, state)
    for number in range(steps):
        params, state = step(params, state, make_gradients(params, number))
    return params, state
