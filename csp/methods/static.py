"""A support that never changes: chosen before the first step, by worth or by chance."""

import jax.numpy as jnp

from csp import schedules
from csp.methods.grow import noise
from csp.methods.method import Clock, Decision, Method, View, clock_for


def static(steps: int) -> Method:
    """The most worthy units of the first step train, the others stay zero. Sparse parameters keep their own support."""
    return Method("static", steps, clock_for(steps, 0, 0), ramp=schedules.constant(1.0))


def random(steps: int, begin: float = 0.0, end: float = 0.0, every: int | None = None, seed: int = 0) -> Method:
    """A random support: the control that every criterion has to beat.

    By default it is drawn before the first step; with a later `end` the budget tightens along a cubic, and what is dead
    stays dead.
    """
    clock: Clock = clock_for(steps, begin, end, every)
    chance = noise(seed)

    def decide(view: View) -> Decision:
        living = view.layout(jnp.abs(view.w)) > 0
        return Decision(view.best(chance(view) + living), view.memory.slow)

    ramp = schedules.cubic(1.0, clock.begin, clock.end)
    return Method("random", steps, clock, ramp=ramp, decide=decide)
