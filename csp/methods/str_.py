"""Soft threshold reparametrisation, after Kusupati et al. (2020): W = soft(V, t), with t learned per tensor."""

import jax
import jax.numpy as jnp

from csp import schedules, shrinkage
from csp.methods.method import Decision, Memory, Method, View, clock_for


def str_(
    steps: int,
    begin: float = 0.05,
    end: float = 0.7,
    every: int | None = None,
    rate: float = 0.02,
    pressure: float = 1.0,
) -> Method:
    """log t follows its own gradient, dL / dt = -sum of g sign(V) over what lives, relative to the sum of |g|.

    In the paper weight decay on the threshold sets the sparsity, tuned by trial. Here a budget does: the threshold is
    pushed up by `pressure` times log(alive / budget) while more than the budget is alive. What is below the threshold
    is not moved, and the projection at `end` makes the budget exact.

    Args:
      steps: the length of training.
      begin: the end of the dense warm-up, a fraction of the training.
      end: the projection.
      every: steps between two looks at the budget.
      rate: the step of log t.
      pressure: the weight of the budget against the gradient.
    """
    clock = clock_for(steps, begin, end, every)

    def start(w, structure):
        small = 1e-3 * jnp.sqrt(jnp.mean(jnp.square(w)))
        return Memory(fast=(jnp.array(w, copy=True), jnp.log(small + 1e-30)), slow=jnp.zeros((), jnp.float32))

    def decide(view: View) -> Decision:
        return Decision(view.worthiest() | ~view.last, pressure * jnp.clip(view.excess, 0, 3))

    def step(view: View, update: jax.Array, alive: jax.Array):
        v, log_t = view.memory.fast
        moving = (view.w != 0) | (view.count < clock.begin)
        v = v + jnp.where(moving, update, 0)
        slope = -jnp.sum(jnp.where(moving, view.gradient * jnp.sign(v), 0)) / (jnp.sum(jnp.abs(view.gradient)) + 1e-30)
        log_t = log_t + jnp.where(view.count >= clock.begin, rate * (view.memory.slow - slope), 0)
        frozen = view.count >= clock.end
        return jnp.where(frozen, view.w + update, shrinkage.soft(v, jnp.exp(log_t))), (v, log_t)

    return Method(
        "str",
        steps,
        clock,
        ramp=schedules.cubic(1.0, clock.begin, clock.end),
        start=start,
        decide=decide,
        step=step,
        iterate=lambda w, memory: memory.fast[0],
        free=lambda count: count < clock.end,
        forget_momentum=False,
    )
