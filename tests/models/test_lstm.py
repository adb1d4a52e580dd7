"""The LSTM's own gradient against automatic differentiation, and streaming against the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from csp.models import lstm

RNG = np.random.default_rng(0)


def arrays(T=9, B=3, H=5):
    shapes = {"g": (T, B, 4 * H), "r": (H, 4 * H), "h": (B, H), "c": (B, H)}
    return [jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in shapes.values()]


def plain(g, r, h, c):
    hs, cs = [], []
    for g_t in g:
        h, c = lstm.cell(lstm.gates(g_t + h @ r), c)
        hs.append(h)
        cs.append(c)
    return jnp.stack(hs), jnp.stack(cs)


def test_the_gradient_is_autodiffs():
    at = arrays()
    weights = [jnp.asarray(RNG.normal(size=(9, 3, 5)), jnp.float32) for _ in range(2)]

    def total(f):
        return lambda *at: sum(jnp.sum(w * x) for w, x in zip(weights, f(*at), strict=True))

    ours = jax.value_and_grad(total(lstm.recurrence), (0, 1, 2, 3))(*at)
    theirs = jax.value_and_grad(total(plain), (0, 1, 2, 3))(*at)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_cell_is_the_textbooks():
    rng = np.random.default_rng(1)
    g, c = rng.normal(size=(1, 20)), rng.normal(size=(1, 5))
    i, f, z, o = np.split(g, 4, axis=1)

    def sigma(x):
        return 1 / (1 + np.exp(-x))

    right = sigma(f) * c + sigma(i) * np.tanh(z)
    h, new = lstm.cell(lstm.gates(jnp.asarray(g, jnp.float32)), jnp.asarray(c, jnp.float32))
    assert np.allclose(new, right, atol=1e-6)
    assert np.allclose(h, sigma(o) * np.tanh(right), atol=1e-6)


@pytest.mark.parametrize("cut", [0, 1, 4, 9])
def test_two_halves_are_the_whole(cut):
    layer = lstm.LSTM(3, 5, nnx.Rngs(0))
    x = jnp.asarray(RNG.normal(size=(2, 9, 3)), jnp.float32)
    whole, last = layer(x)
    first, carry = layer(x[:, :cut])
    second, end = layer(x[:, cut:], carry)
    assert np.allclose(jnp.concatenate([first, second], 1), whole, atol=1e-6)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(end, last, strict=True))
