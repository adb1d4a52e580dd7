"""Does each method do what it is named for?"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from one_matrix import SHAPE, W, counts, largest, run

from csp import methods, schedules, structures
from csp.methods import Clock, Method, clock_for

fractions = some.floats(0, 1)


@given(some.integers(1, 5000), fractions, fractions, some.none() | some.integers(1, 6000))
def test_a_clock_ticks_from_begin_to_end_and_always_at_the_end(steps, a, b, every):
    begin, end = sorted((a, b))
    clock = clock_for(steps, begin, end, every)
    gaps = np.diff(clock.times)
    assert 0 <= clock.begin <= clock.end <= steps - 1
    assert np.all(gaps > 0)
    assert np.all(gaps <= (every or max(1, min(100, steps // 100))))
    assert clock.end == min(round(end * steps), steps - 1)
    assert clock.begin == min(round(begin * steps), clock.end)


@settings(deadline=None)
@given(some.sets(some.integers(0, 60), min_size=1))
def test_a_clock_knows_its_latest_tick(times):
    clock = Clock(tuple(sorted(times)))
    latest = jax.vmap(clock.latest)(jnp.arange(70))
    assert latest.tolist() == [max((t for t in times if t <= count), default=-1) for count in range(70)]


def test_one_shot_is_dense_and_then_projected():
    weights, _ = run(methods.one_shot(6, at=0.5))
    assert counts(weights) == [20, 20, 20, 20, 10, 10, 10]
    np.testing.assert_array_equal(weights[-1] != 0, largest(10))


def test_static_keeps_its_first_support_whatever_comes():
    weights, _ = run(methods.static(5), lambda step: 3 * (W - 10))
    for w in weights[1:]:
        np.testing.assert_array_equal(w != 0, largest(10))


def test_static_keeps_the_support_of_sparse_parameters():
    sparse = np.where(np.arange(20).reshape(SHAPE) % 2 == 0, W, 0).astype(np.float32)
    weights, _ = run(methods.static(3), lambda step: np.ones(SHAPE), w=sparse)
    np.testing.assert_array_equal(weights[-1] != 0, sparse != 0)


def test_gradual_forgets_what_it_prunes():
    """A pruned weight has no value, so that no later refresh brings it back."""
    weights, _ = run(methods.gradual(20, begin=0.1, end=0.8, every=1), lambda step: -0.01 * W)
    for before, after in itertools.pairwise(weights):
        assert not np.any((before == 0) & (after != 0))


def test_gradual_regrowth_exchanges_for_the_largest_gradients():
    smallest = W <= 3
    for regrow, alive in ((0.0, False), (0.5, True)):
        method = methods.gradual(20, begin=0.1, end=0.8, every=1, regrow=regrow)
        weights, _ = run(method, lambda step: -1e-3 * smallest)
        np.testing.assert_array_equal(weights[7][smallest] != 0, alive)


def test_cycles_decompress_between_compressions():
    method = methods.compressed_sensing(40, begin=0.0, full=0.8, freeze=0.9, cycles=4, every=1)
    weights, _ = run(method, lambda step: np.full(SHAPE, 1e-3))
    alive = np.array(counts(weights)[1:])
    assert np.sum(np.diff(alive) > 5) == 3
    assert alive[-1] == 10


@pytest.mark.parametrize(("steps", "cycles"), [(1, 1), (1, 2), (3, 1000), (100, 1000), (40, 7)])
def test_more_cycles_than_steps_are_a_ramp_a_step(steps, cycles):
    ramp = methods.compressed_sensing(steps, begin=0.0, full=0.5, freeze=0.9, cycles=cycles).ramp
    teeth = [float(ramp(t)) for t in range(steps + 1)]
    assert all(0 <= tooth <= 1 for tooth in teeth)
    assert teeth[-1] == 1
    assert sum(tooth == 0 for tooth in teeth[: steps // 2]) <= min(cycles, steps)


def test_acdc_alternates_and_ends_compressed():
    method = methods.acdc(40, warmup=0.1, cycles=3, compressed=0.5, finish=0.25)
    weights, _ = run(method, lambda step: np.full(SHAPE, 1e-3))
    phases = [alive == 10 for alive in counts(weights)[1:]]
    assert not any(phases[:4])
    assert all(phases[30:])
    changes = np.flatnonzero(np.diff(phases))
    assert len(changes) == 7  # down and up three times, and down
    assert set(counts(weights)) == {10, 20}


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("cycles", [1, 5, 20])
def test_acdc_looks_whenever_its_phase_changes(steps, cycles):
    method = methods.acdc(steps, cycles=cycles)
    values = [method.ramp(step) for step in range(steps)]
    changes = {t for t in range(steps) if values[t] != ([0.0, *values])[t]}
    assert changes <= set(method.clock.times)
    assert values[-1] == 1


@pytest.mark.parametrize("make", [methods.set_, methods.rigl])
def test_sparse_training_exchanges_a_falling_fraction(make):
    method = make(40, exchange=0.4, end=0.8, every=4)
    draw = np.random.default_rng(2).normal(size=(40, *SHAPE))
    weights, _ = run(method, lambda step: 1e-3 * draw[step])
    assert counts(weights)[1:] == [10] * 40
    for before, after, step in zip(weights, weights[1:], range(40), strict=False):
        grown = int(np.sum((before == 0) & (after != 0)))
        if step in method.clock.times and step > 0:
            assert grown <= np.ceil(0.4 * (1 + np.cos(np.pi * step / 32)) / 2 * 10 - 1e-6)
        else:
            assert grown == 0
    assert np.sum((weights[4] == 0) & (weights[5] != 0)) > 0


def test_rigl_grows_where_the_gradient_is_largest_and_drops_the_smallest():
    weights, _ = run(methods.rigl(40, exchange=0.4, end=0.8, every=4), lambda step: 1e-3 / W, steps=5)
    grown = (weights[4] == 0) & (weights[5] != 0)
    dropped = (weights[4] != 0) & (weights[5] == 0)
    assert set(W[grown]) == {1, 2, 3, 4}  # 0.4 (1 + cos(pi / 8)) / 2 * 10 = 3.85 of the largest 1 / W, rounded up
    assert set(W[dropped]) == {11, 12, 13, 14}


def test_set_grows_by_chance():
    supports = [run(methods.set_(8, end=0.5, every=1, seed=seed), steps=3)[0][-1] != 0 for seed in (0, 1)]
    assert np.any(supports[0] != supports[1])


def test_granet_prunes_and_exchanges():
    draw = np.random.default_rng(3).normal(size=(30, *SHAPE))
    weights, _ = run(methods.granet(30, end=0.8, every=2), lambda step: 1e-2 * draw[step])
    alive = counts(weights)
    assert alive == sorted(alive, reverse=True)
    assert any(np.any((before == 0) & (after != 0)) for before, after in itertools.pairwise(weights))


def test_random_looks_at_nothing():
    supports = [run(methods.random(3, seed=seed), w=w)[0][-1] != 0 for seed, w in ((0, W), (0, W[::-1]), (1, W))]
    np.testing.assert_array_equal(supports[0], supports[1])
    assert np.any(supports[0] != supports[2])


def test_random_is_fair_to_all():
    """Every row and column, however large, has about half of its weights."""
    w = np.outer(np.arange(1.0, 61.0), np.arange(1.0, 61.0)).astype(np.float32)
    alive = run(methods.random(3), w=w, steps=1)[0][-1] != 0
    assert alive.sum() == 1800
    for count in (*alive.sum(axis=0), *alive.sum(axis=1)):
        assert abs(count - 30) < 18  # 4.6 standard deviations


def test_movement_keeps_what_the_gradient_moves_away_from_zero():
    away = (np.arange(20).reshape(SHAPE) % 2).astype(bool)
    weights, _ = run(methods.movement(20, begin=0.2, end=0.6, every=1), lambda step: np.where(away, -1e-3, 1e-3))
    np.testing.assert_array_equal(weights[-1] != 0, away)


def test_the_threshold_of_str_rises_while_too_much_lives():
    weights, states = run(methods.str_(60, begin=0.1, end=0.9, every=1, pressure=2.0), lambda step: np.zeros(SHAPE))
    thresholds = [float(state.memory[0].fast[1]) for state in states]
    assert np.all(np.diff(thresholds[:6]) == 0)
    assert thresholds[40] > thresholds[6]
    t = np.exp(thresholds[31])
    np.testing.assert_allclose(weights[31], np.maximum(W - t, 0), rtol=1e-5)


def test_the_lambda_of_ista_rises_while_too_much_lives_and_rests_on_budget():
    method = methods.compressed_sensing(40, methods.ista(gain=0.2), begin=0.0, full=0.0, freeze=0.9, every=1)
    _, states = run(method, steps=10, inner=optax.sgd(0.0))
    gains = [float(state.memory[0].slow["log_gain"]) for state in states]
    assert gains[1] == pytest.approx(0.2 * np.log(2))  # 20 live, and 10 should


def test_the_lambda_of_ista_counts_every_group_of_n_of_m():
    """A tensor that is 2:4 already is on its budget, however many columns it has."""
    sparse = np.where(np.arange(8)[:, None] % 4 < 2, 1.0, 0.0) * np.ones((8, 5))
    method = methods.compressed_sensing(40, methods.ista(), begin=0.0, full=0.0, freeze=0.9, every=1)
    _, states = run(method, w=sparse.astype(np.float32), sparsity=None, structure=structures.n_of_m(2, 4), steps=1)
    assert float(states[-1].memory[0].slow["log_gain"]) == 0


def test_the_violation_is_what_the_last_projection_cut_away():
    _, states = run(methods.one_shot(4, at=0.5))
    assert float(states[2].violation[0]) == 0
    assert float(states[3].violation[0]) == pytest.approx(W[~largest(10)].sum() / W.sum())
    assert float(states[4].violation[0]) == pytest.approx(float(states[3].violation[0]))


def test_the_rank_is_lowered_and_kept():
    """64 numbers of 16 x 16 become 2 x 2 x 16: three quarters of the bytes are saved at rank 2."""
    w = np.random.default_rng(4).normal(size=(16, 16)).astype(np.float32)
    rule = structures.rank()
    for make in (methods.one_shot, methods.gradual, methods.acdc, methods.compressed_sensing):
        draw = np.random.default_rng(5).normal(size=(20, 16, 16))
        weights, _ = run(make(20), lambda step, draw=draw: 1e-2 * draw[step], w=w, sparsity=0.75, structure=rule)
        singular = np.linalg.svd(weights[-1], compute_uv=False)
        assert singular[1] > 1e-2
        assert singular[2] < 1e-4 * singular[0]


def test_a_method_of_your_own_in_five_lines():
    """Prunes the largest."""
    perverse = Method(
        "perverse",
        steps=4,
        clock=Clock((1,)),
        ramp=schedules.one_shot(1.0, at=1),
        decide=lambda view: methods.Decision(view.best(-view.worth)),
    )
    weights, _ = run(perverse)
    np.testing.assert_array_equal(weights[-1] != 0, W <= 10)
