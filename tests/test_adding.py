"""Sums are the same to the bit in any order, and as good as any."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csp import adding


def numbers(size, spread, dtype=np.float32):
    draw = np.random.default_rng(size)
    return (draw.normal(size=size) * np.exp(draw.uniform(-spread, 0, size))).astype(dtype)


@pytest.mark.parametrize("spread", [0, 20])
@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000, 70_000])
def test_the_order_does_not_matter(size, spread):
    x, draw, add = numbers(size, spread), np.random.default_rng(0), jax.jit(lambda x: adding.total(x, 0))
    first = np.asarray(add(x))
    exact = np.sum(x.astype(np.float64))
    assert abs(first - exact) <= 2.0**-23 * abs(exact) + size * 2.0**-30 * np.abs(x).max()
    for _ in range(5):
        assert np.asarray(add(draw.permutation(x))).tobytes() == first.tobytes()


def test_sums_of_parts_are_the_sum(monkeypatch):
    """As devices add: each what it has, and then their sums, which are exact before the last roundings."""
    x = numbers(4096, 8)
    plain = {np.float32(np.sum(part)) for part in (x, x[::-1])} | {
        np.float32(np.sum(x.reshape(8, -1).sum(1, dtype=np.float32), dtype=np.float32))
    }
    assert len(plain) > 1  # a plain sum does depend on it
    exact, add = jnp.sum, []
    monkeypatch.setattr(jnp, "sum", lambda part, axis: add.append(part) or exact(part.reshape(8, -1).sum(1)))
    monkeypatch.setattr(jnp, "where", lambda which, a, b: a)
    in_parts = adding.total(jnp.asarray(x), 0)
    monkeypatch.undo()
    assert len(add) > 1
    assert np.asarray(in_parts).tobytes() == np.asarray(adding.total(jnp.asarray(x), 0)).tobytes()


@pytest.mark.parametrize("x", [np.zeros((3, 4)), np.full((3, 4), 1e-36), np.full((3, 4), 2e37), np.zeros((0, 4))])
def test_extremes(x):
    found = adding.total(jnp.asarray(x, jnp.float32), (0, 1))
    np.testing.assert_allclose(found, np.sum(x.astype(np.float32)), rtol=1e-5)


def test_what_is_infinite_is_so_alone():
    x = jnp.ones((3, 4)).at[1, 2].set(jnp.inf).at[2, 0].set(jnp.nan)
    found = np.asarray(adding.total(x, 1))
    assert found[0] == 4
    assert np.isposinf(found[1])
    assert np.isnan(found[2])
    assert np.isposinf(adding.total(jnp.full((3, 4), 3e38), 1)).all()


def test_axes_and_other_precisions():
    x = numbers(2 * 3 * 4 * 5, 2).reshape(2, 3, 4, 5)
    np.testing.assert_allclose(adding.total(jnp.asarray(x), axis=(-3, -1)), x.sum((-3, -1)), rtol=1e-5)
    with jax.enable_x64(True):
        wide = jnp.asarray(numbers(1000, 5, np.float64))
        assert adding.total(wide, 0).dtype == jnp.float64
        np.testing.assert_allclose(adding.total(wide, 0), np.sum(np.asarray(wide)), rtol=1e-6)
