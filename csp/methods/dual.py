"""The dual iterate: a dense shadow V remembers, its projection W = P(V) is trained."""

import dataclasses

import jax
import jax.numpy as jnp

from csp import shrinkage
from csp.methods.method import Decision, Iterate, Memory, Method, View, keep_worthiest, truncate


def dual(pull: float = 30.0, soft: float = 0.0) -> Iterate:
    """Gradients are taken at W = P(V) and move V, so what is pruned keeps a value and may come back.

    V is one float32 array, and its support one boolean, until `csp.settle` drops them after the freeze. Two parts of
    the compression error of V may act besides:

    Args:
      pull: on every refresh the half squared error shrinks the tail of V, V - P(V) <- (V - P(V)) / (1 + c_t), with
        c_t growing quadratically towards the freeze and summing to `pull`. 0 is the straight-through estimator; large
        values forget what is pruned, towards the end, as gradual pruning does throughout. 30 did better than 3 and 10
        wherever they were compared (RESULTS.md).
      soft: W is soft-thresholded at this fraction of the largest dead magnitude, annealed to none at the freeze;
        off by default, since it has won no comparison yet.
    """
    if pull < 0 or soft < 0:
        raise ValueError(f"dual needs pull >= 0 and soft >= 0, got pull={pull} and soft={soft}")

    def apply(method: Method) -> Method:
        begin, end = method.clock.begin, method.clock.end
        span, every = max(end - begin, 1), (end - begin) / max(len(method.clock.times) - 1, 1)

        def start(w, structure):
            threshold = (jnp.zeros((), w.dtype),) if soft else ()
            return Memory(fast=jnp.array(w, copy=True), slow=(jnp.ones_like(w, bool), *threshold))

        def decide(view: View) -> Decision:
            v, keep = view.memory.fast, keep_worthiest(view).keep
            x, alive = jnp.clip((view.count - begin) / span, 0, 1), view.entries(keep)
            dead = jnp.max(jnp.where(alive, 0, jnp.abs(v)), initial=0)
            slow = (alive, *((soft * (1 - x) * dead,) if soft else ()))
            return Decision(keep, slow, shrinkage.ridge(v, alive, 3 * pull * x**2 * every / span))

        def step(view: View, update: jax.Array, alive: jax.Array):
            v = view.memory.fast + update
            return (shrinkage.soft(v, view.memory.slow[1]) if soft else v), v

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
