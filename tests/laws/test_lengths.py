"""Is the budget met to the integer however short the training and however seldom the refreshes?"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trial

import csp
from csp import schedules
from csp.rules import bind

EVERY = (1, 4, 1000)
SHORT = (1, 2)
LONG = (3, 7, 30)
LEAVES = {path: trial.LEAVES[path] for path in ("entries", "banks")}


def rules_for(steps: int) -> tuple[csp.Rule, ...]:
    """The entries along a schedule of their own, which no method knows."""
    entries, banks = trial.make_rules(LEAVES, None)
    schedule = schedules.cubic(0.75, begin=0, end=(steps + 1) // 2)
    return csp.Rule("entries", entries.structure, sparsity=schedule), banks


def assert_on_budget(params, rules, steps):
    for target in bind(params, rules, steps):
        living = trial.living_units(target.rule.structure, params[target.path])
        kept = target.kept if living.ndim == 0 else np.broadcast_to(target.kept[..., 0], living.shape)
        np.testing.assert_array_equal(living, kept, target.path)


@pytest.mark.parametrize(("name", "turn"), [(name, i % 3) for i, name in enumerate(trial.METHODS)])
def test_one_or_two_steps_suffice(name, turn):
    for i, steps in enumerate(SHORT):
        rules = rules_for(steps)
        method = trial.make_method(name, steps, EVERY[(turn + i) % 3])
        tx = csp.sparsify(optax.sgd(0.05), *rules, method=method)
        with jax.disable_jit():
            params, _ = trial.train(tx, trial.make_params(LEAVES), steps)
        assert_on_budget(params, rules, steps)


PAIRS = list(itertools.product(LONG, EVERY))


@pytest.mark.parametrize(("name", "pair"), [(name, PAIRS[i % len(PAIRS)]) for i, name in enumerate(trial.METHODS)])
def test_any_length_and_period(name, pair):
    steps, every = pair
    rules = rules_for(steps)
    tx = csp.sparsify(optax.sgd(0.05, momentum=0.9), *rules, method=trial.make_method(name, steps, every))
    params = trial.make_params(LEAVES)
    params, _ = trial.compiled(functools.partial(trial.train, tx, steps=steps), params)(params)
    assert_on_budget(params, rules, steps)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float64])
@pytest.mark.parametrize("name", ["dual_pulled", "trimmed", "ista_metric", "str"])
def test_any_precision(name, dtype):
    """Of the weights, in the methods that keep numbers of their own."""
    with jax.enable_x64(dtype == jnp.float64):
        leaves = {"w": trial.Leaf((5, 4), csp.structures.entries(), 0.6, dtype)}
        rules = trial.make_rules(leaves)
        tx = csp.sparsify(optax.adam(0.05), *rules, method=trial.make_method(name, 8, 1))
        params = trial.make_params(leaves)
        params, _ = trial.compiled(functools.partial(trial.train, tx, steps=8), params)(params)
        assert params["w"].dtype == dtype
        assert_on_budget(params, rules, 8)
