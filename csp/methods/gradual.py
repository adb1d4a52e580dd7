"""Gradual magnitude pruning, after Zhu & Gupta (2017): project on a budget that tightens along a cubic."""

from csp import schedules
from csp.methods.grow import exchanging, gradient_worth
from csp.methods.method import Method, clock_for, truncate


def gradual(
    steps: int,
    begin: float = 0.1,
    end: float = 0.7,
    every: int | None = None,
    regrow: float = 0.0,
) -> Method:
    """On every refresh w <- P_t(w), the projection on the budget of step t; in between only what lives is trained.

    Weight decay is the inner optimizer's: tune it, gradual pruning gains more from that than from anything else.

    Args:
      steps: the length of training.
      begin: where the ramp begins, a fraction of the training.
      end: where it ends and the support is frozen.
      every: steps between two refreshes.
      regrow: the fraction of each budget that is exchanged, at first, for the dead units of largest gradient.
    """
    clock = clock_for(steps, begin, end, every)
    ramp = schedules.cubic(1.0, clock.begin, clock.end)
    plain = Method("gradual", steps, clock, ramp, project_rank=truncate)
    return exchanging(plain, regrow, gradient_worth) if regrow else plain
