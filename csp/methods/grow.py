"""Drop and grow: what SET, RigL and GraNet share. The worst living units make room for promising dead ones."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from csp.methods.method import Clock, Decision, Memory, Method, View

Score = Callable[[View], jax.Array]


def exchanging(method: Method, fraction: float, score: Score) -> Method:
    """The method, but on its refreshes (1 - f) k most worthy units stay and the f k others of highest score grow.

    f falls from `fraction` to 0 along a cosine over the clock, and is 0 on the first refresh, which only projects.
    Competitions for few places, where f k is no whole number, take turns.

    Two rankings make no threshold, so that the support is remembered, one boolean array until `csp.settle`: to read it
    on every step costs less than to have a mask written that lets everything pass.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction of units to exchange is in [0, 1), got {fraction}")
    clock = method.clock

    def decide(view: View) -> Decision:
        x = (view.count - clock.begin) / max(clock.end - clock.begin, 1)
        exchanged = jnp.where(view.count > clock.begin, fraction * (1 + jnp.cos(jnp.pi * x)) / 2, 0)
        grown = jnp.floor(exchanged * view.budget + _turns(view, clock)).astype(jnp.int32)
        survives = view.worthiest(view.budget - grown)
        rest = jnp.where(survives, -jnp.inf, score(view))
        keep = (rest == -jnp.inf) | view.best(rest, grown)  # not `survives`: that would be one more array
        return Decision(keep, view.spread(keep))

    return dataclasses.replace(
        method,
        start=lambda w, structure: Memory(slow=jnp.ones_like(w, bool)),
        decide=decide,
        support=lambda view: view.memory.slow,
    )


def _turns(view: View, clock: Clock) -> jax.Array:
    """A number in [0, 1) for each competition, another one at each refresh: as even as can be over both."""
    axes, shape = view.structure.axes, list(jax.eval_shape(lambda: view.real).shape)
    for axis in range(len(shape)) if axes is None else axes:
        shape[axis] = 1
    number = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape if axes is not None else ())
    refresh = jnp.sum(jnp.asarray(clock.times) < view.count)
    fraction = number * jnp.uint32(0x9E3779B9) + refresh.astype(jnp.uint32) * jnp.uint32(0x6C078965)
    return (fraction >> 8).astype(jnp.float32) / 2**24


def gradient_worth(view: View) -> jax.Array:
    """|gradient|: where a weight would help most."""
    return view.layout(jnp.abs(view.gradient))


def noise(seed: int) -> Score:
    """Uniform random numbers, the same however the parameter is sharded."""

    def score(view: View) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), view.number), view.count)
        return jnp.where(view.real, jax.random.uniform(key, view.real.shape), -jnp.inf)

    return score
