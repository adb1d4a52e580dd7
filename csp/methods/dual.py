"""The dual iterate: a dense shadow V remembers, its firm projection W is trained."""

import dataclasses

import jax
import jax.numpy as jnp

from csp import metrics, shrinkage
from csp.methods.method import Decision, Iterate, Keep, Memory, Method, View, keep_worthiest, truncate
from csp.select import Cut
from csp.structures import euclidean


def dual(pull: float = 30.0, firm: float = 1.5) -> Iterate:
    """Gradients are taken at W and move V, so what is pruned keeps a value and may come back.

    W is the projection of V on its support, of which units that are worth between t, the worth of the best dead one,
    and `firm` times t are drawn towards zero: what dies has faded before, and what comes back begins small, so that W
    does not jump when the support changes. On the last refresh V becomes W, and trains on as it is.

    Worth is measured in the metric in which Adam steps, sqrt(sqrt(nu)) |v|, where a rule names no other and the
    optimizer keeps second moments: a weight may be small because its gradients are large.

    V is one float32 array, and its support one boolean, until `csp.settle` drops them after the freeze.

    Args:
      pull: on every refresh the half squared error shrinks the tail of V, V - P(V) <- (V - P(V)) / (1 + c_t), with
        c_t growing quadratically towards the freeze and summing to `pull`. 0 never forgets; large values forget what is
        pruned, towards the end, as gradual pruning does throughout.
      firm: of `csp.shrinkage.firm`, of worths: 1 is the hard projection P(V), and infinity the soft threshold.
    """
    if pull < 0 or firm < 1:
        raise ValueError(f"dual needs pull >= 0 and firm >= 1, got pull={pull} and firm={firm}")

    def apply(method: Method) -> Method:
        begin, end = method.clock.begin, method.clock.end
        span, every = max(end - begin, 1), (end - begin) / max(len(method.clock.times) - 1, 1)

        def start(w, structure):
            edge = jnp.zeros_like(jnp.max(structure.layout(jnp.abs(w)), structure.axes, keepdims=True, initial=0))
            return Memory(fast=jnp.array(w, copy=True), slow=(jnp.ones_like(w, bool), edge))

        def decide(view: View) -> Decision:
            v, keep = view.memory.fast, keep_worthiest(view).keep
            x, alive = jnp.clip((view.count - begin) / span, 0, 1), view.entries(keep)
            edge = _edge(view, v, keep, alive) if firm > 1 else view.memory.slow[1]
            edge = jnp.where(view.metric.has_seen(view.sight), edge, 0)
            shrunk = shrinkage.ridge(v, alive, 3 * pull * x**2 * every / span)
            settled = _projected(view, shrunk, jnp.where(view.last, edge, 0), firm)
            return Decision(keep, (alive, jnp.where(view.last, 0, edge)), settled)

        def step(view: View, update: jax.Array, alive: jax.Array):
            v = view.memory.fast + update
            return _projected(view, v, view.memory.slow[1], firm), v

        return dataclasses.replace(
            method,
            start=start,
            decide=decide,
            step=step,
            support=lambda view: view.memory.slow[0],
            iterate=lambda w, memory: memory.fast,
            project_rank=truncate,
            prefers=metrics.adam(),
            forget_momentum=False,
        )

    return apply


def _worth(view: View, v: jax.Array) -> jax.Array:
    """What each unit of v is worth by the rule's metric, once it has seen something; its size, if worth has a sign."""
    if view.metric.signed is not None:
        return view.layout(jnp.abs(v), euclidean)
    return view.layout(jnp.sqrt(view.metric.diagonal(view.sight._replace(point=v))) * jnp.abs(v))


def _edge(view: View, v: jax.Array, keep: Keep, alive: jax.Array) -> jax.Array:
    """What the best dead unit of each competition is worth; no more than the least living one, where worth is not size.

    Where a dead one is as large as a living one there is no edge between them, and none fades: a tensor of equal sizes
    would go to zero as a whole. Two reductions of one array would need another of scratch, so that there is one where
    it suffices.
    """
    size, axes = _worth(view, v), view.structure.axes
    lives = view.layout(alive.astype(v.dtype), euclidean) > 0
    dead = jnp.max(jnp.where(lives, 0, size), axes, keepdims=True, initial=0)
    if isinstance(keep, Cut):
        return jnp.where((dead >= keep.value) & (keep.last >= 0), 0, dead)
    least = jnp.min(jnp.where(lives, size, jnp.inf), axes, keepdims=True, initial=jnp.inf)
    return jnp.where(dead == least, 0, jnp.minimum(dead, least))


def _projected(view: View, v: jax.Array, edge: jax.Array, gamma: float) -> jax.Array:
    """The firm threshold of every unit's worth, its direction as it is."""
    if gamma == 1:
        return v
    if view.by_size:
        return view.spread(shrinkage.firm(view.structure.layout(v), edge, gamma))
    worth = _worth(view, v)
    faded = shrinkage.firm(worth, edge, gamma) / jnp.where(worth > 0, worth, 1)
    return v * view.spread(jnp.where(edge > 0, faded, 1))
