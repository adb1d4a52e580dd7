"""Dynamic sparse training: sparse from the start (SET, RigL) or soon (GraNet), with a support that keeps moving."""

from csp import schedules
from csp.methods.grow import exchanging, gradient_worth, noise
from csp.methods.method import Method, clock_for


def set_(steps: int, exchange: float = 0.3, end: float = 0.75, every: int | None = None, seed: int = 0) -> Method:
    """After Mocanu et al. (2018): drop the least worthy fraction of the living units, grow as many at random."""
    clock = clock_for(steps, 0, end, every)
    return exchanging(Method("set", steps, clock, schedules.constant(1.0)), exchange, noise(seed))


def rigl(steps: int, exchange: float = 0.3, end: float = 0.75, every: int | None = None) -> Method:
    """After Evci et al. (2020): drop the least worthy of the living units, grow where the gradient is largest."""
    clock = clock_for(steps, 0, end, every)
    return exchanging(Method("rigl", steps, clock, schedules.constant(1.0)), exchange, gradient_worth)


def granet(steps: int, begin: float = 0.0, end: float = 0.7, every: int | None = None, exchange: float = 0.5) -> Method:
    """After Liu et al. (2021): gradual pruning along a cubic, and on every refresh an exchange as in RigL."""
    clock = clock_for(steps, begin, end, every)
    plain = Method("granet", steps, clock, schedules.cubic(1.0, clock.begin, clock.end))
    return exchanging(plain, exchange, gradient_worth)
