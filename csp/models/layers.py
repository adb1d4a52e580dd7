"""The small parts of which models are made; every matrix is called `kernel` and stored [in, out]."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array


class Linear(nnx.Module):
    """x W + b."""

    def __init__(self, width_in: int, width: int, rngs: nnx.Rngs, bias: bool = True):
        self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), (width_in, width)))
        self.bias = nnx.Param(jnp.zeros(width)) if bias else None

    def __call__(self, x: Array) -> Array:
        y = x @ self.kernel[...].astype(x.dtype)
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
