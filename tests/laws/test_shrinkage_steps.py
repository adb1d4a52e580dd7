"""Is a step of the primal methods the prox that it claims to be? And what do its cheap imitations not do?"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso

import csp
from csp import methods, metrics, shrinkage, structures

SHAPE = (2, 4)
SIZE = 8
STEPS = 40


def one_shrunk_step(iterate, w, metric, sparsity=0.5):
    """The weights after a step that moves nothing, in the middle of the ramp, and the threshold c of that step."""
    method = methods.compressed_sensing(STEPS, iterate, begin=0.0, full=0.8, freeze=0.9, every=1)
    tx = csp.sparsify(
        optax.sgd(0.1), csp.Rule("w", structures.entries(), metric=metric, sparsity=sparsity), method=method
    )
    params = {"w": jnp.asarray(w, jnp.float32)}
    state = tx.init(params)._replace(count=jnp.int32(12))
    with jax.disable_jit():
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        progress = float(method.ramp(12))
    kept = round(progress * csp.structures.keep_count(SIZE, sparsity))
    return np.asarray(optax.apply_updates(params, updates)["w"]), float(state.memory[0].slow["c"]), kept


def drawn(seed):
    draw = np.random.default_rng(seed)
    diagonal = draw.uniform(0.05, 4, SHAPE).astype(np.float32)
    return draw.normal(size=SHAPE).astype(np.float32), diagonal / diagonal.mean()


def objective(z, w, c, d, k):
    tail = np.sort(np.abs(z), axis=None)[: z.size - k]
    return 0.5 * np.sum(d * (z - w) ** 2) + c * tail.sum()


def best_by_brute_force(w, c, d, k) -> float:
    """Over all supports that are exempt: the others are soft-thresholded at c / d."""
    shrunk = np.sign(w) * np.maximum(np.abs(w) - c / d, 0)
    values = []
    for exempt in itertools.combinations(range(w.size), k):
        z = shrunk.ravel().copy()
        z[list(exempt)] = w.ravel()[list(exempt)]
        values.append(objective(z.reshape(w.shape), w, c, d, k))
    return min(values)


@pytest.mark.parametrize("seed", range(5))
def test_a_decoupled_step_is_the_prox_of_the_trimmed_lasso(seed):
    w, _ = drawn(seed)
    z, c, kept = one_shrunk_step(methods.trimmed(strength=20.0), w, metrics.magnitude())
    assert c > 0
    assert 0 < kept < 4
    np.testing.assert_allclose(z, shrinkage.trimmed_prox(jnp.asarray(w), kept, c), rtol=1e-5)
    np.testing.assert_allclose(objective(z, w, c, 1.0, kept), best_by_brute_force(w, c, 1.0, kept), rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_a_step_in_the_metric_is_the_prox_in_the_metric(seed):
    w, d = drawn(seed)
    metric = metrics.Metric("drawn", diagonal=lambda sight: jnp.asarray(3 * d))
    z, c, kept = one_shrunk_step(methods.trimmed(strength=20.0, shrink=methods.metric()), w, metric)
    np.testing.assert_allclose(z, shrinkage.trimmed_prox(jnp.asarray(w), kept, c, jnp.asarray(d)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(objective(z, w, c, d, kept), best_by_brute_force(w, c, d, kept), rtol=1e-5)


def test_an_ista_step_thresholds_all():
    w, d = drawn(0)
    metric = metrics.Metric("drawn", diagonal=lambda sight: jnp.asarray(d))
    z, c, _ = one_shrunk_step(methods.ista(strength=5.0), w, metrics.magnitude())
    np.testing.assert_allclose(z, shrinkage.soft(jnp.asarray(w), c), rtol=1e-5)
    z, c, _ = one_shrunk_step(methods.ista(strength=5.0, shrink=methods.metric()), w, metric)
    np.testing.assert_allclose(z, shrinkage.soft(jnp.asarray(w), c / jnp.asarray(d)), rtol=1e-4, atol=1e-6)


def test_pooled_units_keep_their_direction():
    method = methods.compressed_sensing(STEPS, methods.trimmed(strength=8.0), begin=0.0, full=0.8, freeze=0.9, every=1)
    tx = csp.sparsify(optax.sgd(0.1), csp.Rule("w", structures.rows(), sparsity=0.5), method=method)
    params = {"w": jax.random.normal(jax.random.key(0), (6, 3)) * jnp.arange(1.0, 7.0)[:, None]}
    state = tx.init(params)._replace(count=jnp.int32(8))
    with jax.disable_jit():
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    c = float(state.memory[0].slow["c"])
    w, z = np.asarray(params["w"]), np.asarray(optax.apply_updates(params, updates)["w"])
    before, after = np.linalg.norm(w, axis=1), np.linalg.norm(z, axis=1)
    shrunk = ~np.isclose(before, after)
    assert shrunk.any()
    np.testing.assert_allclose(after[shrunk], np.maximum(before[shrunk] - c * np.sqrt(3), 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(z, w * (after / before)[:, None], rtol=1e-4, atol=1e-6)


def lasso_problem():
    """Least squares with columns of very different sizes, so that a diagonal metric pays."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 12)) * np.geomspace(0.3, 3, 12)
    y = x @ np.where(np.arange(12) % 3 == 0, 1.0, 0.0) + 0.1 * draw.normal(size=60)
    alpha = 0.2
    solution = Lasso(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(x, y).coef_
    return x, y, alpha, solution


def descend(x, y, shrink, steps=4000):
    """Gradient descent in the metric of the columns' sizes, with a shrinkage after every step."""
    with jax.enable_x64(True):
        x, y = jnp.asarray(x), jnp.asarray(y)
        hessian = x.T @ x / len(y)
        d = jnp.sqrt(jnp.diag(hessian))
        rate = 1 / jnp.linalg.eigvalsh(hessian / jnp.sqrt(d[:, None] * d))[-1]

        def step(_, w):
            return shrink(w - rate * (hessian @ w - x.T @ y / len(y)) / d, rate, d)

        return np.asarray(jax.lax.fori_loop(0, steps, step, jnp.zeros(x.shape[1])))


def test_shrinkage_in_the_metric_solves_lasso():
    x, y, alpha, solution = lasso_problem()
    found = descend(x, y, lambda w, rate, d: shrinkage.soft(w, rate * alpha / d))
    np.testing.assert_allclose(found, solution, atol=1e-8)


def test_decoupled_shrinkage_does_not_solve_lasso():
    x, y, alpha, solution = lasso_problem()
    found = descend(x, y, lambda w, rate, d: shrinkage.soft(w, rate * alpha))
    assert np.abs(found - solution).max() > 1e-2


def test_a_penalty_in_the_gradient_gives_no_zeros():
    x, y, alpha, solution = lasso_problem()
    found = descend(x, y, lambda w, rate, d: w - rate * alpha * jnp.sign(w) / d)
    assert (found != 0).all()
    assert (solution == 0).any()


def test_mixing_with_the_projection_gives_no_zeros():
    """The half squared compression error pulls the tail towards zero and never gets there."""
    x, y, _, _ = lasso_problem()

    def ridge(w, rate, d):
        keep = jnp.abs(w) >= jnp.sort(jnp.abs(w))[-4]
        return shrinkage.ridge(w, keep, 0.5)

    assert (descend(x, y, ridge) != 0).all()


def test_the_trimmed_lasso_is_an_exact_penalty():
    """Strong enough, k entries are left and they are unbiased; too weak, more are left."""
    x, y, _, _ = lasso_problem()
    k = 4

    def trimmed(penalty):
        return lambda w, rate, d: shrinkage.trimmed_prox(w, k, rate * penalty, d)

    strong, weak = descend(x, y, trimmed(3.0)), descend(x, y, trimmed(1e-3))
    alive = strong != 0
    assert alive.sum() <= k < (weak != 0).sum()
    np.testing.assert_allclose(strong[alive], np.linalg.lstsq(x[:, alive], y, rcond=None)[0], atol=1e-6)
