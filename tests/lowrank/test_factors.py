"""Laws of factors: optimal errors, on data too, balanced, the same under jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ranked import SHAPES, assert_balanced, correlated, normal, random_factors, singular_values, squared_error, tail

from csp import lowrank
from csp.lowrank import Factors


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

    @pytest.mark.parametrize("mean", [0, 300])
    def test_inputs_that_are_nearly_one_direction(self, mean):
        """In float32, where the Gram matrix has no factorisation by Cholesky."""
        rng = np.random.default_rng(0)
        x, w = rng.normal(size=(200 if mean else 1, 512)) + mean, normal(512, 6).astype(np.float32)
        factors = lowrank.factor_whitened(w, 1, jnp.asarray(x.T @ x, jnp.float32))
        wide = [np.asarray(part, np.float64) for part in factors]
        error = np.linalg.norm(x @ wide[0] @ wide[1] - x @ w)
        assert error <= 1.01 * np.sqrt(tail(x @ w, 1)) + 1e-4 * np.linalg.norm(x @ w)

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
