"""Does a training care how it is run: compiled or not, as a scan, several seeds at once?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trial

import csp

STEPS = 3
SEEDS = (3, 4)
LEAVES = {path: trial.LEAVES[path] for path in ("entries", "two_of_four")}


def trained(name: str, seed) -> dict[str, jax.Array]:
    method = trial.make_method(name, STEPS, every=1)
    tx = csp.sparsify(optax.adam(trial.LEARNING_RATE), *trial.make_rules(LEAVES, 2), method=method)
    return trial.train(tx, trial.make_params(LEAVES, seed), STEPS)[0]


@pytest.mark.long
@pytest.mark.parametrize("name", trial.METHODS)
def test_compiled_scanned_and_over_seeds_at_once_is_step_by_step(name):
    seeds = jnp.asarray(SEEDS)
    together = trial.compiled(jax.vmap(functools.partial(trained, name)), seeds)(seeds)
    with jax.disable_jit():
        alone = trained(name, SEEDS[1])
    for path, w in alone.items():
        np.testing.assert_array_equal(together[path][1] != 0, w != 0, path)
        np.testing.assert_allclose(together[path][1], w, rtol=1e-4, atol=1e-5, err_msg=path)
