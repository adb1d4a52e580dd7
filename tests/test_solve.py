"""Do the solvers solve? Oracles: scikit-learn in float64, closed forms, optimality conditions, brute force."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso, OrthogonalMatchingPursuit

from csp import shrinkage, solve

N, D, TRUE = 100, 200, 10
ALPHA = 0.1


def regression(n=N, d=D, true=TRUE, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, d))
    x = np.zeros(d)
    x[:true] = 2 * rng.normal(size=true)
    return a, a @ x + 0.3 * rng.normal(size=n)


def scikit_lasso(a, y, alpha):
    return Lasso(alpha=alpha, fit_intercept=False, tol=1e-15, max_iter=100_000).fit(a, y).coef_


# the Lasso


@pytest.mark.parametrize("method", ["ista", "fista", "metric"])
@pytest.mark.parametrize("problem", [(100, 200, 0.1), (60, 200, 0.02), (300, 50, 0.05)])
def test_lasso_meets_scikit_learn(method, problem):
    n, d, alpha = problem
    a, y = regression(n, d)
    with jax.enable_x64(True):
        x = np.asarray(solve.lasso(a, y, alpha, method))
    expected = scikit_lasso(a, y, alpha)
    np.testing.assert_allclose(x, expected, atol=1e-8)
    np.testing.assert_array_equal(x != 0, expected != 0)


@pytest.mark.parametrize("method", ["ista", "fista", "metric"])
def test_lasso_satisfies_kkt_and_closes_the_duality_gap(method):
    a, y = regression()
    with jax.enable_x64(True):
        x = np.asarray(solve.lasso(a, y, ALPHA, method))
    residual = y - a @ x
    pull = a.T @ residual / N
    np.testing.assert_allclose(pull[x != 0], ALPHA * np.sign(x[x != 0]), atol=1e-9)
    assert np.max(np.abs(pull)) <= ALPHA + 1e-9
    primal = residual @ residual / (2 * N) + ALPHA * np.sum(np.abs(x))
    feasible = residual * min(1, ALPHA / np.max(np.abs(pull)))
    dual = (y @ y - (y - feasible) @ (y - feasible)) / (2 * N)
    assert 0 <= primal - dual + 1e-15 < 1e-9 * primal


@pytest.mark.parametrize("method", ["ista", "fista", "metric"])
def test_lasso_of_an_orthogonal_design_is_one_soft_threshold(method):
    rng = np.random.default_rng(1)
    a = np.linalg.qr(rng.normal(size=(40, 20)))[0] * np.sqrt(40)
    y = rng.normal(size=40)
    with jax.enable_x64(True):
        x = solve.lasso(a, y, 0.1, method)
        np.testing.assert_allclose(x, shrinkage.soft(a.T @ y / 40, 0.1), atol=1e-12)


@pytest.mark.parametrize("method", ["ista", "fista", "metric"])
def test_lasso_beyond_the_largest_alpha_is_zero(method):
    a, y = regression()
    assert not np.any(solve.lasso(a, y, 1.01 * np.max(np.abs(a.T @ y)) / N, method))
    assert not np.any(solve.lasso(a, np.zeros(N), 0.0, method))


@pytest.mark.parametrize("method", ["ista", "fista", "metric"])
@pytest.mark.parametrize(("of_a", "of_y"), [(74, 74), (0, 74), (-83, 0), (0, -83), (-60, 60)])
def test_the_units_of_a_lasso_say_nothing(method, of_a, of_y):
    """Powers of two: the same to the bit, where float32 holds no square of such numbers."""
    a, y = (x.astype(np.float32) for x in regression(30, 12, true=3))
    found = solve.lasso(np.ldexp(a, of_a), np.ldexp(y, of_y), np.ldexp(ALPHA, of_a + of_y), method, steps=500)
    assert np.array_equal(np.ldexp(found, of_a - of_y), solve.lasso(a, y, ALPHA, method, steps=500))


def test_lasso_maps_over_penalties():
    a, y = regression()
    alphas = np.array([0.05, 0.2])
    with jax.enable_x64(True):
        together = jax.vmap(lambda alpha: solve.lasso(a, y, alpha))(alphas)
        for x, alpha in zip(together, alphas, strict=True):
            np.testing.assert_allclose(x, solve.lasso(a, y, alpha), atol=1e-10)


def test_decoupled_shrinkage_does_not_solve_the_lasso():
    """Adam with one threshold for all weights, whatever their step: another problem, another support."""
    a, y = regression()
    steps, rate = 4000, 0.01

    def step(i, state):
        x, m, v = state
        g = (a @ x - y) @ a / N
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        direction = m / (1 - 0.9 ** (i + 1.0)) / (jnp.sqrt(v / (1 - 0.999 ** (i + 1.0))) + 1e-8)
        now = rate * (1 - i / steps)
        return shrinkage.soft(x - now * direction, now * ALPHA), m, v

    with jax.enable_x64(True):
        a, y = jnp.asarray(a), jnp.asarray(y)
        decoupled = np.asarray(jax.lax.fori_loop(0, steps, step, (jnp.zeros(D),) * 3)[0])
        metric = np.asarray(solve.lasso(a, y, ALPHA, "metric"))
    expected = scikit_lasso(np.asarray(a), np.asarray(y), ALPHA)
    assert np.max(np.abs(metric - expected)) < 1e-8
    assert np.max(np.abs(decoupled - expected)) > 0.02
    assert np.sum(decoupled != 0) > 3 * np.sum(expected != 0)


# the trimmed lasso


@jax.jit
def stationary(a, y, k, penalty):
    step = 1 / jnp.linalg.norm(a, 2) ** 2

    def walk(_, x):
        return shrinkage.trimmed_prox(x - step * (a @ x - y) @ a, k, step * penalty)

    return jax.lax.fori_loop(0, 10_000, walk, jnp.zeros(a.shape[1]))


@pytest.mark.parametrize("k", [0, 3, 10])
def test_the_trimmed_lasso_is_an_exact_penalty(k):
    a, y = regression(40, 60)
    bound = np.max(np.linalg.norm(a, axis=0)) * np.linalg.norm(y)  # of |grad| wherever the misfit is below that of 0
    with jax.enable_x64(True):
        above = np.asarray(stationary(a, y, k, 1.01 * bound))
        below = np.asarray(stationary(a, y, k, 0.01 * bound))
    assert np.sum(above != 0) <= k < np.sum(below != 0)
    gradient = a.T @ (a @ above - y)
    np.testing.assert_allclose(gradient[above != 0], 0, atol=1e-6)  # the survivors are unbiased


# k-sparse recovery: half the size of benchmarks/recovery.py, at the same ratios

METHODS = ["trimmed", "niht", "omp", "lasso+ls"]
TRIALS, ROWS, COLUMNS = 16, 50, 128


def signals(k, kind, seed=0):
    """One Gaussian matrix and some k-sparse signals."""
    rng = np.random.default_rng(seed)
    a, x = rng.normal(size=(ROWS, COLUMNS)), np.zeros((TRIALS, COLUMNS))
    for signal in x:
        signal[rng.choice(COLUMNS, k, replace=False)] = (
            rng.normal(size=k) if kind == "gaussian" else rng.choice([-1, 1], k)
        )
    return a, x


@partial(jax.jit, static_argnames="method")
def _recover_each(a, ys, k, method):
    return jax.vmap(lambda y: solve.recover(a, y, k, method))(ys)


def recover_each(a, ys, k, method):
    with jax.enable_x64(True):
        return np.asarray(_recover_each(a, ys, k, method))


def success(method, k, kind):
    a, x = signals(k, kind)
    found = recover_each(a, x @ a.T, k, method)
    return np.mean(np.linalg.norm(found - x, axis=1) < 1e-4 * np.linalg.norm(x, axis=1))


@pytest.mark.slow  # benchmarks/recovery.py has more of them
def test_trimmed_recovers_gaussian_signals_where_others_do_not():
    assert success("trimmed", 17, "gaussian") > 0.9
    for method in METHODS[1:]:
        assert success(method, 17, "gaussian") < 0.8


@pytest.mark.long
def test_trimmed_recovers_signs_no_worse_than_lasso():
    assert success("trimmed", 11, "signs") == 1
    assert success("trimmed", 15, "signs") >= success("lasso+ls", 15, "signs") > success("omp", 15, "signs")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [0, 1, 5])
def test_easy_signals_are_recovered_by_every_method(method, k):
    a, x = signals(k, "gaussian")
    found = recover_each(a, x @ a.T, k, method)
    np.testing.assert_allclose(found, x, atol=1e-9)
    assert np.max(np.sum(found != 0, 1)) <= k


@pytest.mark.parametrize("method", METHODS)
def test_noisy_recovery_is_the_least_squares_fit_on_its_support(method):
    a, x = signals(5, "gaussian")
    y = x @ a.T + 0.3 * np.random.default_rng(1).normal(size=(TRIALS, ROWS))
    for found, target in zip(recover_each(a, y, 7, method), y, strict=True):
        keep = found != 0
        assert keep.sum() == 7
        np.testing.assert_allclose(found[keep], np.linalg.lstsq(a[:, keep], target, rcond=None)[0], atol=1e-10)


def test_omp_is_scikit_learns():
    a, x = signals(12, "gaussian")
    a /= np.linalg.norm(a, axis=0)
    ys = x @ a.T
    oracle = OrthogonalMatchingPursuit(n_nonzero_coefs=9, fit_intercept=False)
    expected = [oracle.fit(a, y).coef_ for y in ys]
    np.testing.assert_allclose(recover_each(a, ys, 9, "omp"), expected, atol=1e-9)


def test_recovery_does_not_depend_on_the_units_of_the_columns():
    a, x = signals(8, "gaussian")
    units = np.exp(3 * np.random.default_rng(0).normal(size=COLUMNS))
    np.testing.assert_allclose(recover_each(a * units, x @ a.T, 8, "trimmed") * units, x, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_recovery_survives_degenerate_matrices(method):
    a, y = np.ones((ROWS, COLUMNS)), np.ones((TRIALS, ROWS))
    a[:, 4:] = 0
    np.testing.assert_allclose(recover_each(a, y, 2, method) @ a.T, y, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_recovered_from_nothing(method):
    assert not recover_each(np.zeros((ROWS, COLUMNS)), np.ones((TRIALS, ROWS)), 2, method).any()


def test_recovery_takes_lists_and_whole_numbers():
    x = solve.recover([[2, 0, 0], [0, 1, 0], [0, 0, 4]], [2, 0, 12], k=2, method="omp")
    np.testing.assert_allclose(x, [1, 0, 3], atol=1e-6)


# bad input


BAD = {
    "unknown method 'lars': choose one of 'ista', 'fista', 'metric'": lambda a, y: solve.lasso(a, y, 0.1, "lars"),
    "unknown method 'lars': choose one of 'trimmed'": lambda a, y: solve.recover(a, y, 3, "lars"),
    "alpha = -1 must be": lambda a, y: solve.lasso(a, y, -1),
    "alpha = nan must be": lambda a, y: solve.lasso(a, y, float("nan")),
    "k = 31 must be at least 0 and at most 20": lambda a, y: solve.recover(a, y, 31),
    "k = -1 must be": lambda a, y: solve.recover(a, y, -1),
    "k = 2.5 is not an integer": lambda a, y: solve.recover(a, y, 2.5),
    "steps = 0 must be at least 1": lambda a, y: solve.lasso(a, y, 0.1, steps=0),
    "y contains NaN": lambda a, y: solve.recover(a, y * np.nan, 3),
    "a contains NaN": lambda a, y: solve.lasso(a / 0.0, y, 0.1),
    "a has dtype complex": lambda a, y: solve.lasso(a * 1j, y, 0.1),
    r"got \(20, 30\) and \(19,\)": lambda a, y: solve.lasso(a, y[1:], 0.1),
    "is empty": lambda a, y: solve.lasso(a[:, :0], y, 0.1),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_named(message):
    rng = np.random.default_rng(0)
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=message):
        BAD[message](rng.normal(size=(20, 30)), rng.normal(size=20))


@pytest.mark.parametrize("method", ["trimmed", "niht", "omp", "lasso+ls"])
def test_units_do_not_matter_to_recovery(method):
    rng = np.random.default_rng(0)
    a, x = rng.normal(size=(40, 60)).astype(np.float32), np.zeros(60, np.float32)
    x[:4] = 3, -2, 1, 4
    found = solve.recover(a * np.float32(1e-22), a @ x * np.float32(1e-22), 4, method=method)
    np.testing.assert_allclose(found, x, atol=1e-3)


@pytest.mark.parametrize("options", [{"alpha": "a"}, {"alpha": np.ones(2)}, {"alpha": 0.1, "tol": float("nan")}])
def test_what_is_no_number_is_refused(options):
    with pytest.raises(ValueError, match=r"(alpha|tol) = .* must be a finite number >= 0"):
        solve.lasso(np.eye(4), np.ones(4), **options)
