"""Selection by size and sums: what reads an array in place, where another one was written."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import csp
from csp import methods, select, structures

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 1e-40, -1e-40, 2e-45, np.inf, -np.inf, 3.5, -3.5]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("draw", ["special", "few", "many"])
@pytest.mark.parametrize(
    ("shape", "axes"), [((40, 50), None), ((40, 50), (0,)), ((40, 50), (1,)), ((30, 4), (1,)), ((7,), 0)]
)
def test_by_size_is_by_magnitudes(dtype, draw, shape, axes):
    """Whose cuts are compared with sorting elsewhere. Subnormal numbers are told apart, and ties of both signs tie."""
    rng = np.random.default_rng(0)
    x = {"special": rng.choice(SPECIAL, shape), "few": rng.integers(-3, 4, shape), "many": rng.normal(size=shape)}[draw]
    x = jnp.asarray(x.astype(dtype))
    competing = x.size if axes is None else np.prod([shape[a] for a in np.atleast_1d(axes)])
    for k in sorted({0, 1, int(competing) // 3, int(competing) - 1, int(competing)}):
        plain = select.cut(jnp.abs(x), k, axes)
        cut = select.cut(x, k, axes, of_size=True)
        np.testing.assert_array_equal(select.larger(x, cut, axes), select.above(jnp.abs(x), plain, axes))
        assert np.all(np.sum(select.larger(x, cut, axes), axes) == k)


@pytest.mark.parametrize(
    ("method", "inner", "most"),
    [
        (methods.gradual(100), optax.sgd(0.1), 0.5),
        (methods.compressed_sensing(100), optax.adam(0.1), 1.2),
        (methods.compressed_sensing(100, methods.trimmed()), optax.sgd(0.1), 1.2),
        (methods.rigl(100), optax.sgd(0.1), 1.2),
    ],
    ids=["by size", "dual", "trimmed", "rigl"],
)
def test_a_refresh_needs_one_array(method, inner, most):
    """Of several parameters no more than of one: by size none, else worths, and an eighth of that for counts."""
    params = {f"layer{i}": jnp.ones((512, 1024)) * i for i in range(3)}
    rule = csp.Rule(".*", structures.entries(), sparsity=0.9)
    tx = csp.sparsify(inner, rule, method=method)

    def step(carry, gradients):
        updates, state = tx.update(gradients, carry[1], carry[0])
        return optax.apply_updates(carry[0], updates), state

    compiled = jax.jit(step, donate_argnums=0).lower((params, tx.init(params)), params).compile()
    scratch = compiled.memory_analysis().temp_size_in_bytes
    assert scratch < most * params["layer0"].nbytes


@pytest.mark.parametrize(
    ("shape", "axes"), [((40, 50), None), ((40, 50), (0,)), ((6, 40, 5), (-2,)), ((256, 512), None)]
)
def test_the_largest_of_several_arrays_are_those_of_each(shape, axes):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, *shape)).astype(np.float32)
    for found, of in zip(jax.jit(lambda *z: select.largest(*z, axes=axes))(x, y), (x, y), strict=True):
        np.testing.assert_array_equal(found, np.max(of, axes, keepdims=True))
    y[(0,) * len(shape)] = np.nan
    least = [np.asarray(top).reshape(-1)[0] for top in select.largest(x, y, axes=axes)]
    assert np.isnan(least).all()


def test_many_millions_of_numbers_are_added_in_one_pass():
    """One by one, ones in float32 add up to 2^24 and no further."""
    ones = jnp.ones((5000, 8192), jnp.float32)
    half = jnp.where(jnp.arange(8192) % 2 == 0, ones, 0)
    assert [float(x) for x in jax.jit(select.sums)(half, ones)] == [ones.size / 2, ones.size]
    assert [float(x) for x in select.sums(jnp.float32(2.0), jnp.float32(3.0))] == [2.0, 3.0]
