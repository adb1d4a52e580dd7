"""Is the total of a budget that several tensors share exact, at the end of every training and on the way?"""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trial

import csp
from csp import budgets, structures
from csp.rules import bind
from csp.structures import keep_count

STEPS = 12
SPARSITY = 0.7
LEAVES = {
    "narrow": trial.Leaf((3, 5), structures.entries()),
    "wide": trial.Leaf((6, 20), structures.entries()),
    "brain": trial.Leaf((8, 4), structures.entries(), dtype=jnp.bfloat16),
}
SIZES = {path: int(np.prod(leaf.shape)) for path, leaf in LEAVES.items()}
BUDGETS = {
    "global": budgets.global_(floor=0.3),
    "lamp": budgets.lamp(floor=0.3),
    "erk": budgets.erk(),
    "given": budgets.given({"narrow": 0.2, "brain": 0.95}),
}
NAMES = ("dual", "trimmed", "ista", "gradual", "rigl", "str", "movement", "acdc")
PAIRS = list(zip(NAMES, itertools.cycle(["global", "lamp"]), strict=False))
PAIRS += [("trimmed", "global"), ("dual", "erk"), ("gradual", "given")]
SHORT = [("dual", "global"), ("gradual", "lamp"), ("dual", "erk"), ("gradual", "given")]


def rules_for(budget: str, structure=None) -> list[csp.Rule]:
    return [csp.Rule(".*", structure or structures.entries(), sparsity=SPARSITY, budget=BUDGETS[budget])]


def transformation(name: str, budget: str, structure=None):
    method = trial.make_method(name, STEPS, every=2)
    return csp.sparsify(optax.adam(0.05), *rules_for(budget, structure), method=method), method


def living(params) -> dict[str, int]:
    return {path: int(np.sum(np.asarray(w) != 0)) for path, w in params.items()}


@pytest.mark.parametrize(
    ("name", "budget"), [pair if pair in SHORT else pytest.param(*pair, marks=pytest.mark.long) for pair in PAIRS]
)
def test_the_total_is_exact_and_each_has_its_part(name, budget):
    tx, _ = transformation(name, budget)
    params = trial.make_params(LEAVES)
    params, _ = trial.compiled(functools.partial(trial.train, tx, steps=STEPS), params)(params)
    alive = living(params)
    total = keep_count(sum(SIZES.values()), SPARSITY)
    if budget in ("erk", "given"):
        assert alive == {target.path: target.kept for target in bind(params, rules_for(budget), STEPS)}
    if budget == "given":
        assert alive == {"narrow": 12, "wide": 36, "brain": 2}
    else:
        assert sum(alive.values()) == total
    if budget in ("global", "lamp"):
        assert all(alive[path] >= np.floor(0.3 * size * total / sum(SIZES.values())) for path, size in SIZES.items())


def test_every_refresh_keeps_the_scheduled_total():
    tx, method = transformation("gradual", "global")
    params = trial.make_params(LEAVES)
    state = tx.init(params)
    step = trial.compiled(trial.make_step(tx), params, state, 0)
    for number in range(STEPS):
        params, state = step(params, state, number)
        if number in method.clock.times:
            expected = sum(SIZES.values()) * (1 - method.ramp(number) * SPARSITY)
            assert abs(sum(living(params).values()) - expected) <= 0.5 + 1e-4


def test_units_share_a_budget_too():
    tx, _ = transformation("gradual", "global", structures.columns())
    params = trial.make_params(LEAVES)
    params, _ = trial.compiled(functools.partial(trial.train, tx, steps=STEPS), params)(params)
    columns = sum(int(np.sum(np.any(np.asarray(w) != 0, axis=0))) for w in params.values())
    assert columns == keep_count(5 + 20 + 4, SPARSITY)
