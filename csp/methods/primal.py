"""The primal iterates: the weights themselves are shrunk, all but the best (trimmed) or all of them (ISTA)."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from csp import select, shrinkage
from csp.adding import euclidean
from csp.methods.method import Decision, Iterate, Memory, Method, View


class Shrink(NamedTuple):
    """`threshold(view, c, scale)` of every entry, and the k units that it `spares(view, k, c, scale)`.

    `pools`: can it shrink units of more than one entry?
    """

    threshold: Callable[[View, jax.Array, jax.Array], jax.Array]
    spares: Callable[[View, jax.Array, jax.Array, jax.Array], jax.Array]
    pools: bool = True


def decoupled() -> Shrink:
    """One threshold c for all: under an adaptive optimizer a signal-to-noise test per weight, not the Lasso."""
    return Shrink(lambda view, c, scale: c, lambda view, k, c, scale: view.worthiest(k))


def metric() -> Shrink:
    """c / D, with D the diagonal of the rule's metric over its mean: the prox of the stated objective."""

    def diagonal(view, scale):
        return jnp.where(scale > 0, view.metric.finite(view.sight) / jnp.maximum(scale, 1e-30), 1)

    def spares(view, k, c, scale):
        return view.best(view.layout(shrinkage.huber_worth(view.w, c, diagonal(view, scale))), k)

    return Shrink(lambda view, c, scale: c / jnp.maximum(diagonal(view, scale), 1e-30), spares, pools=False)


def trimmed(strength: float = 3.0, shrink: Shrink | None = None) -> Iterate:
    """The prox of the trimmed lasso c T_k(W), with k rising from 0 to the budget.

    All but the k most worthy units are soft-thresholded on every step. The strength is the same for every tensor: c is
    such that a weight at the edge of the budget that its gradient leaves alone would reach zero within 1 / `strength`
    of the time from the beginning to the freeze.

    Args:
      strength: how hard the tail is shrunk.
      shrink: `decoupled()`, the default, or `metric()`.
    """
    return _primal(strength, shrink, exempt=lambda view: jnp.round(view.final() * view.progress).astype(jnp.int32))


def ista(strength: float = 1.0, shrink: Shrink | None = None, gain: float = 0.1) -> Iterate:
    """Plain iterative soft thresholding of every weight: the Lasso, with lambda under integral control.

    On every refresh log lambda moves by `gain` times the clipped error log(alive / budget), so that the support arrives
    at the budget by itself; it stays within e^6 of where it began, against wind-up.
    """
    if not 0 < gain < math.inf:
        raise ValueError(f"ista controls lambda with a finite gain > 0, got {gain}")
    return _primal(strength, shrink, exempt=lambda view: jnp.zeros_like(view.budget), gain=gain)


def _primal(strength: float, shrink: Shrink | None, exempt: Callable[[View], jax.Array], gain: float = 0.0) -> Iterate:
    if not 0 < strength < math.inf:
        raise ValueError(f"strength says how hard the tail is shrunk, a finite number > 0, got {strength}")
    shrink = shrink or decoupled()

    def apply(method: Method) -> Method:
        begin, end = method.clock.begin, method.clock.end

        def start(w, structure):
            spared = jnp.ones_like(w, bool)
            numbers = {"c": 0.0, "scale": 1.0, "log_gain": 0.0}
            return Memory(slow={"spared": spared} | {name: jnp.float32(x) for name, x in numbers.items()})

        def decide(view: View) -> Decision:
            slow = view.memory.slow
            scale = jnp.mean(view.metric.finite(view.sight))
            final = view.worthiest(view.final())
            stays, size = view.spread(final), jnp.abs(view.w)
            edge, _ = select.largest(jnp.where(stays, 0, size), jnp.where(stays, size, 0), axes=None)  # alone: an array
            log_gain = slow["log_gain"]
            if gain:
                log_gain = jnp.clip(log_gain + gain * jnp.clip(view.excess, -1, 1), -6, 6)
            c = strength * jnp.squeeze(edge) / max(end - begin, 1) * jnp.exp(log_gain)
            spared = view.spread(shrink.spares(view, exempt(view), c, scale))
            spared = jnp.where(view.last, stays, spared)
            slow = {"spared": spared, "c": jnp.where(view.last, 0, c), "scale": scale, "log_gain": log_gain}
            return Decision(final | ~view.last, slow)

        def step(view: View, update: jax.Array, alive: jax.Array):
            slow = view.memory.slow
            z = view.w + update
            t = shrink.threshold(view, slow["c"], slow["scale"])
            if view.structure.pooled:
                return jnp.where(slow["spared"], z, _shrink_units(view, z, t)), ()
            return shrinkage.soft(z, jnp.where(slow["spared"], 0, t)), ()

        return dataclasses.replace(
            method,
            start=start,
            decide=decide,
            step=step,
            support=lambda view: view.memory.slow["spared"] | (view.count < end),
            free=lambda count: count < end,
            pools=shrink.pools,
            forget_momentum=False,
        )

    return apply


def _shrink_units(view: View, z: jax.Array, t: jax.Array) -> jax.Array:
    """The group soft threshold: every unit's norm shrinks by t sqrt(size), its direction stays."""
    norm = view.layout(z, euclidean)
    size = jnp.square(view.layout(jnp.ones_like(z), euclidean))
    factor = shrinkage.soft(norm, t * jnp.sqrt(size)) / jnp.where(norm > 0, norm, 1)
    return z * view.spread(factor)
