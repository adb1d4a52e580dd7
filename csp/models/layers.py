"""The small parts of which models are made; every matrix is stored [in, out], and may be two factors."""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from csp import lowrank

_watch: ContextVar[tuple[Array, dict[tuple[int, str], Array]] | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watching(there: Array) -> Iterator[dict[tuple[int, str], Array]]:
    """Collects X^T X of what meets each matrix, by (id of the module, name), from the rows that are `there`."""
    seen: dict[tuple[int, str], Array] = {}
    token = _watch.set((there, seen))
    try:
        yield seen
    finally:
        _watch.reset(token)


def see(module: nnx.Module, name: str, x: Array) -> None:
    """Says that x meets the matrix of this name, to whoever watches."""
    watched = _watch.get()
    if watched is None:
        return
    there, seen = watched
    rows = jnp.where(there[..., None], x, 0).reshape(-1, x.shape[-1]).astype(jnp.float32)
    gram = jnp.matmul(rows.T, rows, precision="highest")
    seen[id(module), name] = seen.get((id(module), name), 0) + gram


def product(module: nnx.Module, name: str, x: Array) -> Array:
    """x W for the matrix of this name, or (x U) V if it is two factors."""
    see(module, name, x)
    w: Any = getattr(module, name).get_value()
    return times(x, jax.tree.map(lambda part: part.astype(x.dtype), w))


def times(x: Array, w: Array | lowrank.Factors) -> Array:
    """x W over the last axis; of rows, since XLA's CPU backend differentiates batches of matrices more slowly."""
    *rows, n_in = x.shape
    y = lowrank.apply(x.reshape(math.prod(rows), n_in), w)
    return y.reshape(*rows, y.shape[1])


class Linear(nnx.Module):
    """x W + b."""

    def __init__(self, width_in: int, width: int, rngs: nnx.Rngs, bias: bool = True):
        self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), (width_in, width)))
        self.bias = nnx.Param(jnp.zeros(width)) if bias else None

    def __call__(self, x: Array) -> Array:
        y = product(self, "kernel", x)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Norm(nnx.Module):
    """Zero mean and unit variance over the last axis, in float32; then a scale and a shift."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Array) -> Array:
        y = x.astype(jnp.float32)
        y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y**2, -1, keepdims=True) + 1e-5)
        return (y * self.scale[...] + self.bias[...]).astype(x.dtype)


class Embedding(nnx.Module):
    """Row n of a table for number n."""

    def __init__(self, count: int, width: int, rngs: nnx.Rngs):
        self.embedding = nnx.Param(jax.random.normal(rngs.params(), (count, width)) * width**-0.5)

    def __call__(self, n: Array) -> Array:
        return self.embedding[...][n]
