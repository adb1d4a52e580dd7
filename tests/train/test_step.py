"""FAULTS 19, 21, 22: what a step does when its numbers go wrong, and what it must not do."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import csp
from csp import models
from csp.models import ModelConfig
from csp.train import modelfile, objective, pruning, step
from csp.train.config import Config, Data, Features, Sparsity, Train
from csp.train.corpus import Batch

MODEL = ModelConfig(layers=1, width=8, predictor=8, joint=8, stack=2)
CONFIG = Config(
    data=Data(synth="digits", masks=()),
    features=Features(8000, 8),
    model=MODEL,
    train=Train(steps=40, batch=4),
    sparsity=Sparsity(target=0.5),
)


def batch(seed=0) -> Batch:
    rng = np.random.default_rng(seed)
    x = (3000 * rng.normal(size=(4, 4000))).astype(np.int16)
    return Batch(
        x, np.array([4000, 3000, 4000, 2000], np.int32), rng.integers(1, 5, (4, 3), np.int32), np.full(4, 2, np.int32)
    )


def begin(config=CONFIG, leaps=()):
    structure, params = models.create(config.model, 8, 5)
    setup = modelfile.setup(config, structure, np.zeros(8, np.float32), np.ones(8, np.float32))
    tx = step.optimizer(config, config.train.steps, pruning.rules_of(config.sparsity, params, config.sparsity.target))
    return jax.jit(step.make(partial(objective.loss, setup), config.train, tx, leaps)), step.start(params, tx, config)


@pytest.fixture(scope="module")
def begun():
    return begin()


def same(a, b) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def poison(state, value):
    params = jax.tree.map(jnp.copy, state.params)
    params["ctc"]["output"]["bias"] = params["ctc"]["output"]["bias"].at[0].set(value)
    return state._replace(params=params)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_step_of_nan_changes_nothing_and_is_counted(begun, value):
    take, state = begun
    state, _ = take(state, batch())
    bad = poison(state, value)
    after, info = take(bad, batch(1))
    assert not info.good
    for part in ("params", "optimizer", "average", "step", "usual"):
        assert same(getattr(after, part), getattr(bad, part)), part
    assert (int(after.refused), int(after.streak), int(after.position)) == (1, 1, int(state.position) + 1)
    good, info = take(after._replace(params=state.params), batch(2))  # FAULTS 21: the next good step is taken
    assert info.good
    assert int(good.streak) == 0
    assert np.isfinite(good.usual)


def test_a_loss_a_thousand_times_the_usual_is_not_followed(begun):
    """FAULTS 22; before twenty steps nothing is usual."""
    take, state = begun
    settled = state._replace(step=jnp.array(step.SETTLE, jnp.int32), usual=jnp.array(1e-3, jnp.float32))
    after, info = take(settled, batch())
    assert not info.good
    assert same(after.params, settled.params)
    assert info.loss > 20 * step.SMALL
    assert take(settled._replace(step=jnp.array(0, jnp.int32)), batch())[1].good
    assert take(settled._replace(usual=info.loss), batch())[1].good


def test_after_the_method_took_most_weights_at_once_the_usual_loss_is_learned_anew():
    from dataclasses import replace

    rule = (csp.Rule(".*"),)
    sudden = replace(CONFIG, sparsity=Sparsity(method="one_shot", target=0.98))
    assert step.leaps(sudden, 100, rule) == (51,)
    assert step.leaps(replace(CONFIG, sparsity=Sparsity(method="gradual", target=0.98)), 100, rule) == ()
    assert len(step.leaps(replace(CONFIG, sparsity=Sparsity(method="acdc", target=0.98)), 1000, rule)) == 11
    assert step.leaps(sudden, 100, ()) == ()

    take, state = begin(sudden, leaps=(30,))
    low = jnp.array(1e-3, jnp.float32)
    at = {n: state._replace(step=jnp.array(n, jnp.int32), usual=low) for n in (29, 30, 49, 50)}
    assert [bool(take(before, batch())[1].good) for before in at.values()] == [False, True, True, False]
    after, info = take(at[30], batch())
    assert after.usual == info.loss


def test_parts_of_a_batch_sum_to_the_whole():
    from dataclasses import replace

    whole, parts = begin(), begin(replace(CONFIG, train=replace(CONFIG.train, accumulate=2)))
    _, one = whole[0](whole[1], batch())
    _, two = parts[0](parts[1], batch())
    assert np.isclose(one.loss, two.loss, rtol=1e-5)
    assert np.isclose(one.norm, two.norm, rtol=1e-4)


def test_an_empty_batch_is_harmless(begun):
    """FAULTS 27."""
    take, state = begun
    nothing = batch()._replace(samples=np.zeros(4, np.int32), counts=np.zeros(4, np.int32))
    after, info = take(state, nothing)
    assert info.loss == 0
    assert all(np.isfinite(w).all() for w in jax.tree.leaves(after.params))


def test_dense_runs_are_plain_adamw():
    from dataclasses import replace

    take, state = begin(replace(CONFIG, sparsity=Sparsity(method="dense")))
    after, info = take(state, batch())
    assert info.good
    assert all(
        np.any(w) or not np.any(v) for w, v in zip(*map(jax.tree.leaves, (after.params, state.params)), strict=True)
    )


def test_rules_of_a_config():
    _, params = models.create(MODEL, 8, 5)
    rules = pruning.rules_of(Sparsity(structure="4:8"), params, None)
    assert str(rules[-1].structure) == "4:8"
    assert not any(r.structure for r in rules[:-1])  # embeddings, outputs, norms and biases are spared
    with pytest.raises(ValueError, match="structure 'blobs' is none of entries"):
        pruning.rules_of(Sparsity(structure="blobs"), params, 0.5)
    with pytest.raises(ValueError, match=r"sparsity.method 'magic' is none of compressed_sensing, gradual"):
        pruning.method_of(Sparsity(method="magic"), 10)
    with pytest.raises(ValueError, match=r"sparsity.options of gradual: .*'magic'"):
        pruning.method_of(Sparsity(method="gradual", options={"magic": 1}), 10)
    for said in ("entries", "rows", "columns", "rank", "2:4", "blocks 4x1", "heads 4"):
        pruning.structure(said)
