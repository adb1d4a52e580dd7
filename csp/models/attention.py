"""What do Conformers and Transformers have in common? Attention with rotary positions, and feed-forward networks."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from csp.models.layers import Linear, Norm

Memory = tuple[Array, Array]  # keys and values of what was said before, [rows, positions, heads, width]


class FeedForward(nnx.Module):
    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs):
        self.norm = Norm(width)
        self.up, self.down = Linear(width, hidden, rngs), Linear(hidden, width, rngs)

    def __call__(self, x: Array) -> Array:
        return self.down(jax.nn.silu(self.up(self.norm(x))))


class Attention(nnx.Module):
    """Scaled dot products; what sees nothing gives zero.

    `left` says how many of the heads are there, if some were removed; a head's width is that of all `heads`.
    """

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs, left: int | None = None, rotary: bool = True):
        if width % (2 * heads):
            raise ValueError(f"model.width {width} is no multiple of twice model.heads {heads}")
        self.size, self.rotary, self.norm = width // heads, rotary, Norm(width)
        inner = self.size * (heads if left is None else left)
        self.query, self.key = Linear(width, inner, rngs), Linear(width, inner, rngs)
        self.value, self.out = Linear(width, inner, rngs), Linear(inner, width, rngs)

    def __call__(self, x_BxTxD: Array, sees_BxTxT: Array) -> Array:
        q_BxTxHxE, k_BxTxHxE, v_BxTxHxE = self._parts(x_BxTxD, jnp.arange(x_BxTxD.shape[1]))
        return self._mixed(q_BxTxHxE, k_BxTxHxE, v_BxTxHxE, sees_BxTxT)

    def step(self, x_KxD: Array, at_K: Array, memory: Memory) -> tuple[Array, Memory]:
        """One position of each row, the `at_K`-th, which sees what its memory has of those before."""
        q_Kx1xHxE, *new = self._parts(x_KxD[:, None], at_K[:, None])
        rows = jnp.arange(len(at_K))
        k_KxSxHxE, v_KxSxHxE = (old.at[rows, at_K].set(x[:, 0]) for old, x in zip(memory, new, strict=True))
        sees_Kx1xS = (jnp.arange(k_KxSxHxE.shape[1]) <= at_K[:, None])[:, None]
        return self._mixed(q_Kx1xHxE, k_KxSxHxE, v_KxSxHxE, sees_Kx1xS)[:, 0], (k_KxSxHxE, v_KxSxHxE)

    def start(self, rows: int, most: int, dtype: str) -> Memory:
        """Of rows that have no past, and may become `most` long."""
        heads = self.key.kernel.get_value().shape[1] // self.size
        return (jnp.zeros((rows, most, heads, self.size), dtype), jnp.zeros((rows, most, heads, self.size), dtype))

    def _parts(self, x_BxTxD: Array, at: Array) -> tuple[Array, Array, Array]:
        """Queries, keys and values."""
        x_BxTxD = self.norm(x_BxTxD)
        shape = (*x_BxTxD.shape[:2], -1, self.size)
        q, k, v = (f(x_BxTxD).reshape(shape) for f in (self.query, self.key, self.value))
        return (rotate(q, at), rotate(k, at), v) if self.rotary else (q, k, v)

    def _mixed(self, q_BxTxHxE: Array, k_BxSxHxE: Array, v_BxSxHxE: Array, sees_BxTxS: Array) -> Array:
        scores_BxHxTxS = jnp.einsum("bqhe,bkhe->bhqk", q_BxTxHxE, k_BxSxHxE).astype(jnp.float32)
        scores_BxHxTxS = jnp.where(sees_BxTxS[:, None], scores_BxHxTxS * self.size**-0.5, -1e30)
        weights_BxHxTxS = jnp.where(sees_BxTxS[:, None], jax.nn.softmax(scores_BxHxTxS, -1), 0).astype(q_BxTxHxE.dtype)
        mixed_BxTxHxE = jnp.einsum("bhqk,bkhe->bqhe", weights_BxHxTxS, v_BxSxHxE)
        return self.out(mixed_BxTxHxE.reshape(*mixed_BxTxHxE.shape[:2], -1))


def rotate(x_BxTxHxE: Array, at: Array) -> Array:
    """Rotary positions: pairs of features turn by an angle that grows with `at`; products depend on distances only."""
    E = x_BxTxHxE.shape[3]
    speed_E = 10_000.0 ** (-jnp.arange(E // 2) / (E // 2))
    angle_Tx1xE = (at[..., None] * speed_E)[..., None, :]
    cos, sin = jnp.cos(angle_Tx1xE).astype(x_BxTxHxE.dtype), jnp.sin(angle_Tx1xE).astype(x_BxTxHxE.dtype)
    a, b = jnp.split(x_BxTxHxE, 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
