"""How does a proximal gradient method walk? Plain and accelerated steps, until nothing moves or the steps run out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Step = Callable[[jax.Array], jax.Array]


def ista(step: Step, x: jax.Array, steps: int, tol: ArrayLike = 0.0) -> jax.Array:
    """Repeat `x = step(x)`."""
    return until_still(lambda state: (step(state[0]),), (x,), steps, tol)


def fista(step: Step, x: jax.Array, steps: int, tol: ArrayLike = 0.0) -> jax.Array:
    """Nesterov's extrapolation of `step`, restarted whenever it points uphill (O'Donoghue & Candes)."""

    def extrapolate(state):
        x, z, t = state
        new = step(z)
        uphill = jnp.sum((z - new) * (new - x)) > 0
        longer = jnp.where(uphill, 1, (1 + jnp.sqrt(1 + 4 * t * t)) / 2)
        return new, jnp.where(uphill, new, new + (t - 1) / longer * (new - x)), longer

    return until_still(extrapolate, (x, x, jnp.ones((), x.dtype)), steps, tol)


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
