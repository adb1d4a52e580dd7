"""The dual iterate: a dense shadow V remembers, its firm projection W is trained."""

import dataclasses

import jax
import jax.numpy as jnp

from csp import shrinkage
from csp.methods.method import Decision, Iterate, Keep, Memory, Method, View, keep_worthiest, truncate
from csp.select import Cut
from csp.structures import Structure, euclidean


def dual(pull: float = 30.0, firm: float = 1.5) -> Iterate:
    """Gradients are taken at W and move V, so what is pruned keeps a value and may come back.

    W is the projection of V on its support, of which units between t, the size of the largest dead one, and `firm`
    times t are drawn towards zero: what dies has faded before, and what comes back begins small, so that W does not
    jump when the support changes. On the last refresh V becomes W, and trains on as it is.

    V is one float32 array, and its support one boolean, until `csp.settle` drops them after the freeze.

    Args:
      pull: on every refresh the half squared error shrinks the tail of V, V - P(V) <- (V - P(V)) / (1 + c_t), with
        c_t growing quadratically towards the freeze and summing to `pull`. 0 never forgets; large values forget what is
        pruned, towards the end, as gradual pruning does throughout.
      firm: of `csp.shrinkage.firm`: 1 is the hard projection P(V), and infinity the soft threshold.
    """
    if pull < 0 or firm < 1:
        raise ValueError(f"dual needs pull >= 0 and firm >= 1, got pull={pull} and firm={firm}")

    def apply(method: Method) -> Method:
        begin, end = method.clock.begin, method.clock.end
        span, every = max(end - begin, 1), (end - begin) / max(len(method.clock.times) - 1, 1)

        def start(w, structure):
            edge = jnp.zeros_like(jnp.max(_units(structure, w), structure.axes, keepdims=True, initial=0))
            return Memory(fast=jnp.array(w, copy=True), slow=(jnp.ones_like(w, bool), edge))

        def decide(view: View) -> Decision:
            v, keep = view.memory.fast, keep_worthiest(view).keep
            x, alive = jnp.clip((view.count - begin) / span, 0, 1), view.entries(keep)
            edge = _edge(view, v, keep, alive) if firm > 1 else view.memory.slow[1]
            shrunk = shrinkage.ridge(v, alive, 3 * pull * x**2 * every / span)
            settled = _projected(view.structure, shrunk, jnp.where(view.last, edge, 0), firm)
            return Decision(keep, (alive, jnp.where(view.last, 0, edge)), settled)

        def step(view: View, update: jax.Array, alive: jax.Array):
            v = view.memory.fast + update
            return _projected(view.structure, v, view.memory.slow[1], firm), v

        return dataclasses.replace(
            method,
            start=start,
            decide=decide,
            step=step,
            support=lambda view: view.memory.slow[0],
            iterate=lambda w, memory: memory.fast,
            project_rank=truncate,
            forget_momentum=False,
        )

    return apply


def _units(structure: Structure, v: jax.Array) -> jax.Array:
    return structure.layout(jnp.abs(v), euclidean)


def _edge(view: View, v: jax.Array, keep: Keep, alive: jax.Array) -> jax.Array:
    """The largest dead unit of each competition; no more than the smallest living one, where worth is not size.

    Where a dead one is as large as a living one there is no edge between them, and none fades: a tensor of equal sizes
    would go to zero as a whole. Two reductions of one array would need another of scratch, so that there is one where
    it suffices.
    """
    size, axes = _units(view.structure, v), view.structure.axes
    lives = _units(view.structure, alive.astype(v.dtype)) > 0
    dead = jnp.max(jnp.where(lives, 0, size), axes, keepdims=True, initial=0)
    if isinstance(keep, Cut):
        return jnp.where((dead >= keep.value) & (keep.last >= 0), 0, dead)
    least = jnp.min(jnp.where(lives, size, jnp.inf), axes, keepdims=True, initial=jnp.inf)
    return jnp.where(dead == least, 0, jnp.minimum(dead, least))


def _projected(structure: Structure, v: jax.Array, edge: jax.Array, gamma: float) -> jax.Array:
    """The firm threshold of every unit's size, its direction as it is."""
    if gamma == 1:
        return v
    if not structure.pooled:
        return structure.spread(shrinkage.firm(structure.layout(v), edge, gamma), v.shape)
    size = _units(structure, v)
    return v * structure.spread(shrinkage.firm(size, edge, gamma) / jnp.where(size > 0, size, 1), v.shape)
