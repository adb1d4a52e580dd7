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


@pytest.mark.parametrize("structure", [structures.columns(), structures.heads(6), structures.blocks(48, 2)], ids=str)
@pytest.mark.parametrize("solver", [None, oneshot.trimmed])
def test_whole_columns_are_chosen_by_what_they_say(layer, structure, solver):
    """They share no output, so that the best are those of largest w^T G w, and stay as they are."""
    w, gram = layer
    rule = Rule("w", structure, sparsity=0.5)
    new = np.asarray(csp.compress({"w": w}, rule, gram={"w": gram}, solver=solver)["w"])
    w, gram = np.asarray(w, np.float64), np.asarray(gram, np.float64)
    units = structure.sizes(w.shape)
    energy = np.einsum("ij,ik,kj->j", w, gram, w).reshape(units, -1).sum(axis=1)
    best = np.repeat(energy >= np.sort(energy)[units // 2], w.shape[1] // units)
    assert np.array_equal(new, np.where(best, w, 0).astype(np.float32))


@pytest.mark.parametrize("solver", [None, oneshot.sparsegpt, oneshot.trimmed, oneshot.wanda])
def test_the_unit_of_the_inputs_says_nothing(layer, solver):
    """Nor where float32 would make infinity or zero of it."""
    w, gram = layer
    rule = Rule("w", structures.entries(), sparsity=0.5)
    grams = [np.asarray(gram, np.float64) * 2.0**n for n in (0, -200, 190)]
    new = [csp.compress({"w": w}, rule, gram={"w": gram}, solver=solver)["w"] for gram in grams]
    assert np.array_equal(new[0], new[1])
    assert np.array_equal(new[0], new[2])


def test_the_budget_holds_whatever_a_solver_finds(layer):
    w, gram = layer
    rule = Rule("w", structures.entries(), sparsity=0.5)
    csp.verify(csp.compress({"w": w}, rule, gram={"w": gram}, solver=lambda w, gram, project: w), rule)
    with pytest.raises(ValueError, match="'w': no finite weights were found"):
        csp.compress({"w": w}, rule, gram={"w": gram}, solver=lambda w, gram, project: w / 0)


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


@pytest.mark.parametrize("solver", [oneshot.sparsegpt, oneshot.wanda, None])
def test_a_layer_whose_inputs_never_fire_is_pruned_by_magnitude(solver):
    w = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)
    rule = Rule("w", structures.entries(), sparsity=0.5)
    found = csp.compress({"w": w}, rule, gram={"w": jnp.zeros((8, 8))}, solver=solver)
    np.testing.assert_array_equal(found["w"], csp.compress({"w": w}, rule)["w"])


def test_weights_in_single_precision_where_double_is_on(layer):
    w, gram = layer
    rule = Rule("w", structures.entries(), sparsity=0.5)
    single = csp.compress({"w": w}, rule, gram={"w": gram}, solver=oneshot.sparsegpt)["w"]
    with jax.enable_x64(True):
        for dtype in (np.float32, np.float64):
            given = {"w": np.asarray(gram, dtype)}
            found = csp.compress({"w": np.asarray(w)}, rule, gram=given, solver=oneshot.sparsegpt)["w"]
            assert found.dtype == jnp.float32
            np.testing.assert_allclose(found, single, atol=1e-4)


def test_worth_may_be_whole_numbers():
    worth = {"w": np.arange(16).reshape(4, 4)}
    found = csp.compress({"w": jnp.ones((4, 4))}, Rule("w", structures.rows(), sparsity=0.5), worth=worth)
    assert found["w"].any(axis=1).tolist() == [False, False, True, True]


def test_dead_inputs_are_pruned_first_whatever_the_unit_of_the_others():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(500, 32)), jnp.asarray(rng.normal(size=(32, 16)), jnp.float32)
    x[:, 16:] = 0
    for unit in (1e-3, 1.0, 1e3):
        gram = jnp.asarray(unit**2 * x.T @ x / 500, jnp.float32)
        for solver in (None, oneshot.trimmed):
            rule = Rule("w", structures.entries(), sparsity=0.5)
            found = csp.compress({"w": w}, rule, gram={"w": gram}, solver=solver)["w"]
            np.testing.assert_allclose(found, jnp.where(jnp.arange(32)[:, None] < 16, w, 0), rtol=1e-4)


@pytest.mark.parametrize("solver", [oneshot.sparsegpt, oneshot.admm, oneshot.trimmed])
def test_a_gram_matrix_in_bfloat16_does_no_harm(solver):
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.normal(size=(40, 64)), jnp.bfloat16), jnp.asarray(rng.normal(size=(64, 16)), jnp.float32)
    rounded, true = x.T @ x, x.astype(jnp.float32).T @ x.astype(jnp.float32)
    assert jnp.linalg.eigvalsh(rounded.astype(jnp.float32))[0] < -0.01
    rule, low = Rule("w", structures.entries(), sparsity=0.5), Rule("w", structures.rank(), sparsity=0.5)
    entries = csp.compress({"w": w}, rule, gram={"w": rounded}, solver=solver)
    csp.verify(entries, rule)
    known = csp.compress({"w": w}, rule, gram={"w": true}, solver=solver)
    errors = [oneshot.relative_error(w, found["w"], true) for found in (entries, known)]
    assert errors[0] < 1.5 * errors[1] + 0.01
    factored = csp.compress({"w": w}, low, gram={"w": rounded})
    csp.verify(factored, low)
    known = csp.compress({"w": w}, low, gram={"w": true})
    errors = [oneshot.relative_error(w, found["w"], true) for found in (factored, known)]
    assert errors[0] < 1.5 * errors[1] + 0.01


def test_a_joint_budget_is_shared_by_what_the_inputs_say():
    rng = np.random.default_rng(0)
    quiet = np.where(np.arange(64) < 56, 1e-3, 1.0)
    params = {name: jnp.asarray(rng.normal(size=(64, 32)), jnp.float32) for name in "ab"}
    gram = {"a": jnp.diag(jnp.asarray(quiet**2, jnp.float32)), "b": jnp.eye(64)}
    rule = Rule(".", structures.entries(), metric=metrics.activation(), sparsity=0.5, budget=budgets.global_())
    found = csp.compress(params, rule, gram=gram)
    worth = {name: jnp.abs(w) * jnp.sqrt(jnp.diag(gram[name]))[:, None] for name, w in params.items()}
    told = csp.compress(params, rule, worth=worth)
    for name in params:
        np.testing.assert_array_equal(found[name] != 0, told[name] != 0)
    assert csp.density(found)["a"] < 0.2
    assert csp.density(csp.compress(params, rule, gram=gram, solver=oneshot.magnitude))["a"] > 0.4


def test_what_is_chosen_by_worth_is_fitted_to_the_inputs(layer):
    w, gram = layer
    rule, worth = Rule("w", structures.entries(), sparsity=0.5), {"w": jnp.abs(w)}
    plain, fitted = (csp.compress({"w": w}, rule, worth=worth, **more)["w"] for more in ({}, {"gram": {"w": gram}}))
    np.testing.assert_array_equal(plain != 0, fitted != 0)
    errors = [oneshot.relative_error(w, found, gram) for found in (fitted, plain)]
    assert errors[0] < 0.5 * errors[1]


E8, HALF = jnp.eye(8), Rule("enc/w", structures.entries(), sparsity=0.5)


@pytest.mark.parametrize(
    ("w", "rule", "options", "message"),
    [
        (jnp.ones((8, 8)).at[0, 0].set(jnp.nan), HALF, {}, "'enc/w' has NaN or infinite weights"),
        (jnp.ones((8, 8)).at[0, 0].set(jnp.inf), HALF, {"gram": {"enc/w": E8}}, "'enc/w' has NaN or infinite weights"),
        (E8, HALF, {"gram": {"enc/w": E8 - 2 * jnp.diag(jnp.arange(8) < 3)}}, "'enc/w' is not X.T @ X"),
        (E8, HALF, {"gram": {"enc/w": E8.at[0, 1].set(1.0)}}, "'enc/w' is not X.T @ X"),
        (E8, HALF, {"gram": {"enc/w": E8 + 1j}}, "'enc/w' is complex"),
        (E8, HALF, {"worth": {"enc/w": -E8}}, "worth of 'enc/w' is negative"),
        (E8, HALF, {"worth": {"enc/w": E8}, "solver": oneshot.magnitude}, "'enc/w': magnitude is a criterion"),
        (
            E8,
            Rule("enc/w", structures.entries(), metric=metrics.fisher(), sparsity=0.5),
            {"gram": {"enc/w": E8}, "solver": oneshot.admm},
            "'enc/w': admm is a criterion",
        ),
    ],
)
def test_what_would_be_ignored_or_give_nan_is_refused(w, rule, options, message):
    with pytest.raises(ValueError, match=message):
        csp.compress({"enc": {"w": w}}, rule, **options)
