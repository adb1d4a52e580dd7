"""A long short-term memory layer whose gradient is one matrix product for all steps, not one for each.

g_t = x_t W + h_{t-1} R + b,  c_t = sigma(f) c_{t-1} + sigma(i) tanh(z),  h_t = sigma(o) tanh(c_t)
with g = (i, f, z, o). The backward scan finds dL/dg_t only: all that does not depend on what comes back through time is
done before it, and dL/dR = sum_t h_{t-1}^T dL/dg_t after it, at once.

XLA on a CPU evaluates a transcendental function one number at a time where it is fused into a loop. So a step takes one
tanh of all four gates, sigma(x) = (1 + tanh(x / 2)) / 2, behind a barrier: a layer and its gradient take .4 of it.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from csp import lowrank
from csp.models.layers import product, see


class LSTM(nnx.Module):
    """One layer, forward in time."""

    def __init__(self, width_in: int, width: int, rngs: nnx.Rngs):
        uniform = jax.nn.initializers.uniform(2 * width**-0.5)

        def start(shape: tuple[int, int]) -> nnx.Param:
            return nnx.Param(uniform(rngs.params(), shape) - width**-0.5)

        self.input = start((width_in, 4 * width))
        self.recurrent = start((width, 4 * width))
        self.bias = nnx.Param(jnp.zeros(4 * width).at[width : 2 * width].set(1.0))

    def __call__(
        self, x_BxTxD: Array, carry: tuple[Array, Array] | None = None, begins_BxT: Array | None = None
    ) -> tuple[Array, tuple[Array, Array]]:
        """h_BxTxH, and the last (h, c); where something new begins, what was before is forgotten."""
        dtype = x_BxTxD.dtype
        r_HxG = lowrank.dense(self.recurrent.get_value()).astype(dtype)
        if carry is None:
            carry = self.start(len(x_BxTxD), dtype)
        g_BxTxG = product(self, "input", x_BxTxD) + self.bias[...].astype(dtype)
        keep_TxBx1 = None if begins_BxT is None else (~begins_BxT.T).astype(dtype)[..., None]
        h_TxBxH, c_TxBxH = recurrence(jnp.swapaxes(g_BxTxG, 0, 1), r_HxG, *carry, keep_TxBx1)
        see(self, "recurrent", jnp.swapaxes(_kept(_before(carry[0], h_TxBxH), keep_TxBx1), 0, 1))
        last = (h_TxBxH[-1], c_TxBxH[-1]) if len(h_TxBxH) else carry
        return jnp.swapaxes(h_TxBxH, 0, 1), last

    def start(self, rows: int, dtype: Any) -> tuple[Array, Array]:
        """(h, c) of rows that have no past."""
        width = self.bias.shape[0] // 4
        return (jnp.zeros((rows, width), dtype), jnp.zeros((rows, width), dtype))


def gates(g_BxG: Array) -> Array:
    """sigma(i), sigma(f), tanh(z), sigma(o), side by side."""
    width = g_BxG.shape[-1] // 4
    half = jnp.asarray([0.5, 0.5, 1, 0.5], g_BxG.dtype).repeat(width)
    bent = jax.lax.optimization_barrier(jnp.tanh(g_BxG * half))
    return half * bent + (1 - half)


def cell(a_BxG: Array, c_BxH: Array) -> tuple[Array, Array]:
    """(h, c) of one step from its gates."""
    i, f, z, o = jnp.split(a_BxG, 4, axis=-1)
    c_BxH = f * c_BxH + i * z
    return o * jnp.tanh(c_BxH), c_BxH


@jax.custom_vjp
def recurrence(
    g_TxBxG: Array, r_HxG: Array, h_BxH: Array, c_BxH: Array, keep_TxBx1: Array | None = None
) -> tuple[Array, Array]:
    """h_TxBxH and c_TxBxH from what the inputs add to the gates; where `keep` is 0, h and c before count as 0."""
    return _forward(g_TxBxG, r_HxG, h_BxH, c_BxH, keep_TxBx1)[0]


def _forward(g_TxBxG, r_HxG, h_BxH, c_BxH, keep_TxBx1=None):
    def step(carry, at):
        (h, c), (g_BxG, keep) = carry, at
        h, c = _kept(h, keep), _kept(c, keep)
        a_BxG = gates(g_BxG + h @ r_HxG)
        h, c = cell(a_BxG, c)
        return (h, c), (h, c, a_BxG)

    _, (h_TxBxH, c_TxBxH, a_TxBxG) = jax.lax.scan(step, (h_BxH, c_BxH), (g_TxBxG, keep_TxBx1))
    return (h_TxBxH, c_TxBxH), (a_TxBxG, r_HxG, h_BxH, c_BxH, keep_TxBx1, h_TxBxH, c_TxBxH)


def _backward(kept, grads):
    a_TxBxG, r_HxG, h_BxH, c_BxH, keep_TxBx1, h_TxBxH, c_TxBxH = kept
    previous_TxBxH = _kept(_before(c_BxH, c_TxBxH), keep_TxBx1)
    i, f, z, o = jnp.split(a_TxBxG, 4, axis=-1)
    bent = jnp.tanh(c_TxBxH)
    slopes = [z * i * (1 - i), previous_TxBxH * f * (1 - f), i * (1 - z * z), bent * o * (1 - o)]
    slope_TxBxG = jnp.concatenate(slopes, -1)  # of c by i, f and z; of h by o
    through_TxBxH = o * (1 - bent * bent)  # of h by c
    back_GxH = jax.lax.optimization_barrier(r_HxG.T)

    def step(carry, at):
        dh, dc = carry
        dh_t, dc_t, slope, through, f, keep = at
        dh = dh + dh_t
        dc = dc + dc_t + dh * through
        dg_BxG = jnp.concatenate([dc, dc, dc, dh], -1) * slope
        return (_kept(dg_BxG @ back_GxH, keep), _kept(dc * f, keep)), dg_BxG

    start = (jnp.zeros_like(h_BxH), jnp.zeros_like(c_BxH))
    at = (*grads, slope_TxBxG, through_TxBxH, f, keep_TxBx1)
    (dh_BxH, dc_BxH), dg_TxBxG = jax.lax.scan(step, start, at, reverse=True)
    before_TxBxH = _kept(_before(h_BxH, h_TxBxH), keep_TxBx1)
    dr_HxG = before_TxBxH.reshape(-1, before_TxBxH.shape[-1]).T @ dg_TxBxG.reshape(-1, dg_TxBxG.shape[-1])
    return dg_TxBxG, dr_HxG, dh_BxH, dc_BxH, None if keep_TxBx1 is None else jnp.zeros_like(keep_TxBx1)


def _kept(x: Array, keep: Array | None) -> Array:
    return x if keep is None else x * keep


def _before(first_BxH: Array, x_TxBxH: Array) -> Array:
    """What stood there one step earlier."""
    return jnp.concatenate([first_BxH[None], x_TxBxH])[:-1]


recurrence.defvjp(_forward, _backward)
