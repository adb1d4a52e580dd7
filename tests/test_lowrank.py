"""Laws of csp.lowrank: optimal errors, balanced factors, exact budgets, and the ladder that joins them."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp import lowrank
from csp.lowrank import Factors

SHAPES = [(9, 6), (6, 9), (2, 3, 8, 5)]
RUNGS = (0.8, 0.5, 0.2)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def correlated(samples, n_in, seed=1):
    """Inputs whose Gram matrix has a condition number of about 1e5."""
    return normal(samples, n_in, seed=seed) * np.geomspace(3, 0.01, n_in) @ normal(n_in, n_in, seed=seed + 1)


def random_factors(*shape, k, seed=0):
    *lead, n_in, n_out = shape
    return Factors(jnp.asarray(normal(*lead, n_in, k, seed=seed)), jnp.asarray(normal(*lead, k, n_out, seed=seed + 1)))


def singular_values(w):
    return np.linalg.svd(w, compute_uv=False)


def tail(w, rank):
    return np.sum(singular_values(w)[..., rank:] ** 2, -1)


def squared_error(w, factors, x=None):
    gap = np.asarray(w) - np.asarray(lowrank.dense(factors))
    return np.sum((gap if x is None else x @ gap) ** 2, (-2, -1))


def assert_balanced(factors, atol=1e-10):
    s = singular_values(lowrank.dense(factors))[..., : factors.rank]
    diagonal = s[..., None] * np.eye(factors.rank)
    np.testing.assert_allclose(factors.u.mT @ factors.u, diagonal, atol=atol)
    np.testing.assert_allclose(factors.v @ factors.v.mT, diagonal, atol=atol)


def like(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


class TestFactors:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_plain_leaves_the_eckart_young_tail(self, x64, shape):
        w = normal(*shape)
        np.testing.assert_allclose(lowrank.spectrum(w), singular_values(w), atol=1e-12)
        for rank in (1, 3, min(shape[-2:])):
            factors = lowrank.factor(w, rank)
            np.testing.assert_allclose(squared_error(w, factors), tail(w, rank), atol=1e-12)
            assert (factors.rank, factors.shape) == (rank, shape)
            assert_balanced(factors)

    @pytest.mark.parametrize("samples", [200, 12, 5], ids=["full", "square", "singular"])
    def test_whitened_attains_the_optimum_on_data(self, x64, samples):
        w, x = normal(12, 10), correlated(samples, 12)
        gram = x.T @ x
        np.testing.assert_allclose(
            lowrank.spectrum(w, gram)[: min(samples, 10)], singular_values(x @ w)[:10], rtol=1e-4, atol=1e-4
        )
        for rank in (1, 4, 9):
            factors = lowrank.factor_whitened(w, rank, gram)
            np.testing.assert_allclose(squared_error(w, factors, x), tail(x @ w, rank), rtol=1e-6, atol=1e-8)
            assert_balanced(factors)

    def test_plain_is_far_from_the_optimum_on_correlated_data(self, x64):
        w, x = normal(32, 24), correlated(500, 32)
        gaps = [squared_error(w, lowrank.factor(w, r), x) / tail(x @ w, r) for r in (4, 8, 12)]
        assert min(gaps) > 3
        assert max(gaps) > 50

    def test_whitened_is_plain_for_white_inputs_and_ignores_the_scale_of_gram(self, x64):
        w, x = normal(12, 10), correlated(50, 12)
        np.testing.assert_allclose(
            lowrank.dense(lowrank.factor_whitened(w, 3, 7 * np.eye(12))),
            lowrank.dense(lowrank.factor(w, 3)),
            atol=1e-12,
        )
        one, other = (lowrank.factor_whitened(w, 3, c * x.T @ x) for c in (1e-6, 1e6))
        np.testing.assert_allclose(lowrank.dense(one), lowrank.dense(other), atol=1e-9)

    def test_scaled_attains_the_weighted_optimum(self, x64):
        w, scale = normal(12, 10), np.geomspace(1e-4, 10, 12)
        for rank in (1, 4, 6):
            factors = lowrank.factor_scaled(w, rank, scale)
            np.testing.assert_allclose(
                squared_error(w, factors, np.diag(scale)),
                tail(scale[:, None] * w, rank),
                rtol=1e-9,
                atol=1e-12,
            )
        diagonal = lowrank.factor_whitened(w, 3, np.diag(scale**2))
        np.testing.assert_allclose(
            lowrank.dense(lowrank.factor_scaled(w, 3, scale)), lowrank.dense(diagonal), atol=1e-9
        )

    def test_inputs_without_any_data_still_give_finite_factors(self):
        w = jnp.asarray(normal(12, 10), jnp.float32)
        for gram in (jnp.zeros((12, 12)), jnp.zeros(12)):
            factors = lowrank.factor_whitened(w, 3, gram)
            np.testing.assert_allclose(squared_error(w, factors), tail(w, 3), rtol=1e-3)

    def test_whitened_in_float32_survives_a_rank_deficient_gram(self):
        w, x = normal(256, 64).astype(np.float32), (normal(40, 256) + 5).astype(np.float32)
        factors = lowrank.factor_whitened(w, 8, x.T @ x)
        assert squared_error(w, factors, x) <= 1.001 * tail((x @ w).astype(np.float64), 8)

    @pytest.mark.parametrize("shape", [(300, 200), (2, 120, 150)])
    def test_randomised_is_close_to_the_optimum(self, shape):
        w = normal(*shape).astype(np.float32)
        error = squared_error(w, lowrank.factor_randomised(w, 12))
        assert np.all(error >= tail(w, 12) * (1 - 1e-5))
        assert np.all(error <= tail(w, 12) * 1.01)

    def test_randomised_is_exact_when_the_spectrum_ends(self, x64):
        w = np.asarray(lowrank.dense(random_factors(200, 150, k=5)))
        factors = lowrank.factor_randomised(w, 5)
        np.testing.assert_allclose(lowrank.dense(factors), w, atol=1e-10)
        assert_balanced(factors)

    def test_apply_and_dense_take_matrices_and_factors_alike(self, x64):
        x, w = normal(4, 9), normal(9, 6)
        factors = lowrank.factor(w, 6)
        np.testing.assert_allclose(lowrank.apply(x, factors), lowrank.apply(x, w), atol=1e-12)
        np.testing.assert_allclose(lowrank.dense(factors), lowrank.dense(w), atol=1e-12)


class TestTruncate:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_equals_factoring_the_product(self, x64, shape):
        factors = random_factors(*shape, k=4)
        w = np.asarray(lowrank.dense(factors))
        np.testing.assert_allclose(lowrank.spectrum(factors), singular_values(w)[..., :4], atol=1e-10)
        for rank in (1, 3, 4):
            smaller = lowrank.truncate(factors, rank)
            np.testing.assert_allclose(lowrank.dense(smaller), lowrank.dense(lowrank.factor(w, rank)), atol=1e-10)
            assert_balanced(smaller)

    def test_whitened_attains_the_optimum_on_data(self, x64):
        factors, x = random_factors(12, 10, k=6), correlated(100, 12)
        w = np.asarray(lowrank.dense(factors))
        np.testing.assert_allclose(lowrank.spectrum(factors, x.T @ x), singular_values(x @ w)[:6], rtol=1e-6)
        for rank in (1, 4, 6):
            smaller = lowrank.truncate_whitened(factors, rank, x.T @ x)
            np.testing.assert_allclose(squared_error(w, smaller, x), tail(x @ w, rank), rtol=1e-6, atol=1e-8)
            assert_balanced(smaller)

    def test_step_by_step_equals_at_once(self, x64):
        w, gram = normal(12, 10), correlated(100, 12).T @ correlated(100, 12)
        plain, whitened = lowrank.factor(w, 6), lowrank.factor_whitened(w, 6, gram)
        for rank in (4, 1):
            plain, whitened = lowrank.truncate(plain, rank), lowrank.truncate_whitened(whitened, rank, gram)
            np.testing.assert_allclose(lowrank.dense(plain), lowrank.dense(lowrank.factor(w, rank)), atol=1e-10)
            at_once = lowrank.factor_whitened(w, rank, gram)
            np.testing.assert_allclose(lowrank.dense(whitened), lowrank.dense(at_once), atol=1e-9)

    def test_balancing_keeps_the_matrix(self, x64):
        factors = Factors(1e3 * jnp.asarray(normal(8, 3)), 1e-3 * jnp.asarray(normal(3, 6)))
        balanced = lowrank.truncate(factors, 3)
        np.testing.assert_allclose(lowrank.dense(balanced), lowrank.dense(factors), atol=1e-10)
        assert_balanced(balanced)

    @pytest.mark.parametrize("lead", [(), (3,)])
    def test_the_matrix_is_never_formed(self, lead):
        m, n, k = 37, 29, 5
        factors = Factors(jnp.ones((*lead, m, k)), jnp.ones((*lead, k, n)))
        for function, *data in (
            (lambda f: lowrank.truncate(f, 2),),
            (lowrank.spectrum,),
            (lambda f, g: lowrank.truncate_whitened(f, 2, g), jnp.ones((*lead, m, m))),
            (lowrank.spectrum, jnp.ones((*lead, m, m))),
        ):
            shapes = set(intermediate_shapes(jax.make_jaxpr(function)(factors, *data).jaxpr))
            assert (*lead, m, k) in shapes
            assert not {shape for shape in shapes if m in shape and n in shape}

    def test_the_check_above_sees_a_matrix_that_is_formed(self):
        factors = Factors(jnp.ones((37, 5)), jnp.ones((5, 29)))
        assert (37, 29) in intermediate_shapes(jax.make_jaxpr(lowrank.dense)(factors).jaxpr)


def intermediate_shapes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (var.aval.shape for var in equation.outvars)
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from intermediate_shapes(inner)


OPERATIONS = {
    "factor": lambda w, gram: lowrank.factor(w, 3),
    "whitened": lambda w, gram: lowrank.factor_whitened(w, 3, gram),
    "diagonal": lambda w, gram: lowrank.factor_whitened(w, 3, jnp.diagonal(gram, axis1=-2, axis2=-1)),
    "scaled": lambda w, gram: lowrank.factor_scaled(w, 3, jnp.diagonal(gram, axis1=-2, axis2=-1)),
    "truncate": lambda w, gram: lowrank.truncate(Factors(w[..., :4], w[..., :4, :]), 3),
    "truncate_whitened": lambda w, gram: lowrank.truncate_whitened(Factors(w[..., :4], w[..., :4, :]), 3, gram),
}


@pytest.mark.parametrize("name", OPERATIONS)
class TestTransformations:
    def data(self, dtype):
        x = normal(2, 30, 8, seed=5)
        return jnp.asarray(normal(2, 8, 6), dtype), jnp.asarray(x.swapaxes(-1, -2) @ x, dtype)

    def test_jit_vmap_and_leading_axes_agree(self, x64, name):
        operation, (w, gram) = OPERATIONS[name], self.data(jnp.float64)
        batched = lowrank.dense(operation(w, gram))
        one_by_one = jnp.stack([lowrank.dense(operation(*pair)) for pair in zip(w, gram, strict=True)])
        np.testing.assert_allclose(batched, one_by_one, atol=1e-10)
        np.testing.assert_allclose(lowrank.dense(jax.jit(operation)(w, gram)), batched, atol=1e-10)
        np.testing.assert_allclose(lowrank.dense(jax.vmap(operation)(w, gram)), batched, atol=1e-10)

    @pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
    def test_half_precision_computes_in_float32(self, name, dtype):
        operation, (w, gram) = OPERATIONS[name], self.data(dtype)
        got = operation(w, gram)
        expected = operation(w.astype(jnp.float32), gram.astype(jnp.float32))
        for half, single in zip(got, expected, strict=True):
            assert (half.dtype, single.dtype) == (dtype, jnp.float32)
            np.testing.assert_array_equal(half, single.astype(dtype))


sides = st.integers(1, 40)


class TestRankFor:
    @given(sides, sides, st.floats(0, 0.99))
    def test_is_the_largest_rank_that_saves_enough(self, n_in, n_out, saving):
        kept = (1 - saving) * n_in * n_out
        try:
            rank = lowrank.rank_for((n_in, n_out), saving)
        except ValueError:
            rank = 0
        assert rank * (n_in + n_out) <= kept + 1e-6
        assert (rank + 1) * (n_in + n_out) > kept - 1e-6

    def test_counts_in_decimals(self):
        assert lowrank.rank_for((20, 20), 0.9) == 1
        assert lowrank.rank_for((3, 20, 20), 0.7) == 3

    @given(sides, sides, st.integers(1, 40))
    def test_worthwhile_is_fewer_numbers(self, n_in, n_out, rank):
        assert lowrank.worthwhile((n_in, n_out), rank) == (rank * (n_in + n_out) < n_in * n_out)

    @pytest.mark.parametrize(
        ("shape", "saving", "match"), [((8, 8), 0.8, r"rank 1 saves 0\.7500"), ((8, 8), 1.0, "outside")]
    )
    def test_says_what_can_be_saved(self, shape, saving, match):
        with pytest.raises(ValueError, match=match):
            lowrank.rank_for(shape, saving)


@st.composite
def budget_problems(draw):
    shapes = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3))
    dtypes = [draw(st.sampled_from([jnp.float32, jnp.bfloat16])) for _ in shapes]
    tensors = {
        f"{i}/kernel": like(*shape, dtype=dtype) for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    }
    seed = draw(st.integers(0, 1000))
    spectra = {path: singular_values(normal(*x.shape, seed=seed + i)) for i, (path, x) in enumerate(tensors.items())}
    floor, total = (
        sum(stored(x, 1) for x in tensors.values()),
        sum(stored(x, min(x.shape)) for x in tensors.values()),
    )
    return spectra, tensors, draw(st.integers(floor, total))


def stored(tensor, rank):
    *lead, n_in, n_out = tensor.shape
    return math.prod(lead) * min(rank * (n_in + n_out), n_in * n_out) * tensor.dtype.itemsize


def energy(spectra, ranks):
    return sum(float(np.sum(s[: ranks[path]] ** 2)) for path, s in spectra.items())


class TestRanksForBudget:
    @settings(max_examples=200, deadline=None)
    @given(budget_problems())
    def test_stays_in_the_budget_and_no_further_rank_fits(self, problem):
        spectra, tensors, budget = problem
        ranks = lowrank.ranks_for_budget(spectra, tensors, budget)
        spent = sum(stored(tensors[path], rank) for path, rank in ranks.items())
        assert spent <= budget
        for path, rank in ranks.items():
            full = min(tensors[path].shape)
            assert rank == full or lowrank.worthwhile(tensors[path].shape, rank)
            if rank < full:
                assert spent - stored(tensors[path], rank) + stored(tensors[path], rank + 1) > budget

    @settings(max_examples=200, deadline=None)
    @given(budget_problems())
    def test_energy_against_brute_force(self, problem):
        spectra, tensors, budget = problem
        ranks = lowrank.ranks_for_budget(spectra, tensors, budget)
        if any(rank == min(tensors[path].shape) for path, rank in ranks.items()):
            return
        choices = [[r for r in range(1, 7) if lowrank.worthwhile(x.shape, r)] for x in tensors.values()]
        best = max(
            energy(spectra, dict(zip(tensors, chosen, strict=True)))
            for chosen in itertools.product(*choices)
            if sum(stored(x, r) for x, r in zip(tensors.values(), chosen, strict=True)) <= budget
        )
        missed = [
            (spectra[path][rank] ** 2 / stored(tensors[path], 1), spectra[path][rank] ** 2)
            for path, rank in ranks.items()
        ]
        assert energy(spectra, ranks) <= best + 1e-12
        assert best <= energy(spectra, ranks) + max(missed)[1] + 1e-12

    @pytest.mark.parametrize("units", [3, 6, 8.9])
    def test_equal_shapes_are_optimal(self, units):
        tensors = {name: like(12, 12) for name in "abc"}
        spectra = {name: 2.0 ** (-np.arange(12) / scale) for name, scale in zip("abc", (1, 2, 3), strict=True)}
        ranks = lowrank.ranks_for_budget(spectra, tensors, int(units * 4 * 24))
        best = max(
            energy(spectra, dict(zip("abc", chosen, strict=True)))
            for chosen in itertools.product(range(1, 6), repeat=3)
            if sum(chosen) <= units
        )
        assert sum(ranks.values()) == int(units)
        assert energy(spectra, ranks) == pytest.approx(best)

    def test_a_batch_costs_and_counts_as_its_sum(self):
        s = singular_values(normal(3, 9, 8))
        pooled = np.sqrt(np.sum(s**2, 0))
        for budget in range(300, 864, 50):
            batched = lowrank.ranks_for_budget({"w": s}, {"w": like(3, 9, 8)}, budget)
            assert batched == lowrank.ranks_for_budget({"w": pooled}, {"w": like(9, 8)}, budget // 3)

    def test_a_short_spectrum_bounds_the_rank(self):
        assert lowrank.ranks_for_budget({"w": np.ones(2)}, {"w": like(20, 20)}, 1600) == {"w": 2}
        assert lowrank.ranks_for_budget({"w": np.ones(20)}, {"w": like(20, 20)}, 1600) == {"w": 20}

    @pytest.mark.parametrize(
        ("spectra", "budget", "match"),
        [
            ({"w": np.ones(8)}, 60, r"64 bytes: the smallest possible fraction of the dense bytes is 0\.25"),
            ({"v": np.ones(8)}, 99, r"\['v', 'w'\]"),
            ({"w": np.ones(9)}, 99, r"1 to 8 singular values, not 9"),
            ({"w": np.full(8, np.nan)}, 99, r"w has no finite singular values"),
        ],
    )
    def test_bad_input(self, spectra, budget, match):
        with pytest.raises(ValueError, match=match):
            lowrank.ranks_for_budget(spectra, {"w": like(8, 8)}, budget)


def leave(params, fraction):
    return params


def model(seed=0):
    return {
        "encoder": [
            {"kernel": jnp.asarray(normal(12, 10, seed=seed + i), jnp.float32), "bias": jnp.ones(10)} for i in range(2)
        ],
        "taps": jnp.asarray(normal(3, 12, 10, seed=seed + 2), jnp.bfloat16),
        "output": jnp.asarray(normal(10, 8, seed=seed + 3), jnp.float32),
    }


class TestLadder:
    def test_every_rung_keeps_its_budget_and_touches_nothing_else(self):
        params = model()
        total = 4 * 2 * 12 * 10 + 2 * 3 * 12 * 10
        previous = None
        for rung, fraction in zip(lowrank.ladder(params, RUNGS, leave, "encoder/.*|taps"), RUNGS, strict=True):
            assert rung.fraction == fraction
            assert rung.bytes <= fraction * total
            selected = [layer["kernel"] for layer in rung.params["encoder"]] + [rung.params["taps"]]
            assert rung.bytes == sum(x.nbytes for x in jax.tree.leaves(selected))
            assert list(rung.ranks) == ["encoder/0/kernel", "encoder/1/kernel", "taps"]
            for w, rank in zip(selected, rung.ranks.values(), strict=True):
                assert w.rank == rank if isinstance(w, Factors) else rank == min(w.shape[-2:])
            assert rung.params["taps"].dtype == jnp.bfloat16
            assert rung.params["output"] is params["output"]
            assert rung.params["encoder"][0]["bias"] is params["encoder"][0]["bias"]
            if previous:
                assert rung.bytes < previous.bytes
                assert all(rung.ranks[path] <= rank for path, rank in previous.ranks.items())
            previous = rung

    @pytest.mark.parametrize("whitened", [False, True])
    def test_without_training_it_equals_truncation_at_once(self, x64, whitened):
        params = {name: jnp.asarray(normal(12, 10, seed=i)) for i, name in enumerate("ab")}
        x = correlated(60, 12)
        gram = {"a": x.T @ x, "b": np.sum(x**2, 0)} if whitened else None
        for rung in lowrank.ladder(params, RUNGS, leave, "[ab]", gram):
            for path, rank in rung.ranks.items():
                at_once = (
                    lowrank.factor_whitened(params[path], rank, gram[path])
                    if gram
                    else lowrank.factor(params[path], rank)
                )
                if rank < 10:
                    np.testing.assert_allclose(lowrank.dense(rung.params[path]), lowrank.dense(at_once), atol=1e-8)

    def test_ranks_do_not_depend_on_the_scale_of_a_tensor(self):
        params = {name: jnp.asarray(normal(12, 10, seed=i), jnp.float32) for i, name in enumerate("ab")}
        scaled = params | {"b": 1000 * params["b"]}
        for one, other in zip(*(lowrank.ladder(p, RUNGS, leave, ".") for p in (params, scaled)), strict=True):
            assert one.ranks == other.ranks

    def test_embeddings_outputs_and_depthwise_kernels_are_left_alone_by_default(self):
        params = {"embedding": jnp.ones((30, 8)), "depthwise": jnp.ones((5, 1, 8)), **model()}
        rung = next(lowrank.ladder(params, (0.5,), leave))
        assert set(rung.ranks) == {"encoder/0/kernel", "encoder/1/kernel", "taps"}

    def test_a_ladder_can_be_taken_up_again(self, x64):
        params = {"w": jnp.asarray(normal(12, 10))}
        whole = list(lowrank.ladder(params, RUNGS, leave, "w"))
        again = list(lowrank.ladder(whole[0].params, RUNGS[1:], leave, "w"))
        for one, other in zip(whole[1:], again, strict=True):
            assert (one.ranks, one.bytes) == (other.ranks, other.bytes)
            np.testing.assert_allclose(lowrank.dense(one.params["w"]), lowrank.dense(other.params["w"]), atol=1e-10)

    def test_fine_tuning_a_student_of_a_linear_teacher(self):
        x = correlated(256, 24)
        x = jnp.asarray(x / np.std(x, 0), jnp.float32)
        y = x @ jnp.asarray(normal(24, 16, seed=9), jnp.float32)

        def loss(params):
            return jnp.mean(jnp.square(lowrank.apply(x, params["kernel"]) - y))

        @jax.jit
        def tune(params, fraction):
            tx = optax.adam(optax.cosine_decay_schedule(3e-2, 500))

            def step(carry, _):
                params, state = carry
                updates, state = tx.update(jax.grad(loss)(params), state)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(step, (params, tx.init(params)), length=500)[0][0]

        params = {"kernel": jnp.linalg.lstsq(x, y)[0]}
        untuned = [float(loss(rung.params)) for rung in lowrank.ladder(params, RUNGS, leave, "kernel")]
        tuned = list(lowrank.ladder(params, RUNGS, tune, "kernel"))
        losses = [float(loss(rung.params)) for rung in tuned]
        optimum = [float(tail(np.asarray(y), rung.ranks["kernel"])) / y.size for rung in tuned]
        assert (untuned, losses) == (sorted(untuned), sorted(losses))
        for bound, after, before in zip(optimum, losses, untuned, strict=True):
            assert 0.99 * bound - 1e-6 <= after < 0.8 * before

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"rungs": (0.5, 0.8)}, "must descend"),
            ({"rungs": (0.5, 0.5)}, "must descend"),
            ({"rungs": (1.0, 0.5)}, r"each in \(0, 1\)"),
            ({"rungs": ()}, r"each in \(0, 1\)"),
            ({"rungs": (0.5, 0.05)}, r"the smallest possible fraction of the dense bytes is 0\.1"),
            ({"select": "encodr/.*"}, "matches no matrix; the nearest are encoder/"),
            ({"select": ".*bias"}, "matches no matrix"),
            ({"gram": {"encoder/0/kernel": jnp.ones(12)}}, r"no Gram matrix for \['encoder/1/kernel'\]"),
        ],
    )
    def test_bad_arguments_are_refused_at_the_call(self, changes, match):
        arguments = {"rungs": RUNGS, "tune": leave, "select": "encoder/.*"} | changes
        with pytest.raises(ValueError, match=match):
            lowrank.ladder(model(), **arguments)

    def test_a_tune_that_returns_something_else_is_refused(self):
        with pytest.raises(ValueError, match="tune must return the parameters"):
            next(lowrank.ladder(model(), RUNGS, lambda params, fraction: None, "encoder/.*"))

    def test_factors_that_save_nothing_are_refused(self):
        with pytest.raises(ValueError, match=r"rank 5 of 'w' .* save nothing"):
            lowrank.ladder({"w": random_factors(8, 8, k=5)}, RUNGS, leave, "w")


class TestBadInput:
    @pytest.mark.parametrize("rank", [0, -1, 7])
    @pytest.mark.parametrize("function", [lowrank.factor, lowrank.factor_randomised])
    def test_rank(self, function, rank):
        with pytest.raises(ValueError, match=rf"rank {rank} is outside 1 to 6"):
            function(normal(8, 6), rank)

    def test_rank_above_that_of_the_factors(self):
        with pytest.raises(ValueError, match="rank 5 is outside 1 to 4"):
            lowrank.truncate(random_factors(8, 6, k=4), 5)
        with pytest.raises(ValueError, match="rank 7 is outside 1 to 6"):
            lowrank.truncate_whitened(random_factors(8, 6, k=9), 7, np.ones(8))

    def test_gram(self):
        with pytest.raises(ValueError, match=r"shape \(6, 6\) does not fit a matrix with inputs \(8,\)"):
            lowrank.factor_whitened(normal(8, 6), 2, np.eye(6))

    @pytest.mark.parametrize("dtype", [np.int32, np.complex64])
    def test_dtype(self, dtype):
        with pytest.raises(ValueError, match="real floating point numbers"):
            lowrank.factor(np.ones((8, 6), dtype), 2)

    def test_vector(self):
        with pytest.raises(ValueError, match=r"shape \(8,\) is no matrix"):
            lowrank.factor(np.ones(8, np.float32), 2)
