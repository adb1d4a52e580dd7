"""The straight-through estimator: the bare dual iterate."""

import dataclasses

from csp import schedules
from csp.methods.dual import dual
from csp.methods.method import Method, clock_for


def ste(steps: int, begin: float = 0.05, full: float = 0.5, freeze: float = 1.0, every: int | None = None) -> Method:
    """V <- V + u, W = P(V), by magnitude: the gradient at W moves V as if the projection were not there."""
    clock = clock_for(steps, begin, freeze, every, most=20)
    ramp = schedules.cubic(1.0, clock.begin, min(round(full * steps), clock.end))
    return dataclasses.replace(dual(pull=0.0, firm=1.0)(Method("ste", steps, clock, ramp)), prefers=None)
