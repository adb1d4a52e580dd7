"""Is every prox the minimiser it claims to be? Brute force over all supports, closed forms, optimality conditions."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csp import select, shrinkage

CASES, SIZE, KEPT = 400, 6, 2


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def supports(size, kept):
    """All supports with `kept` of `size` units, one a row."""
    chosen = itertools.combinations(range(size), kept)
    return np.array([[i in c for i in range(size)] for c in chosen])


def diagonal_problem(rng):
    w = rng.normal(size=(CASES, SIZE))
    d = np.exp(rng.normal(size=(CASES, SIZE)))
    c = np.exp(rng.normal(size=(CASES, 1)))
    return w, d, c


def tail(z, kept):
    """T_k: the sum of all but the k largest magnitudes."""
    return np.sort(np.abs(z), -1)[..., : z.shape[-1] - kept].sum(-1)


def objective(z, w, c, d, kept):
    return 0.5 * np.sum(d * (z - w) ** 2, -1) + c[..., 0] * tail(z, kept)


def candidates(w, c, d, kept):
    """For every support the best point that has it exempt: cases x supports x entries."""
    shrunk = np.sign(w) * np.maximum(np.abs(w) - c / d, 0)
    return np.where(supports(w.shape[-1], kept), w[:, None], shrunk[:, None])


def test_trimmed_prox_is_optimal_among_all_supports(rng):
    w, d, c = diagonal_problem(rng)
    best = objective(candidates(w, c, d, KEPT), w[:, None], c[:, None], d[:, None], KEPT).min(1)
    with jax.enable_x64(True):
        z = jax.vmap(lambda w, c, d: shrinkage.trimmed_prox(w, KEPT, c, d))(w, c, d)
        along = shrinkage.trimmed_prox(w, KEPT, c, d, axes=1)
    np.testing.assert_allclose(objective(np.asarray(z), w, c, d, KEPT), best, rtol=1e-13)
    np.testing.assert_array_equal(along, z)


def test_choosing_by_magnitude_is_suboptimal_in_another_metric(rng):
    w, d, c = diagonal_problem(rng)
    best = objective(candidates(w, c, d, KEPT), w[:, None], c[:, None], d[:, None], KEPT).min(1)
    with jax.enable_x64(True):
        z = shrinkage.trimmed(w, select.keep_largest(np.abs(w), KEPT, 1), c / d)
    worse = objective(np.asarray(z), w, c, d, KEPT) > best * (1 + 1e-9)
    assert 0.25 < worse.mean() < 0.9


def test_in_the_plain_metric_magnitude_is_the_worth(rng):
    w, _, c = diagonal_problem(rng)
    with jax.enable_x64(True):
        z = shrinkage.trimmed_prox(w, KEPT, c, axes=1)
        expected = shrinkage.trimmed(w, select.keep_largest(np.abs(w), KEPT, 1), c)
    np.testing.assert_array_equal(z, expected)


def test_trimmed_prox_has_the_stated_extremes(rng):
    w = jnp.asarray(rng.normal(size=50), jnp.float32)
    keep = select.keep_largest(jnp.abs(w), 7)
    np.testing.assert_array_equal(shrinkage.trimmed_prox(w, 0, 0.3), shrinkage.soft(w, 0.3))
    np.testing.assert_array_equal(shrinkage.trimmed_prox(w, 7, jnp.inf), shrinkage.hard(w, keep))
    np.testing.assert_array_equal(shrinkage.trimmed_prox(w, 7, 0.0), w)
    np.testing.assert_array_equal(shrinkage.ridge(w, keep, jnp.inf), shrinkage.hard(w, keep))
    np.testing.assert_array_equal(shrinkage.ridge(w, keep, 0.0), w)


def test_ridge_is_optimal_among_all_supports(rng):
    w, _, c = diagonal_problem(rng)

    def value(z, w, c):
        error = np.sort(z**2, -1)[..., : SIZE - KEPT].sum(-1)
        return 0.5 * np.sum((z - w) ** 2, -1) + 0.5 * c[..., 0] * error

    every = np.where(supports(SIZE, KEPT), w[:, None], (w / (1 + c))[:, None])
    with jax.enable_x64(True):
        z = shrinkage.ridge(w, select.keep_largest(np.abs(w), KEPT, 1), c)
    np.testing.assert_allclose(value(np.asarray(z), w, c), value(every, w[:, None], c[:, None]).min(1), rtol=1e-13)


def test_huber_worth_is_what_exemption_saves(rng):
    w, d, c = diagonal_problem(rng)
    z = np.sign(w) * np.maximum(np.abs(w) - c / d, 0)
    loss = 0.5 * d * (z - w) ** 2 + c * np.abs(z)
    with jax.enable_x64(True):
        np.testing.assert_allclose(shrinkage.huber_worth(w, c, d) ** 2 / 2, loss, rtol=1e-12)


def test_huber_worth_orders_tiny_weights():
    w = jnp.array([1e-30, 3e-30, 2e-30, 1e-25], jnp.float32)
    for c in (1e-37, 1e-3, jnp.inf):
        assert jnp.argsort(shrinkage.huber_worth(w, c, 2.0)).tolist() == [0, 2, 1, 3]


def test_trimmed_group_prox_is_optimal_among_all_supports(rng):
    groups, size, kept = 5, 3, 2
    w, c = rng.normal(size=(CASES, groups, size)), np.exp(rng.normal(size=(CASES, 1, 1)))
    norm = np.linalg.norm(w, axis=-1, keepdims=True)
    shrunk = w / norm * np.maximum(norm - c, 0)
    every = np.where(supports(groups, kept)[..., None], w[:, None], shrunk[:, None])

    def value(z, w, c):
        return 0.5 * np.sum((z - w) ** 2, (-2, -1)) + c[..., 0, 0] * tail(np.linalg.norm(z, axis=-1), kept)

    with jax.enable_x64(True):
        keep = select.keep_largest(shrinkage.huber_worth(norm, c), kept, 1)
        z = np.where(keep, w, shrinkage.group_soft(w, c, axes=-1))
    np.testing.assert_allclose(value(z, w, c), value(every, w[:, None], c[:, None]).min(1), rtol=1e-12)


def test_trimmed_group_prox_in_a_metric_is_optimal_among_all_supports(rng):
    groups, size, kept = 5, 3, 2
    w, c = rng.normal(size=(CASES, groups, size)), np.exp(rng.normal(size=(CASES, 1, 1)))
    d = np.exp(rng.normal(size=w.shape))
    with jax.enable_x64(True):
        shrunk = np.asarray(shrinkage.group_soft_metric(w, c, d, axes=-1))

    def value(z, w, c, d):
        return 0.5 * np.sum(d * (z - w) ** 2, (-2, -1)) + c[..., 0, 0] * tail(np.linalg.norm(z, axis=-1), kept)

    every = np.where(supports(groups, kept)[..., None], w[:, None], shrunk[:, None])
    norm = np.linalg.norm(shrunk, axis=-1, keepdims=True)
    saved = 0.5 * np.sum(d * (shrunk - w) ** 2, -1, keepdims=True) + c * norm
    with jax.enable_x64(True):
        z = np.where(select.keep_largest(saved, kept, 1), w, shrunk)
    best = value(every, w[:, None], c[:, None], d[:, None]).min(1)
    np.testing.assert_allclose(value(z, w, c, d), best, rtol=1e-12)


@pytest.mark.parametrize("spread", [0, 1, 4, 10])
def test_group_soft_metric_satisfies_its_optimality_conditions(rng, spread):
    d = 10 ** rng.uniform(-spread, spread, (CASES, 16))
    w = rng.normal(size=d.shape) * 10 ** rng.uniform(-spread / 2, spread / 2, d.shape)
    pulled = np.linalg.norm(d * w, axis=1, keepdims=True)
    c = pulled * rng.uniform(0, 1.2, (CASES, 1)) ** 3
    with jax.enable_x64(True):
        z = np.asarray(shrinkage.group_soft_metric(w, c, d, axes=1))
    norm = np.linalg.norm(z, axis=1, keepdims=True)
    dead = norm == 0
    np.testing.assert_array_equal(dead, pulled <= c)
    residual = d * (z - w) + c * z / np.where(dead, 1, norm)
    assert np.max(np.where(dead, 0, np.abs(residual) / pulled)) < 1e-12


def test_group_soft_metric_needs_no_more_than_float32(rng):
    w, d = rng.normal(size=(CASES, 16)), 10 ** rng.uniform(-3, 3, (CASES, 16))
    c = np.linalg.norm(d * w, axis=1, keepdims=True) * 0.3
    single = shrinkage.group_soft_metric(*(jnp.asarray(x, jnp.float32) for x in (w, c, d)), axes=1)
    with jax.enable_x64(True):
        double = shrinkage.group_soft_metric(w, c, d, axes=1)
    np.testing.assert_allclose(single, double, rtol=2e-5, atol=1e-6)


def test_group_soft_is_the_metric_form_with_metric_one(rng):
    w = rng.normal(size=(4, 5, 6))
    t = rng.uniform(0, 6, size=(4, 1, 1))
    with jax.enable_x64(True):
        plain = shrinkage.group_soft(w, t, axes=(1, 2))
        metric = shrinkage.group_soft_metric(w, t, 1.0, axes=(1, 2))
    np.testing.assert_allclose(plain, metric, atol=1e-14)


def test_singular_attains_the_eckart_young_tail(rng):
    w = rng.normal(size=(3, 9, 6))
    s = np.linalg.svd(w, compute_uv=False)
    with jax.enable_x64(True):
        for rank in range(7):
            z = np.asarray(jax.jit(shrinkage.truncate)(w, rank))
            assert (np.linalg.matrix_rank(z, tol=1e-9) <= rank).all()
            np.testing.assert_allclose(np.sum((z - w) ** 2, (1, 2)), np.sum(s[:, rank:] ** 2, 1), atol=1e-12)


def test_singular_soft_thresholds_the_tail_only(rng):
    w = rng.normal(size=(9, 6))
    s = np.linalg.svd(w, compute_uv=False)
    with jax.enable_x64(True):
        z = shrinkage.singular(w, 2, 1.5)
    expected = np.concatenate([s[:2], np.maximum(s[2:] - 1.5, 0)])
    np.testing.assert_allclose(np.linalg.svd(z, compute_uv=False), expected, atol=1e-12)


def test_projections_are_idempotent(rng):
    w = jnp.asarray(rng.normal(size=(8, 6)), jnp.float32)

    def project(w):
        return shrinkage.hard(w, select.keep_largest(jnp.abs(w), 11))

    np.testing.assert_array_equal(project(project(w)), project(w))
    once = shrinkage.truncate(w, 3)
    np.testing.assert_allclose(shrinkage.truncate(once, 3), once, atol=1e-5)


def test_soft_is_a_closed_form(rng):
    w, t = rng.normal(size=1000), rng.uniform(0, 2, 1000)
    with jax.enable_x64(True):
        z = shrinkage.soft(w, t)
    np.testing.assert_array_equal(z, np.sign(w) * np.maximum(np.abs(w) - t, 0))


def test_firm_is_the_prox_of_its_penalty(rng):
    """Against every z of a fine grid; gamma 1 and infinity are the hard and the soft threshold."""
    z = np.linspace(-6, 6, 24_001)
    for w, t, gamma in zip(rng.uniform(-4, 4, 200), rng.uniform(0.1, 2, 200), rng.uniform(1.2, 4, 200), strict=True):
        size = np.abs(z)
        penalty = np.where(size <= gamma * t, t * size - size**2 / (2 * gamma), gamma * t**2 / 2)
        best = z[np.argmin((z - w) ** 2 / 2 + penalty)]
        assert shrinkage.firm(jnp.float32(w), t, gamma) == pytest.approx(best, abs=6e-4)
    w = jnp.asarray(rng.normal(size=100), jnp.float32)
    np.testing.assert_array_equal(shrinkage.firm(w, 0.5, 1), jnp.where(jnp.abs(w) > 0.5, w, 0))
    np.testing.assert_array_equal(shrinkage.firm(w, 0.5, math.inf), shrinkage.soft(w, 0.5))
    with pytest.raises(ValueError, match=r"gamma >= 1, got 0\.5"):
        shrinkage.firm(w, 0.5, 0.5)


ELEMENTWISE = {
    "soft": lambda w, keep, t: shrinkage.soft(w, t),
    "firm": lambda w, keep, t: shrinkage.firm(w, t, 1.5),
    "firm at 1": lambda w, keep, t: shrinkage.firm(w, t, 1),
    "hard": lambda w, keep, t: shrinkage.hard(w, keep),
    "ridge": shrinkage.ridge,
    "trimmed": shrinkage.trimmed,
    "group_soft": lambda w, keep, t: shrinkage.group_soft(w, t),
    "group_soft_metric": lambda w, keep, t: shrinkage.group_soft_metric(w, t, jnp.abs(w) + 0.1),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_zeros_are_positive_and_nothing_is_nan(name, dtype):
    edge = [0.0, -0.0, 1e-7, -1e-7, 0.5, -0.5, 2.0, -2.0, -1e-30, -math.pi]
    w = jnp.asarray(edge, dtype)
    keep = jnp.arange(len(edge)) % 2 == 0
    shrink = jax.jit(ELEMENTWISE[name])
    eager = [(ELEMENTWISE[name], w, 0.5)]
    for f, case, t in eager + [(shrink, case, t) for case in (w, 0 * w) for t in (0.0, 1e-7, 0.5, 100.0)]:
        z = f(case, keep, jnp.float32(t))
        assert z.dtype == dtype
        z = np.asarray(z, np.float32)
        assert not np.isnan(z).any()
        assert not (np.signbit(z) & (z == 0)).any()


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_is_not_hidden(name):
    w = jnp.array([jnp.nan, 1.0])
    assert jnp.isnan(ELEMENTWISE[name](w, jnp.array([True, True]), 5.0)[0])


def test_thresholds_are_computed_in_float32():
    w = jnp.full(1, 1.0, jnp.bfloat16)
    assert shrinkage.soft(w, 2.0**-7).item() == 1 - 2.0**-7
    many = jnp.ones(4096, jnp.bfloat16)
    np.testing.assert_array_equal(shrinkage.group_soft(many, 32.0), jnp.full_like(many, 0.5))


def test_l1_in_the_gradient_and_convex_mixing_give_no_exact_zeros(rng):
    """Only a prox does: x - rate (gradient + t sign x) and (1 - q) x + q P(x) stay off zero."""
    target = jnp.asarray(rng.normal(size=100) * (rng.uniform(size=100) < 0.1), jnp.float32)
    noisy = target + jnp.asarray(0.01 * rng.normal(size=100), jnp.float32)
    rate, t = 0.1, 0.05
    by_gradient = by_mixing = by_prox = noisy
    for _ in range(200):
        by_gradient = by_gradient - rate * (by_gradient - noisy + t * jnp.sign(by_gradient))
        by_prox = shrinkage.soft(by_prox - rate * (by_prox - noisy), rate * t)
        stepped = by_mixing - rate * (by_mixing - noisy)
        by_mixing = 0.9 * stepped + 0.1 * shrinkage.hard(stepped, target != 0)
    assert jnp.sum(by_gradient == 0) == 0
    assert jnp.sum(by_mixing == 0) == 0
    assert jnp.sum(by_prox == 0) > 80
