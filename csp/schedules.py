"""How much, when: the fraction of zeros as a function of the step.

Every schedule is a plain optax schedule, `count -> value`. With a Python integer it answers with a Python float,
exactly; with a traced count it answers with a float32 scalar. Past its last change a schedule is constant.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

Schedule = Callable[[Any], Any]  # optax's type, without importing optax: that takes a fifth as long as importing jax


def constant(value: float) -> Schedule:
    """Sparsity `value` from the first step on."""
    value = _fraction(value)
    return lambda count: value


def one_shot(value: float, at: int) -> Schedule:
    """Dense before step `at`, sparsity `value` from it on."""
    return phases((0.0, value), (at,))


def linear(value: float, begin: int, end: int, initial: float = 0.0) -> Schedule:
    """`initial` until `begin`, `value` from `end` on, a straight line between them."""
    return _ramp(value, begin, end, initial, lambda x: x)


def cubic(value: float, begin: int, end: int, initial: float = 0.0) -> Schedule:
    """Fast while there is much to remove, slow towards the end.

    s(t) = value + (initial - value) (1 - x)^3 with x = (t - begin) / (end - begin), clipped to [0, 1].

    >>> s = cubic(0.8, begin=0, end=100)
    >>> s(0), round(s(50), 3), s(100), s(1000)
    (0.0, 0.7, 0.8, 0.8)
    """
    return _ramp(value, begin, end, initial, lambda x: 1 - (1 - x) ** 3)


def phases(values: Sequence[float], boundaries: Sequence[int]) -> Schedule:
    """`values[i]` from `boundaries[i - 1]` (included) to `boundaries[i]` (excluded): one value more than boundaries."""
    values, boundaries = tuple(map(_fraction, values)), tuple(boundaries)
    if len(values) != len(boundaries) + 1:
        raise ValueError(
            f"phases needs one value more than boundaries, got {len(values)} values and {len(boundaries)} boundaries"
        )
    if not all(a < b for a, b in itertools.pairwise((-math.inf, *boundaries))):
        raise ValueError(f"phases needs increasing boundaries, got {boundaries}")

    def schedule(count):
        if _is_concrete(count):
            return values[bisect.bisect_right(boundaries, int(count))]
        index = jnp.sum(jnp.asarray(count) >= jnp.asarray(boundaries, jnp.int32))
        return jnp.asarray(values, jnp.float32)[index]

    return schedule


def joined(parts: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """One schedule after the other, each counting from its own boundary; one schedule more than boundaries."""

    def schedule(count):
        value = parts[0](count)
        for part, boundary in zip(parts[1:], boundaries, strict=True):
            if _is_concrete(count):
                value = part(count - boundary) if count >= boundary else value
            else:
                value = jnp.where(count >= boundary, part(count - boundary), value)
        return value

    return schedule


def _ramp(value, begin, end, initial, shape) -> Schedule:
    value, initial = _fraction(value), _fraction(initial)
    if not 0 <= begin <= end:
        raise ValueError(f"a ramp needs 0 <= begin <= end, got begin={begin}, end={end}")

    def schedule(count):
        if _is_concrete(count):
            x = min(max((int(count) - begin) / max(end - begin, 1), 0.0), 1.0)
            return value if count >= end else initial + (value - initial) * shape(x)
        x = jnp.clip((jnp.asarray(count, jnp.float32) - begin) / max(end - begin, 1), 0.0, 1.0)
        return jnp.where(count >= end, value, initial + (value - initial) * shape(x)).astype(jnp.float32)

    return schedule


def _is_concrete(count) -> bool:
    return isinstance(count, int | np.integer)


def _fraction(value: float) -> float:
    if not (isinstance(value, int | float | np.floating) and math.isfinite(value) and 0 <= value <= 1):
        raise ValueError(f"sparsity is a fraction of zeros between 0 and 1, got {value!r}")
    return float(value)
