"""Encoders and heads: padding does not leak, streaming models do not look ahead, decoding is what it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from csp import models
from csp.models import ModelConfig
from csp.models.heads import MOST
from csp.models.recogniser import abstract

SMALL = {
    "width": 16,
    "predictor": 8,
    "joint": 12,
    "layers": 2,
    "stack": 2,
    "kernel": 5,
    "chunk": 3,
    "left": 1,
    "heads": 2,
}
CONFIGS = {
    "lstm transducer": ModelConfig(**SMALL),
    "lstm ctc": ModelConfig(**SMALL, head="ctc"),
    "lstm reduced": ModelConfig(**SMALL, reduce_after=1),
    "conformer transducer": ModelConfig(**SMALL, encoder="conformer"),
    "conformer ctc": ModelConfig(**SMALL, encoder="conformer", head="ctc"),
    "conformer whole": ModelConfig(**SMALL, encoder="conformer", head="ctc", streaming=False),
}
INPUTS, VOCABULARY = 6, 7
call = jax.jit(models.apply, static_argnums=(0, 2))


def batch(T=24, B=3, seed=0):
    rng = np.random.default_rng(seed)
    y = jnp.asarray(rng.normal(size=(B, T, INPUTS)), jnp.float32)
    labels = jnp.asarray(rng.integers(1, VOCABULARY, (B, 4)), jnp.int32)
    return y, jnp.array([T, T - 7, T // 2]), labels, jnp.array([4, 2, 0])


@pytest.fixture(params=CONFIGS, scope="module")
def model(request):
    config = CONFIGS[request.param]
    return config, *models.create(config, INPUTS, VOCABULARY)


def test_shapes_are_known_before_arrays(model):
    config, _, params = model
    _, shapes = abstract(config, INPUTS, VOCABULARY)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda x: x.shape, shapes)


def test_padded_frames_and_labels_never_leak(model):
    _, structure, params = model
    y, frames, labels, counts = batch()
    quiet, _ = call(structure, params, "loss", y, frames, labels, counts)
    noisy = jnp.where(jnp.arange(24)[:, None] >= frames[:, None, None], 1e3, y)
    other = jnp.where(jnp.arange(4) >= counts[:, None], VOCABULARY - 1, labels)
    loud, _ = call(structure, params, "loss", noisy, frames, other, counts)
    assert np.allclose(loud, quiet, rtol=1e-5)
    longer = [jnp.pad(y, ((0, 0), (0, 9), (0, 0))), frames, jnp.pad(labels, ((0, 0), (0, 3))), counts]
    assert np.allclose(call(structure, params, "loss", *longer)[0], quiet, rtol=1e-4)


@pytest.mark.long
def test_an_utterance_alone_is_what_it_is_in_a_batch(model):
    _, structure, params = model
    y, frames, labels, counts = batch()
    together, _ = call(structure, params, "loss", y, frames, labels, counts)
    for i in range(3):
        alone = models.apply(
            structure, params, "loss", y[i : i + 1], frames[i : i + 1], labels[i : i + 1], counts[i : i + 1]
        )
        assert np.allclose(alone[0], together[i], rtol=1e-4)


def test_streaming_models_do_not_look_ahead(model):
    """LSTMs see nothing of the future, streaming Conformers the rest of their chunk."""
    config, structure, params = model
    y, frames, *_ = batch()
    full = jnp.full_like(frames, 24)
    before, _ = call(structure, params, "encode", y, full)
    after, _ = call(structure, params, "encode", y.at[:, 12:].add(1.0), full)
    same = np.isclose(before, after, atol=1e-6).all(axis=(0, 2))
    known = 12 // (config.stack * (2 if config.reduce_after else 1))
    if config.encoder == "conformer" and not config.streaming:
        assert not same.any()
    else:
        assert same[:known].all()
        assert not same[known:].any()


def test_gradients_reach_every_parameter_and_are_finite(model):
    _, structure, params = model
    grads = jax.jit(jax.grad(lambda p: call(structure, p, "loss", *batch())[0].sum()))(params)
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(g).all(), path
        assert np.any(g != 0), path


def test_matrices_are_two_dimensional(model):
    assert all(w.ndim <= 2 for w in jax.tree.leaves(model[2]))


@pytest.mark.parametrize("name", ["lstm transducer", "conformer transducer"])
def test_bfloat16_computes_and_parameters_stay_float32(name):
    structure, params = models.create(dataclasses.replace(CONFIGS[name], dtype="bfloat16"), INPUTS, VOCABULARY)
    plain, _ = models.create(CONFIGS[name], INPUTS, VOCABULARY)
    low, _ = call(structure, params, "loss", *batch())
    high, _ = call(plain, params, "loss", *batch())
    assert all(w.dtype == jnp.float32 for w in jax.tree.leaves(params))
    assert low.dtype == jnp.float32
    assert np.allclose(low, high, rtol=0.05)
    assert call(structure, params, "encode", *batch()[:2])[0].dtype == jnp.bfloat16


def test_more_labels_than_frames_have_no_ctc_alignment():
    """FAULTS 24: masked, and said, not about 1e5 with a gradient."""
    structure, params = models.create(CONFIGS["lstm ctc"], INPUTS, VOCABULARY)
    y, labels = batch()[0], jnp.array([[1, 2, 3, 4], [1, 1, 1, 2], [1, 2, 3, 4]])
    frames, counts = jnp.array([8, 10, 6]), jnp.array([4, 4, 4])  # 4, 5 and 3 after stacking; the second needs 6

    def total(params):
        loss, fits = call(structure, params, "loss", y, frames, labels, counts)
        return loss[1:].sum(), (loss, fits)

    (_, (loss, fits)), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    assert fits.tolist() == [True, False, False]
    assert loss[1:].tolist() == [0, 0]
    assert loss[0] > 0
    assert not any(np.any(g != 0) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("head", ["ctc", "transducer"])
def test_a_label_beyond_the_vocabulary_has_no_plausible_loss(head):
    """FAULTS 25: optax's CTC gives it a number; here it is NaN, the others' losses are theirs, and a filler is none."""
    structure, params = models.create(CONFIGS[f"lstm {head}"], INPUTS, VOCABULARY)
    y, frames, _, _ = batch(B=4)
    good = jnp.array([[1, 2, VOCABULARY - 1], [3, 4, 5], [6, 1, 1], [2, 3, 4]])
    bad = good.at[0, 1].set(VOCABULARY).at[1, 2].set(999).at[2, 0].set(0).at[3, 2].set(VOCABULARY)
    frames, counts = jnp.array([24, 17, 12, 20]), jnp.array([3, 3, 3, 2])
    right, _ = call(structure, params, "loss", y, frames, good, counts)
    found, fits = call(structure, params, "loss", y, frames, bad, counts)
    assert fits.all()
    assert np.isfinite(right).all()
    assert np.isnan(found).tolist() == [True, True, True, False]
    assert np.isclose(found[3], right[3], rtol=1e-5)


def test_ctc_is_optaxs_on_what_fits():
    structure, params = models.create(CONFIGS["lstm ctc"], INPUTS, VOCABULARY)
    y, frames, labels, counts = batch()
    logits, after = call(structure, params, "frame_logits", y, frames)
    right = optax.ctc_loss(logits, np.arange(12) >= after[:, None], labels, np.arange(4) >= counts[:, None])
    assert np.allclose(call(structure, params, "loss", y, frames, labels, counts)[0], right, rtol=1e-5)


def test_greedy_ctc_collapses():
    structure, params = models.create(CONFIGS["lstm ctc"], INPUTS, VOCABULARY)
    y, frames, *_ = batch()
    logits, after = call(structure, params, "frame_logits", y, frames)
    tokens, counts = call(structure, params, "greedy", y, frames)
    for i in range(3):
        best = np.argmax(logits[i, : after[i]], -1)
        right = [n for n, before in zip(best, [0, *best], strict=False) if n not in (0, before)]
        assert tokens[i, : counts[i]].tolist() == right


@pytest.mark.parametrize("name", ["lstm transducer", "conformer transducer", "conformer whole"])
def test_greedy_transducer_is_the_plain_loop(name):
    config = dataclasses.replace(CONFIGS[name], head="transducer")
    structure, params = models.create(config, INPUTS, VOCABULARY, seed=3)
    params["transducer"]["output"]["bias"] = params["transducer"]["output"]["bias"].at[0].set(-0.2)
    y, frames, *_ = batch(seed=5)
    tokens, counts = call(structure, params, "greedy", y, frames)
    h, after = call(structure, params, "encode", y, frames)

    @jax.jit
    def logits(params, h, said, count):  # a predictor does not look ahead, so that one length serves all
        head = nnx.merge(structure, params).transducer
        return head.joint(head.from_encoder(h[None]), head.states(said, jnp.float32)[:, count])

    for i in range(3):
        said: list[int] = []
        for t in range(int(after[i])):
            for _ in range(MOST):
                padded = np.zeros((1, 64), np.int32)
                padded[0, : len(said)] = said
                best = int(np.argmax(logits(params, h[i, t], padded, len(said))))
                if best == 0:
                    break
                said.append(best)
        assert tokens[i, : counts[i]].tolist() == said
    assert int(counts.sum()) > 0


def test_no_frames_and_no_labels():
    """FAULTS 27: a batch of padding has a finite loss, and says that nothing fits."""
    for name in ("lstm transducer", "lstm ctc"):
        structure, params = models.create(CONFIGS[name], INPUTS, VOCABULARY)
        y, none = batch()[0], jnp.zeros(3, jnp.int32)

        def total(params, structure=structure, y=y, none=none):
            loss, fits = call(structure, params, "loss", y, none, jnp.ones((3, 2), jnp.int32), none)
            return jnp.sum(jnp.where(fits, loss, 0)), fits

        (value, fits), grads = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
        assert value == 0
        assert not fits.any()
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("config", "least", "most"),
    [
        (ModelConfig(width=64, predictor=64, joint=64, ctc_weight=0.0), 0.1e6, 0.4e6),
        (ModelConfig(encoder="conformer", layers=17, width=512, heads=8, predictor=640, joint=640), 100e6, 140e6),
    ],
)
def test_sizes_go_from_small_to_large(config, least, most):
    _, shapes = abstract(config, 80, 1024)
    assert least < sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes)) < most
