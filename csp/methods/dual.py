"""The dual iterate: a dense shadow V remembers, its firm projection W is trained."""

import dataclasses

import jax
import jax.numpy as jnp

from csp import metrics, select, shrinkage
from csp.methods.method import Decision, Iterate, Memory, Method, View, cuts, truncate
from csp.select import Cut


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
            cut = select.cut(view.worth, view.budget, view.structure.axes)
            edge = _edge(view, cut) if firm > 1 else view.memory.slow[1]
            keep = cut if cuts(view) else select.above(view.worth, cut, view.structure.axes)
            x, alive = jnp.clip((view.count - begin) / span, 0, 1), view.entries(keep)
            shrunk = shrinkage.ridge(view.memory.fast, alive, 3 * pull * x**2 * every / span)
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


def _edge(view: View, cut: Cut) -> jax.Array:
    """What the best dead unit of each competition is worth.

    Where it is worth as much as a living one there is no edge between them, and none fades: a tensor of equal sizes
    would go to zero as a whole. Nor is there one where worth has a sign, or is not yet what it will be.
    """
    if view.metric.signed is not None:
        return jnp.zeros_like(cut.value)
    axes = view.structure.axes
    dead = jnp.max(jnp.where(select.above(view.worth, cut, axes), 0, view.worth), axes, keepdims=True, initial=0)
    return jnp.where(((dead >= cut.value) & (cut.last >= 0)) | ~view.metric.has_seen(view.sight), 0, dead)


def _projected(view: View, v: jax.Array, edge: jax.Array, gamma: float) -> jax.Array:
    """The firm threshold of every unit's worth, its direction as it is."""
    if gamma == 1 or view.metric.signed is not None:
        return v
    if view.by_size:
        return view.spread(shrinkage.firm(view.structure.layout(v), edge, gamma))
    worth = view.layout(view.metric.root(view.sight._replace(point=v)) * jnp.abs(v))
    faded = shrinkage.firm(worth, edge, gamma) / jnp.where(worth > 0, worth, 1)
    return v * view.spread(jnp.where(edge > 0, faded, 1))
