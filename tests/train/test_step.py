"""FAULTS 19, 21, 22: what a step does when its numbers go wrong, and what it must not do."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import csp
from csp import models
from csp.models import ModelConfig
from csp.train import evaluate, loop, modelfile, objective, pruning, step
from csp.train.config import Config, Data, Decode, Features, Sparsity, Train
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


def test_a_label_beyond_the_vocabulary_is_not_followed(begun):
    """FAULTS 25: should one get past the tokens."""
    take, state = begun
    wrong = batch().labels.copy()
    wrong[2, 1] = 5
    after, info = take(state, batch()._replace(labels=wrong))
    assert not info.good
    assert same(after.params, state.params)
    assert int(after.refused) == 1
    wrong[2] = batch().labels[2]
    wrong[:, 2] = 5  # is padding
    assert take(state, batch()._replace(labels=wrong))[1].good


@pytest.mark.long
def test_after_the_method_took_most_weights_at_once_the_usual_loss_is_learned_anew():
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


def given(params, key, grad):
    """A loss of one label whose gradient is the batch."""
    return jnp.sum(params["w"] * grad), (jnp.ones(()), jnp.zeros((), jnp.int32))


def walk(train, grads, rules=()):
    """The state before the first step and after each, and what each said."""
    config = Config(data=CONFIG.data, train=train, sparsity=CONFIG.sparsity)
    tx = step.optimizer(config, train.steps, rules)
    take = jax.jit(step.make(given, train, tx))
    states, said = [step.start({"w": jnp.asarray(START)}, tx, config)], []
    for grad in grads:
        state, info = take(states[-1], grad)
        states.append(state)
        said.append(info)
    return states, said


HALF = csp.Rule("w", csp.structures.entries(), sparsity=0.5)
START = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
NORMS = (9, 0.5, 40, 3, 1)
GRADS = [n * START[::-1] * (-1) ** i / np.linalg.norm(START) for i, n in enumerate(NORMS)]


@pytest.mark.parametrize("clip", [2.0, 0.0])
def test_what_adamw_gets_is_the_clipped_gradient(clip):
    """Written down in float64; 0 clips nothing."""
    train = Train(steps=5, learning_rate=0.1, weight_decay=0.1, clip=clip)
    states, said = walk(train, GRADS)
    rate = step.schedule(Config(train=train), 5)
    w, m, v = START.astype(np.float64), 0.0, 0.0
    for t, (g, state, info) in enumerate(zip(GRADS, states[1:], said, strict=True)):
        norm = np.linalg.norm(g)
        assert info.norm == pytest.approx(norm, rel=1e-6)  # as it was
        g = g * min(1, clip / norm) if clip else g
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        adam = (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
        w = w - float(rate(t)) * (adam + 0.1 * w)
        assert np.allclose(state.params["w"], w, rtol=1e-4, atol=1e-5)
    other, _ = walk(replace(train, clip=2.0 - clip), GRADS)
    assert np.abs(other[-1].params["w"] - w).max() > 1e-2


def test_averages_follow_their_recurrence_and_are_projected():
    """Step by step in NumPy; a refused step adds nothing; what would be delivered lies on the support."""
    grads = [*GRADS * 3, np.full((8, 4), np.nan), *GRADS[:3]]
    states, said = walk(Train(steps=18, learning_rate=0.1, ema=0.75), grads, (HALF,))
    assert [n for n, info in enumerate(said) if not info.good] == [15]
    average = START.astype(np.float64)
    for state, info in zip(states[1:], said, strict=True):
        w = np.asarray(state.params["w"], np.float64)
        average = 0.75 * average + 0.25 * w if info.good else average
        assert np.allclose(state.average["w"], average, rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(w) == 16 < np.count_nonzero(average)
    found = loop.finished(states[-1])["w"]
    assert np.array_equal(found, np.where(w != 0, states[-1].average["w"], 0))
    assert not np.allclose(found, w)


def conformer(steps, rate, **said):
    model = replace(MODEL, encoder="conformer", width=16, stack=4, heads=2, kernel=3, chunk=2, left=1, **said)
    train = replace(CONFIG.train, steps=steps, learning_rate=rate)
    return replace(CONFIG, model=model, train=train, sparsity=Sparsity(method="dense"))


def plain_speech() -> Batch:
    """Features of which one is loud while a label is said, two labels each."""
    labels = np.array([[1, 2], [2, 3], [3, 1], [3, 4]], np.int32)
    x = 2 * np.eye(8, dtype=np.float32)[labels.repeat(12, axis=1)]
    return Batch(x, np.full(4, 24, np.int32), labels, np.full(4, 2, np.int32))


def test_a_conformer_in_bfloat16_steps_near_the_loss_of_float32():
    """At the same parameters, which stay float32 with all else that is kept."""
    config = conformer(9, 1e-2, head="ctc")
    structure, _ = models.create(config.model, 8, 5)
    setup = modelfile.setup(config, structure, np.zeros(8, np.float32), np.ones(8, np.float32))
    right = jax.jit(partial(objective.loss, setup))
    take, begun = begin(conformer(9, 1e-2, head="ctc", dtype="bfloat16"))
    losses, state = [], begun
    for _ in range(4):
        total, (labels, _) = right(state.params, jax.random.key(0), plain_speech())
        state, info = take(state, plain_speech())
        assert info.good
        assert info.loss != total / labels
        assert np.isclose(info.loss, total / labels, rtol=0.02)
        losses.append(info.loss)
    assert losses[-1] < 0.8 * losses[0]
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, begun)
    assert all(w.dtype == jnp.float32 for w in jax.tree.leaves(state.params))


@pytest.mark.long
def test_a_conformer_with_the_whole_context_learns_a_transducer():
    """Four utterances by heart; then greedy and beam search hear them, compiled."""
    config, speech = conformer(120, 2e-2, streaming=False), plain_speech()
    take, state = begin(config)
    for _ in range(120):
        state, info = take(state, speech)
    assert info.loss < 0.1
    structure, _ = models.create(config.model, 8, 5)
    setup = modelfile.setup(config, structure, np.zeros(8, np.float32), np.ones(8, np.float32))
    for beam in (1, 3):
        hear = evaluate.decoder(setup._replace(config=replace(config, decode=Decode(beam=beam))))
        tokens, counts = hear(state.params, speech.x, speech.samples)
        said = [line[:count].tolist() for line, count in zip(tokens, counts, strict=True)]
        assert said == speech.labels.tolist()


def test_dense_runs_are_plain_adamw():
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
