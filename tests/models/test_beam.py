"""Beam searches against every transcript there is, each with the sum over its alignments."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csp import models
from csp.models import ModelConfig, beam, lattice

SMALL = {"layers": 1, "width": 8, "predictor": 6, "joint": 6, "stack": 1}


def collapsed(path) -> tuple[int, ...]:
    return tuple(k for k, before in zip(path, (0, *path), strict=False) if k not in (0, before))


def searched(log_probs, frames, width):
    """The best row of each utterance."""
    rows = jax.jit(jax.vmap(lambda x, n: beam.ctc(x, n, width)))(log_probs, frames)
    assert np.all(np.diff(rows.score_K, axis=1) <= 0)
    return rows.tokens_KxU[:, 0], rows.count_K[:, 0]


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_ctc_beam_is_exact(seed):
    T, V = 5, 3
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(V), size=(2, T))).astype(np.float32)
    frames = np.array([T, 3])
    tokens, counts = searched(jnp.asarray(log_probs), frames, 64)
    for row in range(2):
        totals: dict[tuple[int, ...], float] = {}
        for path in itertools.product(range(V), repeat=int(frames[row])):
            score = sum(log_probs[row, t, k] for t, k in enumerate(path))
            totals[collapsed(path)] = np.logaddexp(totals.get(collapsed(path), -np.inf), score)
        assert tuple(tokens[row, : counts[row]].tolist()) == max(totals, key=totals.get)


def test_a_narrow_ctc_beam_adds_what_greedy_does_not():
    """Two paths to A are each less probable than the blank, and together more."""
    probs = np.array([[[0.6, 0.4], [0.6, 0.4]]])
    tokens, counts = searched(jnp.log(probs), np.array([2]), 2)
    assert (tokens[0, :1].tolist(), counts.tolist()) == ([1], [1])  # 0.64 against 0.36


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_transducer_beam_is_exact(seed, monkeypatch):
    monkeypatch.setattr(beam, "PER_FRAME", 12)  # so that it cuts off no row that matters
    vocabulary, T = 3, 3
    structure, params = models.create(ModelConfig(**SMALL, ctc_weight=0.0), 4, vocabulary, seed)
    params["transducer"]["output"]["kernel"] *= 4
    params["transducer"]["output"]["bias"] += jnp.array([2.0, 0.0, 0.0])
    y = jnp.asarray(np.random.default_rng(seed).normal(size=(2, T, 4)), jnp.float32)
    frames = jnp.array([T, 2])
    call = jax.jit(models.apply, static_argnums=(0, 2, 5))
    tokens, counts = call(structure, params, "search", y, frames, 128)
    rows = [labels for n in range(6) for labels in itertools.product(range(1, vocabulary), repeat=n)]
    labels = np.zeros((len(rows) + 1, beam.PER_FRAME * T), np.int32)
    for i, row in enumerate(rows):
        labels[i, : len(row)] = row
    lengths = np.array([*map(len, rows), 0])
    loss = jax.jit(models.apply, static_argnums=(0, 2))
    for row in range(2):
        lengths[-1] = counts[row]  # the last of all rows is the one that was found
        labels[-1] = np.where(np.arange(labels.shape[1]) < lengths[-1], tokens[row], 0)
        many = jnp.repeat(y[row : row + 1], len(labels), 0), jnp.full(len(labels), frames[row])
        scores = -np.asarray(loss(structure, params, "loss", *many, labels, lengths)[0])
        assert scores[-1] >= scores.max() - 1e-3


def test_a_row_never_depends_on_padding():
    structure, params = models.create(ModelConfig(**SMALL), 4, 5)
    rng = np.random.default_rng(0)
    y, frames = jnp.asarray(rng.normal(size=(2, 6, 4)), jnp.float32), jnp.array([6, 4])
    call = jax.jit(models.apply, static_argnums=(0, 2, 5))
    short = call(structure, params, "search", y, frames, 4)
    long = call(structure, params, "search", jnp.pad(y, ((0, 0), (0, 3), (0, 0)), constant_values=9.0), frames, 4)
    assert short[1].tolist() == long[1].tolist()
    for a, b, n in zip(short[0], long[0], short[1], strict=True):
        assert a[:n].tolist() == b[:n].tolist()


def test_nothing_heard_is_nothing_said():
    tokens, counts = searched(jnp.zeros((1, 3, 4)), np.array([0]), 3)
    assert counts.tolist() == [0]
    assert not lattice.NEVER > -1e29
    assert not tokens.any()
