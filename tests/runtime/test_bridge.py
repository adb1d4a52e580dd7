"""The kernels under jit, vmap and beside other operations."""

import jax
import jax.numpy as jnp
import matrices
import numpy as np
import pytest

from csp.runtime import bridge


@pytest.mark.parametrize("values", ["int8", "float32"])
def test_a_product_under_jit_is_that_of_the_matrix(values):
    rng = np.random.default_rng(0)
    w = np.where(matrices.keep("12:128", 256, 48, rng), rng.normal(size=(256, 48)), 0).astype(np.float32)
    x, bias = rng.normal(size=(3, 5, 256)).astype(np.float32), rng.normal(size=48).astype(np.float32)
    f = bridge.product(jnp.asarray(w), bias, values=values)
    expected = x @ w + bias
    step = np.abs(x).max() / 127 / 2 * np.abs(w).sum(0).max() + np.abs(w).max() / 127 / 2 * np.abs(x).sum(-1).max()
    bound = step if values == "int8" else 1e-5
    assert np.abs(jax.jit(lambda x: 2 * f(x))(x) / 2 - expected).max() <= bound
    assert np.array_equal(jax.jit(jax.vmap(f))(x), jax.jit(f)(x))


def test_what_does_not_fit_is_refused():
    f = bridge.product(np.ones((8, 4), np.float32))
    with pytest.raises(ValueError, match="where 8 inputs are expected"):
        f(jnp.ones((2, 7)))
    with pytest.raises(ValueError, match="'int2' are none of"):
        bridge.product(np.ones((8, 4), np.float32), values="int2")
