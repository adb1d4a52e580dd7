"""What is wrong with the input? Clear errors before anything is compiled; traced values are taken on trust."""

import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def system(a: Any, y: Any) -> tuple[jax.Array, jax.Array]:
    """The matrix and the right-hand side of y = A x, of one floating dtype."""
    a, y = floating("a", a), floating("y", y)
    if a.ndim != 2 or y.shape != a.shape[:1]:
        raise ValueError(f"y = A x needs a of shape [n, d] and y of shape [n], got {a.shape} and {y.shape}")
    if not a.size:
        raise ValueError(f"a of shape {a.shape} is empty: there is nothing to solve")
    dtype = jnp.promote_types(a.dtype, y.dtype)
    return a.astype(dtype), y.astype(dtype)


def layer(gram: Any, w: Any) -> tuple[jax.Array, jax.Array]:
    """The Gram matrix of a layer's inputs and its weights, of one floating dtype."""
    gram, w = floating("gram", gram), floating("w", w)
    if w.ndim != 2 or gram.shape != (w.shape[0], w.shape[0]):
        raise ValueError(
            f"weights are [in, out] and their Gram matrix is [in, in], got w {w.shape} and gram {gram.shape}"
        )
    dtype = jnp.promote_types(gram.dtype, w.dtype)
    return gram.astype(dtype), w.astype(dtype)


def floating(name: str, x: Any) -> jax.Array:
    """An array of float32 or float64, all finite."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(f"{name} has dtype {x.dtype}: only real numbers are solved for")
        x = x.astype(float)
    if not isinstance(x, jax.core.Tracer) and not np.isfinite(np.asarray(x)).all():
        raise ValueError(f"{name} contains NaN or inf: clean the data first")
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def choice(name: str, value: str, table: Mapping[str, Any]) -> Any:
    """The entry of a table, or an error that lists what there is."""
    if value not in table:
        raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(map(repr, table))}")
    return table[value]


def number(name: str, value: Any) -> Any:
    """A finite number that is not negative."""
    if isinstance(value, jax.core.Tracer):
        return value
    if isinstance(value, str) or np.ndim(value) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} = {value!r} must be a finite number >= 0")
    return value


def count(name: str, value: Any, least: int, most: int | None = None) -> Any:
    """An integer within its bounds."""
    if isinstance(value, jax.core.Tracer):
        return value
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} = {value!r} is not an integer") from None
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name} = {number} must be at least {least}{'' if most is None else f' and at most {most}'}")
    return number
