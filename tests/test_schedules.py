"""Are schedules what they say, exactly for integers and alike when traced?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from csp import schedules

EVERY = {
    "constant": schedules.constant(0.9),
    "one_shot": schedules.one_shot(0.9, at=7),
    "linear": schedules.linear(0.9, begin=3, end=11),
    "cubic": schedules.cubic(0.9, begin=3, end=11, initial=0.1),
    "step": schedules.cubic(0.9, begin=4, end=4),
    "phases": schedules.phases([0.0, 0.5, 0.2, 0.9], [2, 5, 9]),
}


@pytest.mark.parametrize("name", EVERY)
def test_traced_and_concrete_counts_agree(name):
    counts = np.arange(20)
    traced = jax.jit(jax.vmap(EVERY[name]))(jnp.asarray(counts))
    np.testing.assert_allclose(traced, [EVERY[name](int(t)) for t in counts], rtol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_the_last_value_is_exact_and_stays(name):
    assert [EVERY[name](t) for t in (11, 12, 10**6, 10**12)] == [0.9] * 4
    assert float(EVERY[name](jnp.asarray(11))) == np.float32(0.9)


@pytest.mark.parametrize("name", ["one_shot", "linear", "cubic", "step"])
def test_ramps_never_fall(name):
    values = [EVERY[name](t) for t in range(20)]
    assert values == sorted(values)


@given(some.integers(0, 50), some.integers(1, 50), some.integers(0, 120))
def test_cubic_is_the_polynomial(begin, length, count):
    x = min(max((count - begin) / length, 0), 1)
    assert schedules.cubic(0.8, begin, begin + length, initial=0.2)(count) == pytest.approx(0.8 - 0.6 * (1 - x) ** 3)


@given(some.integers(0, 50), some.integers(1, 50), some.integers(0, 120))
def test_linear_is_a_line(begin, length, count):
    x = min(max((count - begin) / length, 0), 1)
    assert schedules.linear(0.8, begin, begin + length)(count) == pytest.approx(0.8 * x)


def test_phases_change_on_their_boundaries():
    assert [EVERY["phases"](t) for t in (0, 1, 2, 4, 5, 8, 9, 100)] == [0, 0, 0.5, 0.5, 0.2, 0.2, 0.9, 0.9]


def test_numpy_integers_are_concrete():
    assert EVERY["cubic"](np.int64(11)) == 0.9
    assert isinstance(EVERY["phases"](np.int32(3)), float)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant(1.1), "between 0 and 1, got 1.1"),
        (lambda: schedules.constant(float("nan")), "between 0 and 1, got nan"),
        (lambda: schedules.constant("0.9"), "between 0 and 1, got '0.9'"),
        (lambda: schedules.cubic(0.9, 5, 4), "begin=5, end=4"),
        (lambda: schedules.linear(0.9, -1, 4), "begin=-1"),
        (lambda: schedules.cubic(0.9, 0, 4, initial=-0.1), "got -0.1"),
        (lambda: schedules.phases([0.1], [1]), "one value more than boundaries, got 1 values and 1"),
        (lambda: schedules.phases([0.0, 0.1, 0.2], [4, 4]), "increasing boundaries, got \\(4, 4\\)"),
    ],
)
def test_schedules_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
