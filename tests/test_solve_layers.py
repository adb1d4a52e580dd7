"""Do the layers' solvers solve? Oracles: the normal equations, the best of all supports, magnitude and Wanda."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csp import shrinkage, solve


def layer(size=48, out=20, samples=400, seed=0):
    """Correlated inputs of unequal scale."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, size // 4)) @ rng.normal(size=(size // 4, size)) + 0.5 * rng.normal(
        size=(samples, size)
    )
    x *= np.exp(0.7 * rng.normal(size=size))
    return x.T @ x / samples, rng.normal(size=(size, out))


def misfit(gram, w, z):
    return np.einsum("io,ij,jo->", z - w, gram, z - w) / np.einsum("io,ij,jo->", w, gram, w)


def fit_on(gram, w, keep):
    """Least squares on the support, column by column."""
    z = np.zeros_like(w)
    for column in range(w.shape[1]):
        inside = keep[:, column]
        z[inside, column] = np.linalg.solve(gram[np.ix_(inside, inside)], gram[inside] @ w[:, column])
    return z


def test_least_squares_on_support_solves_the_normal_equations():
    gram, w = layer()
    keep = np.random.default_rng(1).uniform(size=w.shape) < 0.4
    keep[:, 0] = False
    with jax.enable_x64(True):
        z = solve.least_squares_on_support(gram, w, keep)
    np.testing.assert_allclose(z, fit_on(gram, w, keep), atol=1e-8)


def test_least_squares_on_support_takes_a_singular_gram():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(10, 30))
    x[:, 3] = 0
    w = rng.normal(size=(30, 4))
    keep = rng.uniform(size=w.shape) < 0.8
    with jax.enable_x64(True):
        z = np.asarray(solve.least_squares_on_support(x.T @ x, w, keep, steps=500))
    np.testing.assert_allclose(x @ z, x @ w, atol=1e-6)
    assert not z[~keep].any()


@pytest.mark.parametrize("share", [0.3, 0.5, 0.55, 0.9])
@pytest.mark.parametrize("noise", [0.0, 1e-4, 1e-2])
def test_least_squares_in_float32_is_the_best_without_large_weights_of_few_different_inputs(share, noise):
    rng = np.random.default_rng(3)
    seen = rng.normal(size=(28, 64))[rng.integers(28, size=2000)] + noise * rng.normal(size=(2000, 64))
    gram, w = (seen.T @ seen / 2000).astype(np.float32), rng.normal(size=(64, 16)).astype(np.float32)
    keep = rng.uniform(size=w.shape) < share
    z = np.asarray(solve.least_squares_on_support(gram, w, keep), float)
    best = np.zeros_like(z)
    for j, inside in enumerate(keep.T):
        best[inside, j] = np.linalg.lstsq(seen[:, inside], seen @ w[:, j], rcond=1e-6)[0]
    error, least, all_ = (np.sum((seen @ (x - w)) ** 2) for x in (z, best, np.zeros_like(z)))
    assert error <= 1.15 * least + 1e-4 * all_
    assert np.abs(z).max() < 20 * np.abs(w).max()


def test_admm_on_a_convex_set_is_exact():
    gram, w = layer(size=20)
    keep = np.random.default_rng(1).uniform(size=w.shape) < 0.5
    with jax.enable_x64(True):
        z = solve.admm(gram, w, lambda z: shrinkage.hard(z, keep), steps=3000)
    np.testing.assert_allclose(z, fit_on(gram, w, keep), atol=1e-6)


@cache  # the same functions again: nothing is compiled twice
def entries(k):
    def support(z):
        return jnp.abs(z) >= jnp.sort(jnp.abs(z), axis=None)[z.size - k]

    return lambda z: shrinkage.hard(z, support(z)), lambda z, t: shrinkage.trimmed(z, support(z), t)


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_layer_solvers_beat_magnitude_and_wanda(sparsity):
    gram, w = layer()
    k = round(w.size * (1 - sparsity))
    project, shrink = entries(k)
    scale = np.sqrt(np.diag(gram))[:, None]
    naive = {"magnitude": np.asarray(project(w)), "wanda": np.asarray(project(w * scale)) / scale}
    fitted = min(misfit(gram, w, fit_on(gram, w, z != 0)) for z in naive.values())
    for sparse in (solve.admm(gram, w, project), solve.trimmed_ista(gram, w, shrink)):
        assert np.sum(sparse != 0) <= k
        z = np.asarray(solve.least_squares_on_support(gram, w, sparse != 0), np.float64)
        assert misfit(gram, w, z) < 0.9 * fitted < min(misfit(gram, w, z) for z in naive.values())


def test_layer_solvers_come_near_the_best_of_all_supports():
    size, k, ratios = 9, 3, {"admm": [], "trimmed": [], "magnitude": []}
    project, shrink = entries(k)
    for seed in range(20):
        gram, w = layer(size, 1, seed=seed)
        every = (np.isin(np.arange(size), c)[:, None] for c in itertools.combinations(range(size), k))
        best = min(misfit(gram, w, fit_on(gram, w, keep)) for keep in every)
        found = {
            "admm": solve.admm(gram, w, project),
            "trimmed": solve.trimmed_ista(gram, w, shrink),
            "magnitude": project(w),
        }
        for name, z in found.items():
            ratios[name].append(misfit(gram, w, fit_on(gram, w, np.asarray(z) != 0)) / best)
    assert min(map(min, ratios.values())) > 1 - 1e-9
    assert np.median(ratios["admm"]) < 1.1
    assert np.median(ratios["trimmed"]) < 1.5
    assert np.median(ratios["magnitude"]) > np.median(ratios["admm"])


def test_admm_takes_any_projection():
    gram, w = layer(size=24, out=24)
    with jax.enable_x64(True):
        z = np.asarray(solve.admm(gram, w, lambda z: shrinkage.truncate(z, 5)))
        plain = np.asarray(shrinkage.truncate(w, 5))
    assert np.linalg.matrix_rank(z, tol=1e-9) == 5
    assert misfit(gram, w, z) < 0.8 * misfit(gram, w, plain)


def test_layer_solvers_map_over_layers():
    project, shrink = entries(100)
    grams, ws = map(np.stack, zip(*(layer(24, 10, seed=s) for s in range(3)), strict=True))
    for one in (
        lambda gram, w: solve.admm(gram, w, project),
        lambda gram, w: solve.trimmed_ista(gram, w, shrink),
        lambda gram, w: solve.least_squares_on_support(gram, w, w > 0),
    ):
        with jax.enable_x64(True):
            for z, gram, w in zip(jax.vmap(one)(grams, ws), grams, ws, strict=True):
                np.testing.assert_allclose(z, one(gram, w), atol=1e-6)


def test_inputs_that_never_fire_do_no_harm():
    gram, w = layer(24, 10)
    gram[:3] = gram[:, :3] = 0
    project, shrink = entries(100)
    for gram_ in (gram, np.zeros_like(gram)):
        with jax.enable_x64(True):
            for z in (solve.admm(gram_, w, project), solve.trimmed_ista(gram_, w, shrink)):
                assert np.isfinite(z).all()
                assert np.isfinite(solve.least_squares_on_support(gram_, w, z != 0)).all()


BAD = {
    "gram contains NaN": lambda gram: solve.admm(gram * np.nan, np.ones((30, 2)), entries(3)[0]),
    r"got w \(29, 2\) and gram \(30, 30\)": lambda gram: solve.admm(gram, np.ones((29, 2)), entries(3)[0]),
    "keep must be boolean": lambda gram: solve.least_squares_on_support(gram, np.ones((30, 2)), np.ones((30, 2))),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    a = np.random.default_rng(0).normal(size=(20, 30))
    with pytest.raises(ValueError, match=message):
        BAD[message](a.T @ a)
