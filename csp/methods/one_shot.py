"""One projection, then fine-tuning."""

from csp import schedules
from csp.methods.method import Method, clock_for, truncate


def one_shot(steps: int, at: float = 0.5) -> Method:
    """Dense until `at` (a fraction of the training), projected once, fine-tuned to the end."""
    clock = clock_for(steps, at, at)
    return Method("one_shot", steps, clock, ramp=schedules.one_shot(1.0, clock.begin), project_rank=truncate)
