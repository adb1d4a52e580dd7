"""Is what is pruned exactly +0.0, and what lives never zero, in every pair of precisions?"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trial

import csp
from csp import methods, structures

DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)
PAIRS = [pytest.param(p, u, id=f"{p.__name__}-{u.__name__}") for p, u in itertools.product(DTYPES, DTYPES)]
STEPS = 8


def moving_near_zero(dtype) -> optax.GradientTransformation:
    """An optimizer that would land every weight on zero or on almost zero, as near as its updates can say."""
    goal = jnp.tile(jnp.array([0.0, 1e-4, -1e-7]), 32).reshape(8, 12)

    def update(_, params):
        return jax.tree.map(lambda w: (goal - w.astype(jnp.float32)).astype(dtype), params)

    return optax.stateless(update)


def run(inner, w, method=None, steps: int = STEPS) -> list[np.ndarray]:
    """The weights after each step; the update leaves the compiled step before it is applied, rounded as its dtype."""
    tx = csp.sparsify(inner, csp.Rule("w", structures.entries(), sparsity=0.5), method=method or methods.static(steps))
    params = {"w": w}
    state = tx.init(params)
    update = trial.compiled(tx.update, params, state, params)
    history = []
    for _ in range(steps):
        updates, state = update(params, state, params)
        params = optax.apply_updates(params, updates)
        history.append(np.asarray(params["w"]))
    return history


def weights(dtype) -> jax.Array:
    """Of both signs, over many magnitudes, some beyond what the optimizer's updates resolve."""
    exponent = jnp.linspace(-6, 1, 96).reshape(8, 12)
    sign = jnp.where(jnp.arange(96).reshape(8, 12) % 2 == 0, 1, -1)
    return (sign * 10.0**exponent).astype(dtype)


@pytest.mark.parametrize(("dtype", "update"), PAIRS)
def test_survivors_that_are_sent_to_zero_stop_short_of_it(dtype, update):
    """Whether they are sent there exactly or lost to rounding, and again and again."""
    for w in run(moving_near_zero(update), weights(dtype)):
        assert np.sum(w != 0) == 48
        assert not np.signbit(w[w == 0]).any()


@pytest.mark.parametrize(("dtype", "update"), PAIRS)
def test_the_pruned_are_positive_zeros(dtype, update):
    inner = optax.chain(optax.sgd(1e-2), trial.cast_to(update))
    for w in run(inner, -weights(dtype), methods.gradual(STEPS))[-3:]:
        assert np.sum(w == 0) == 48
        assert not np.signbit(w[w == 0]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_negative_zeros_become_positive(dtype):
    w = jnp.full((4, 4), -0.0, dtype)
    for after in run(optax.sgd(0.0), w, methods.gradual(STEPS)):
        assert not np.signbit(after[after == 0]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_of_zeros_without_gradients_still_has_a_support(dtype):
    """Which trains as soon as gradients come; it is held at the least normal numbers until then."""
    last = run(optax.sgd(0.1), jnp.zeros((4, 4), dtype))[-1]
    assert np.sum(last != 0) == 8
    assert np.abs(last.astype(np.float32)).max() <= float(jnp.finfo(dtype).tiny)


@pytest.mark.parametrize("dtype", DTYPES)
def test_survivors_land_where_the_optimizer_sends_them(dtype):
    """To the rounding of the weights, if updates have their precision."""
    w = weights(dtype)
    after = run(optax.sgd(0.25), w, steps=1)[0]
    alive = after != 0
    expected = np.asarray(w, np.float32) * 0.75
    np.testing.assert_allclose(after[alive].astype(np.float32), expected[alive], rtol=2 * float(jnp.finfo(dtype).eps))
