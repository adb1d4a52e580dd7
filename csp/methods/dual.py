"""The dual iterate: a dense shadow V remembers, its firm projection W is trained."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import lax

from csp import metrics, select, shrinkage
from csp.methods.method import Decision, Iterate, Memory, Method, View, cuts, truncate

_ONE = 0x3F800000  # the bits of 1.0
_LEFT_OUT = 19  # of the 23 bits behind a float32's point


def dual(pull: float = 30.0, firm: float = 1.5) -> Iterate:
    """Gradients are taken at W and move V, so what is pruned keeps a value and may come back.

    W is the projection of V on its support, of which units that are worth between t, the worth of the best dead one,
    and `firm` times t are drawn towards zero: what dies has faded before, and what comes back begins small, so that W
    does not jump when the support changes. On the last refresh V becomes W, and trains on as it is.

    Worth is measured in the metric in which Adam steps, sqrt(sqrt(nu)) |v|, where a rule names no other and the
    optimizer keeps second moments: a weight may be small because its gradients are large.

    V is one float32 array, and its support one byte a weight, until `csp.settle` drops them after the freeze. The byte
    says what the metric was on the last refresh, within a thirtieth, so that no step reads a moment for it.

    Args:
      pull: on every refresh the half squared error shrinks the tail of V, V - P(V) <- (V - P(V)) / (1 + c_t), with
        c_t growing quadratically towards the freeze and summing to `pull`. 0 never forgets; large values forget what is
        pruned, towards the end, as gradual pruning does throughout.
      firm: of `csp.shrinkage.firm`, of worths: 1 is the hard projection P(V), and infinity the soft threshold.
    """
    if not (0 <= pull < math.inf and firm >= 1):
        raise ValueError(f"dual needs a finite pull >= 0 and firm >= 1, got pull={pull} and firm={firm}")

    def apply(method: Method) -> Method:
        begin, end = method.clock.begin, method.clock.end
        span, every = max(end - begin, 1), (end - begin) / max(len(method.clock.times) - 1, 1)

        def start(w, structure):
            whole = jax.ShapeDtypeStruct(w.shape, w.dtype)  # of no device: explicit axes may not be cut into units
            edge = jax.eval_shape(
                lambda x: jnp.max(structure.layout(x), structure.axes, keepdims=True, initial=0), whole
            )
            slow = (jnp.ones_like(w, jnp.uint8), jnp.zeros(edge.shape, edge.dtype))
            return Memory(fast=jnp.array(w, copy=True), slow=slow)

        def decide(view: View) -> Decision:
            cut, worth, axes, fades = view.cut(), view.worth, view.structure.axes, _fades(view, firm)
            top = view.metric.largest_root(view.sight)

            def coded():
                alive = view.entries(cut if cuts(view) else select.above(worth, cut, axes))
                if fades:
                    return jnp.where(alive, _encoded(_sizes(view, worth, top)), 0).astype(jnp.uint8)
                return alive.astype(jnp.uint8)

            codes = coded() if view.structure.pooled else select.fenced(coded)
            alive = codes > 0  # of which there is no other array
            keep = select.above(worth, cut, axes) if view.structure.pooled else view.structure.layout(alive)
            x = jnp.clip((view.count - begin) / span, 0, 1)
            shrunk = shrinkage.ridge(view.memory.fast, alive, 3 * pull * x**2 * every / span)
            if not fades:
                return Decision(keep, (codes, view.memory.slow[1]), shrunk)
            edge = _edge(view, worth, keep)
            settled = _projected(view, shrunk, _sizes(view, worth), jnp.where(view.last, edge, 0), firm)
            return Decision(keep, (codes, jnp.where((edge > 0) & ~view.last, edge / top, 0)), settled)

        def step(view: View, update: jax.Array, alive: jax.Array):
            v = view.memory.fast + update
            codes, edge = view.memory.slow
            return _projected(view, v, _decoded(codes), edge, firm) if _fades(view, firm) else v, v

        return dataclasses.replace(
            method,
            start=start,
            decide=decide,
            step=step,
            support=lambda view: view.memory.slow[0] > 0,
            iterate=lambda w, memory: memory.fast,
            project_rank=truncate,
            prefers=metrics.adam(),
            forget_momentum=False,
        )

    return apply


def _fades(view: View, gamma: float) -> bool:
    """Is the projection firm? Not the hard one, and not that of a worth that has a sign."""
    return gamma > 1 and view.metric.signed is None


def _edge(view: View, worth: jax.Array, keep: jax.Array) -> jax.Array:
    """What the best dead unit of each competition is worth.

    Where it is worth as much as a living one there is no edge between them, and none fades: a tensor of equal sizes
    would go to zero as a whole. Nor is there one where worth is not yet what it will be.
    """
    dead, living = jnp.where(keep, 0, worth), jnp.where(keep, -worth, -jnp.inf)
    dead, least = select.largest(dead, living, axes=view.structure.axes)
    return jnp.where((dead >= -least) | ~view.metric.has_seen(view.sight), 0, jnp.maximum(dead, 0))


def _sizes(view: View, worth: jax.Array, of: jax.Array | float = 1.0) -> jax.Array:
    """How large every entry is if it is worth `of`; from worths, where they are of entries, since those are there."""
    if view.structure.pooled:
        return of / view.metric.root(view.sight)
    size = view.structure.layout(jnp.abs(view.memory.fast))
    return view.spread(jnp.where(worth > 0, of * size / worth, 0))


def _encoded(ratio: jax.Array) -> jax.Array:
    """A ratio of at least 1 as 1 to 255, within a thirtieth: sixteen steps an octave, the leading bits of its float32.

    What is more than 2^15.9 counts as that.
    """
    bits = lax.bitcast_convert_type(ratio.astype(jnp.float32), jnp.int32)
    return jnp.clip((bits - _ONE + (1 << _LEFT_OUT - 1)) >> _LEFT_OUT, 0, 254) + 1


def _decoded(code: jax.Array) -> jax.Array:
    """The ratio; something harmless for 0."""
    first = _ONE - (1 << _LEFT_OUT)  # what 0 stands for
    return lax.bitcast_convert_type((code.astype(jnp.int32) << _LEFT_OUT) + first, jnp.float32)


def _projected(view: View, v: jax.Array, inverse_root: jax.Array, edge: jax.Array, gamma: float) -> jax.Array:
    """The firm threshold of every unit's worth, its direction as it is."""
    if not view.structure.pooled:
        units = jax.eval_shape(view.structure.layout, v).shape
        return shrinkage.firm(v, view.spread(jnp.broadcast_to(edge, units)) * inverse_root, gamma)
    worth = view.layout(jnp.abs(v) / inverse_root)
    faded = shrinkage.firm(worth, edge, gamma) / jnp.where(worth > 0, worth, 1)
    return v * view.spread(jnp.where(edge > 0, faded, 1))
