"""The dual iterate: a dense shadow V remembers, its projection W = P(V) is trained."""

import dataclasses

import jax
import jax.numpy as jnp

from csp import shrinkage
from csp.methods.method import Decision, Iterate, Memory, Method, View, keep_worthiest, truncate


def dual(pull: float = 3.0, soft: float = 0.0) -> Iterate:
    """Gradients are taken at W = P(V) and move V, so what is pruned keeps a value and may come back.

    V is one float32 array, until `csp.settle` drops it after the freeze. Two parts of the compression error of V may
    act besides:

    Args:
      pull: the half squared error shrinks the tail of V, V - P(V) <- (V - P(V)) / (1 + c_t), with c_t growing
        quadratically towards the freeze and summing to `pull`. 0 is the straight-through estimator; large values forget
        what is pruned, as gradual pruning does.
      soft: W is soft-thresholded at this fraction of the largest dead magnitude, annealed to none at the freeze;
        off by default, since it has won no comparison yet.
    """
    if pull < 0 or soft < 0:
        raise ValueError(f"dual needs pull >= 0 and soft >= 0, got pull={pull} and soft={soft}")

    def apply(method: Method) -> Method:
        begin, end = method.clock.begin, method.clock.end
        span = max(end - begin, 1)

        def start(w, structure):
            return Memory(fast=jnp.array(w, copy=True), slow=jnp.zeros((), w.dtype) if soft else ())

        def decide(view: View) -> Decision:
            keep = keep_worthiest(view).keep
            if not soft:
                return Decision(keep)
            dead = jnp.max(jnp.where(view.spread(keep), 0, jnp.abs(view.sight.point)), initial=0)
            return Decision(keep, soft * jnp.clip(1 - (view.count - begin) / span, 0, 1) * dead)

        def step(view: View, update: jax.Array, alive: jax.Array):
            v = view.memory.fast + update
            if pull:
                x = jnp.clip((view.count - begin) / span, 0, 1)
                v = shrinkage.ridge(v, alive, jnp.where(view.count < end, 3 * pull * x**2 / span, 0))
            return (shrinkage.soft(v, view.memory.slow) if soft else v), v

        return dataclasses.replace(
            method,
            start=start,
            decide=decide,
            step=step,
            iterate=lambda w, memory: memory.fast,
            project_rank=truncate,
            forget_momentum=False,
        )

    return apply
