"""How is an axis cut into groups of equal size, and put together again?

Reshapes split or join inside one axis, never across axes, so that a sharded parameter keeps its sharding.
"""

import jax
import jax.numpy as jnp


def split(x: jax.Array, axis: int, size: int, fill: float = 0.0) -> jax.Array:
    """[..., n, ...] to [..., n / size, size, ...], padding the last group; `axis` is negative."""
    axis += x.ndim
    missing = -x.shape[axis] % size
    if missing:
        x = jnp.pad(x, [(0, missing if a == axis else 0) for a in range(x.ndim)], constant_values=fill)
    return x.reshape((*x.shape[:axis], x.shape[axis] // size, size, *x.shape[axis + 1 :]))


def join(x: jax.Array, axis: int, length: int) -> jax.Array:
    """The inverse of `split`: the padding is cut off. `axis` counts in the joined array."""
    axis += x.ndim - 1
    joined = x.reshape((*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :]))
    return jax.lax.slice_in_dim(joined, 0, length, axis=axis)


def repeat(x: jax.Array, axis: int, size: int, length: int) -> jax.Array:
    """Every element `size` times along the axis, cut off at `length`."""
    at = axis + x.ndim
    wide = jnp.broadcast_to(jnp.expand_dims(x, at + 1), (*x.shape[: at + 1], size, *x.shape[at + 1 :]))
    return join(wide, axis, length)
