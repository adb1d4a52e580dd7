"""Pruning after training: exact budgets, and less error the more a solver knows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import csp
from csp import Rule, budgets, lowrank, metrics, oneshot, structures

SOLVERS = (oneshot.magnitude, oneshot.wanda, oneshot.sparsegpt, oneshot.admm, oneshot.trimmed)
STRUCTURES = (
    (structures.entries(), 0.5),
    (structures.entries(), 0.9),
    (structures.n_of_m(2, 4), None),
    (structures.n_of_m(3, 32), None),
    (structures.blocks(4, 2), 0.75),
    (structures.rows(), 0.5),
    (structures.columns(), 0.5),
)


@pytest.fixture(scope="module")
def layer():
    """A layer with correlated inputs: weights [in, out] and the Gram matrix of its inputs."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(48, 48)) * np.logspace(0, -1, 48) @ np.linalg.qr(rng.normal(size=(48, 48)))[0]
    x = rng.normal(size=(300, 48)) @ mixing
    return jnp.asarray(rng.normal(size=(48, 24)), jnp.float32), jnp.asarray(x.T @ x, jnp.float32)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("structure", "sparsity"), STRUCTURES)
def test_budget_is_exact(layer, structure, sparsity, solver):
    w, gram = layer
    if solver is oneshot.sparsegpt and structure.pooled:
        pytest.skip("sparsegpt chooses single entries")
    rule = Rule("w", structure, sparsity=sparsity)
    new = csp.compress({"w": w}, rule, gram={"w": gram}, solver=solver)
    csp.verify(new, rule)
    assert not np.signbit(np.asarray(new["w"])[np.asarray(new["w"]) == 0]).any()


@pytest.mark.parametrize("sparsity", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("solver", [oneshot.admm, oneshot.trimmed])
def test_solvers_beat_magnitude_and_wanda(layer, solver, sparsity):
    w, gram = layer
    rule = Rule("w", structures.entries(), sparsity=sparsity)
    error = {
        s: float(oneshot.relative_error(w, csp.compress({"w": w}, rule, gram={"w": gram}, solver=s)["w"], gram))
        for s in (oneshot.magnitude, oneshot.wanda, solver)
    }
    assert error[solver] < 0.7 * min(error[oneshot.magnitude], error[oneshot.wanda])


def test_sparsegpt_makes_up_exactly_for_inputs_that_come_first(layer):
    w, gram = layer
    keep = jnp.arange(48)[:, None] >= jnp.full((1, 24), 12)
    upper = jnp.linalg.cholesky(jnp.linalg.inv(gram)).T
    eliminated = oneshot._eliminate(w, upper, keep, jnp.asarray(0))
    rest = np.linalg.solve(np.asarray(gram, np.float64)[12:, 12:], np.asarray(gram @ w, np.float64)[12:])
    np.testing.assert_allclose(eliminated[12:], rest, atol=2e-3)
    assert np.all(eliminated[:12] == 0)


def test_admm_lies_between_the_best_support_and_that_of_magnitude():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 8)) @ rng.normal(size=(8, 8))
    w, gram = rng.normal(size=(8, 1)), x.T @ x
    best = min(_error_on(support, w, gram) for support in _supports(8, 4))
    largest = np.argsort(-np.abs(w[:, 0]))[:4]
    naive = _error_on(sum(1 << int(i) for i in largest), w, gram)
    new = csp.compress({"w": jnp.asarray(w, jnp.float32)}, Rule("w", structures.rows(), sparsity=0.5), gram={"w": gram})
    assert best * (1 - 1e-3) <= oneshot.relative_error(w, new["w"], gram) <= naive * (1 + 1e-3)


def _supports(n, k):
    return [s for s in range(2**n) if s.bit_count() == k]


def _error_on(support, w, gram):
    keep = np.array([support >> i & 1 for i in range(len(w))], bool)
    new = np.zeros_like(w)
    new[keep] = np.linalg.solve(gram[np.ix_(keep, keep)], (gram @ w)[keep])
    return float(oneshot.relative_error(w, new, gram))


def test_wanda_is_the_activation_metric(layer):
    w, gram = layer
    by_metric = Rule("w", structures.entries(), metric=metrics.activation(), sparsity=0.6)
    by_solver = Rule("w", structures.entries(), sparsity=0.6)
    a = csp.compress({"w": w}, by_metric, gram={"w": gram})
    b = csp.compress({"w": w}, by_solver, gram={"w": gram}, solver=oneshot.wanda)
    np.testing.assert_array_equal(a["w"], b["w"])


def test_rank_is_whitened_by_the_gram_matrix(layer):
    w, gram = layer
    rule = Rule("w", structures.rank(), sparsity=0.5)
    plain, whitened = csp.compress({"w": w}, rule), csp.compress({"w": w}, rule, gram={"w": gram})
    csp.verify(whitened, rule)
    assert oneshot.relative_error(w, whitened["w"], gram) < oneshot.relative_error(w, plain["w"], gram)


def test_a_rank_by_the_sizes_of_its_inputs_alone(layer):
    """Worse than by all that the Gram matrix says; and what `csp.lowrank` calls scaled."""
    w, gram = layer
    errors = []
    for metric, known in (
        (metrics.magnitude(), {}),
        (metrics.activation(), {"w": gram}),
        (metrics.magnitude(), {"w": gram}),
    ):
        rule = Rule("w", structures.rank(), metric=metric, sparsity=0.5)
        new = csp.compress({"w": w}, rule, gram=known)
        csp.verify(new, rule)
        errors.append(float(oneshot.relative_error(w, new["w"], gram)))
    assert errors[2] < min(errors[:2])
    scaled = lowrank.dense(lowrank.factor_scaled(w, int(structures.rank_for(w.shape, 0.5)), jnp.sqrt(jnp.diag(gram))))
    assert errors[1] == pytest.approx(float(oneshot.relative_error(w, scaled, gram)), rel=1e-5)


def test_what_stays_keeps_all_its_bits():
    with jax.enable_x64(True):
        w = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)))
        rule = Rule("w", structures.entries(), sparsity=0.5)
        for worth in (None, {"w": jnp.abs(w)}):
            new = csp.compress({"w": w}, rule, worth=worth)["w"]
            assert new.dtype == jnp.float64
            np.testing.assert_array_equal(new[new != 0], w[new != 0])


def test_joint_budget_is_exact_in_total():
    keys = jax.random.split(jax.random.key(0), 2)
    params = {"a": jax.random.normal(keys[0], (20, 10)), "b": 3 * jax.random.normal(keys[1], (16, 16))}
    rule = Rule("[ab]", structures.entries(), sparsity=0.83, budget=budgets.global_())
    csp.verify(csp.compress(params, rule), rule)


def test_dtype_and_other_parameters_stay():
    params = {"w": jnp.ones((8, 8), jnp.bfloat16), "b": jnp.arange(3)}
    new = csp.compress(params, Rule("w", structures.n_of_m(1, 4)))
    assert new["w"].dtype == jnp.bfloat16
    assert new["b"] is params["b"]


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (Rule("w", structures.entries(), sparsity=0.5), {"gram": {"v": jnp.eye(8)}}, "gram has 'v'"),
        (Rule("w", structures.entries(), sparsity=0.5), {"solver": oneshot.admm}, "'w': admm needs"),
        (Rule("w", structures.entries(), metric=metrics.taylor(), sparsity=0.5), {}, "cannot tell taylor"),
        (Rule("w", structures.entries(), sparsity=0.5), {"gram": {"w": jnp.full((8, 8), jnp.nan)}}, "'w' has NaN"),
        (Rule("w", structures.entries(), sparsity=0.5), {"gram": {"w": jnp.eye(7)}}, r"'w' .*X.T @ X, \[in, in\]"),
        (
            Rule("w", structures.entries(), sparsity=0.5),
            {"worth": {"w": jnp.ones(8)}},
            "'w' .*one number for each entry",
        ),
        (Rule("w", structures.rank(), sparsity=0.5), {"worth": {"w": jnp.ones((8, 8))}}, "'w': a rank is chosen by"),
        (Rule("w", structures.rank(), sparsity=0.5), {"solver": oneshot.magnitude}, "'w': a rank is chosen by"),
        (
            Rule("w", structures.rows(), sparsity=0.5),
            {"gram": {"w": jnp.eye(8)}, "solver": oneshot.sparsegpt},
            "single entries",
        ),
    ],
)
def test_misuse_is_refused(rule, options, message):
    with pytest.raises(ValueError, match=message):
        csp.compress({"w": jnp.ones((8, 8))}, rule, **options)


def test_sparsegpt_of_inputs_that_never_fire_is_magnitude():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)
    rule = Rule("w", structures.entries(), sparsity=0.5)
    found = csp.compress({"w": w}, rule, gram={"w": jnp.zeros((8, 8))}, solver=oneshot.sparsegpt)
    np.testing.assert_array_equal(found["w"], csp.compress({"w": w}, rule)["w"])


def test_worth_may_be_whole_numbers():
    worth = {"w": np.arange(16).reshape(4, 4)}
    found = csp.compress({"w": jnp.ones((4, 4))}, Rule("w", structures.rows(), sparsity=0.5), worth=worth)
    assert found["w"].any(axis=1).tolist() == [False, False, True, True]
