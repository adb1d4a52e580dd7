"""Movement pruning, after Sanh et al. (2020): keep what training moves away from zero."""

import jax
import jax.numpy as jnp

from csp import metrics, schedules
from csp.methods.method import Memory, Method, View, clock_for


def movement(steps: int, begin: float = 0.05, end: float = 0.7, every: int | None = None) -> Method:
    """The worth of a weight is the accumulated -g v, whatever the rule's metric; dead weights wait with the value they
    had.

    Two arrays: the score, and the values of the dead. Meant for fine-tuning: from scratch, magnitude is better.
    """
    clock = clock_for(steps, begin, end, every)

    def start(w, structure):
        return Memory(fast=jnp.array(w, copy=True))

    def step(view: View, update: jax.Array, alive: jax.Array):
        v = view.memory.fast + jnp.where(alive, update, 0)
        return v, v

    return Method(
        "movement",
        steps,
        clock,
        ramp=schedules.cubic(1.0, clock.begin, clock.end),
        start=start,
        step=step,
        iterate=lambda w, memory: memory.fast,
        metric=metrics.movement(),
        forget_momentum=False,
    )
