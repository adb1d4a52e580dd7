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


def rules_for(steps: int, freeze: int) -> tuple[csp.Rule, ...]:
    """The entries along a schedule of their own, which no method knows."""
    entries, banks = trial.make_rules(LEAVES, None)
    end = min((steps + 1) // 2, freeze)
    schedule = schedules.cubic(0.75, begin=0, end=end) if end else schedules.constant(0.75)
    return csp.Rule("entries", entries.structure, sparsity=schedule), banks


def assert_on_budget(params, rules, steps):
    for target in bind(params, rules, steps):
        living = trial.living_units(target.rule.structure, params[target.path])
        kept = target.kept if living.ndim == 0 else np.broadcast_to(target.kept[..., 0], living.shape)
        np.testing.assert_array_equal(living, kept, target.path)


def turns() -> list[tuple[str, int, int]]:
    """Two lengths for each method; over the methods every length meets every period."""
    pairs = [list(itertools.product(lengths, EVERY)) for lengths in (SHORT, LONG)]
    return [(name, *pair[i % len(pair)]) for i, name in enumerate(trial.METHODS) for pair in pairs]


@pytest.mark.long
@pytest.mark.parametrize(("name", "steps", "every"), turns())
def test_any_length_and_period(name, steps, every):
    method = trial.make_method(name, steps, every)
    rules = rules_for(steps, method.clock.end)
    tx = csp.sparsify(optax.sgd(0.05, momentum=0.9), *rules, method=method)
    params = trial.make_params(LEAVES)
    params, _ = trial.compiled(functools.partial(trial.train, tx, steps=steps), params)(params)
    assert_on_budget(params, rules, steps)


@pytest.mark.parametrize("budget", [csp.budgets.global_(), csp.budgets.lamp()], ids=["global", "lamp"])
def test_double_precision_of_a_shared_budget(budget):
    with jax.enable_x64(True):
        rule = csp.Rule("w.", csp.structures.entries(), sparsity=0.6, budget=budget)
        tx = csp.sparsify(optax.adam(0.05), rule, method=trial.make_method("gradual", 8, 1))
        leaves = {name: trial.Leaf((5, 4), csp.structures.entries(), 0.6, jnp.float64) for name in ("w1", "w2")}
        params = trial.make_params(leaves)
        params, _ = trial.compiled(functools.partial(trial.train, tx, steps=8), params)(params)
        csp.verify(params, rule)
        csp.verify(csp.compress(trial.make_params(leaves), rule), rule)


@pytest.mark.parametrize("name", ["dual_pulled", "trimmed", "ista_metric", "str", "set"])
def test_double_precision(name):
    """Of the weights; what a method counts and measures may stay single."""
    with jax.enable_x64(True):
        leaves = {"w": trial.Leaf((5, 4), csp.structures.entries(), 0.6, jnp.float64)}
        rules = trial.make_rules(leaves)
        tx = csp.sparsify(optax.adam(0.05), *rules, method=trial.make_method(name, 8, 1))
        params = trial.make_params(leaves)
        params, _ = trial.compiled(functools.partial(trial.train, tx, steps=8), params)(params)
        assert params["w"].dtype == jnp.float64
        assert_on_budget(params, rules, 8)
