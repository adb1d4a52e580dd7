"""How does a proximal gradient method walk? Plain and accelerated steps, until nothing moves or the steps run out."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Step = Callable[[jax.Array], jax.Array]


def ista(step: Step, x: jax.Array, steps: int, tol: ArrayLike = 0.0) -> jax.Array:
    """Repeat `x = step(x)`."""
    return until_still(lambda state: (step(state[0]),), (x,), steps, tol)


def fista(step: Step, x: jax.Array, steps: int, tol: ArrayLike = 0.0) -> jax.Array:
    """Repeat `step` with Nesterov's extrapolation."""
    return until_still(partial(extrapolate, step), extrapolation(x), steps, tol)


def extrapolation(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The state of `extrapolate`: the iterate, the point ahead of it, and how fast it goes."""
    return x, x, jnp.ones((), x.dtype)


def extrapolate(step: Step, state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One extrapolated step, restarted if the momentum points uphill (O'Donoghue & Candes, 2015)."""
    x, z, t = state
    new = step(z)
    uphill = jnp.sum((z - new) * (new - x)) > 0
    longer = jnp.where(uphill, 1, (1 + jnp.sqrt(1 + 4 * t * t)) / 2)
    return new, jnp.where(uphill, new, new + (t - 1) / longer * (new - x)), longer


def until_still(step: Callable[[Any], Any], state: Any, steps: int, tol: ArrayLike) -> jax.Array:
    """Repeat `step` until no entry of the iterate, `state[0]`, moves by more than `tol` times the largest."""

    def going(carry):
        _, moved, i = carry
        return (i < steps) & (moved > tol)

    def body(carry):
        state, _, i = carry
        new = step(state)
        scale = jnp.maximum(jnp.max(jnp.abs(new[0])), jnp.finfo(new[0].dtype).tiny)
        return new, jnp.max(jnp.abs(new[0] - state[0])) / scale, i + 1

    start = (state, jnp.full((), jnp.inf, state[0].dtype), 0)
    return jax.lax.while_loop(going, body, start)[0][0]


def near_one(x: jax.Array, axis: int | None = None) -> tuple[jax.Array, jax.Array]:
    """The array, or its parts across an axis, times a power of two, and which: float32 may not hold other squares."""
    _, exponent = jnp.frexp(jnp.max(jnp.abs(x), axis=axis))
    return jnp.ldexp(x, -exponent), exponent
