"""Does a training care how it is run: compiled or not, as a scan, several seeds at once, settled?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trial

import csp

STEPS = 5
SEEDS = (3, 4)
LEAVES = {path: trial.LEAVES[path] for path in ("entries", "two_of_four")}


def trained(name: str, seed) -> dict[str, jax.Array]:
    method = trial.make_method(name, STEPS, every=1)
    tx = csp.sparsify(optax.adam(trial.LEARNING_RATE), *trial.make_rules(LEAVES, 2), method=method)
    return trial.train(tx, trial.make_params(LEAVES, seed), STEPS)[0]


@pytest.mark.parametrize("name", trial.METHODS)
def test_compiled_scanned_and_over_seeds_at_once_is_step_by_step(name):
    seeds = jnp.asarray(SEEDS)
    together = trial.compiled(jax.vmap(functools.partial(trained, name)), seeds)(seeds)
    for i, seed in enumerate(SEEDS):
        with jax.disable_jit():
            alone = trained(name, seed)
        for path, w in alone.items():
            np.testing.assert_array_equal(together[path][i] != 0, w != 0, path)
            np.testing.assert_allclose(together[path][i], w, rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", trial.METHODS)
def test_settled_training_goes_on_with_its_support_and_no_memory(name):
    tried = trial.trial(name)
    start, state = trial.to_jax(tried.history[-1])
    params, state = start, csp.settle(state)
    assert state.memory is None
    assert state.remembered is None
    with jax.disable_jit():
        for number in range(2):
            params, state = trial.make_step(tried.tx)(params, state, number)
    for path, w in params.items():
        np.testing.assert_array_equal(w != 0, start[path] != 0, path)
        assert (w != start[path]).any() or not start[path].any(), path


def test_a_new_process_goes_on_where_another_stopped():
    """Nothing is remembered but (params, state): another transformation, made anew, does the same."""
    tried = trial.trial("gradual")
    number = tried.method.clock.times[1]
    tx = csp.sparsify(optax.adamw(trial.LEARNING_RATE, weight_decay=0.01), *tried.rules, method=trial.make_method("gradual"))
    with jax.disable_jit():
        params, _ = trial.make_step(tx)(*trial.to_jax(tried.history[number]), number)
    for path, w in tried.history[number + 1][0].items():
        np.testing.assert_array_equal(params[path] != 0, w != 0, path)
