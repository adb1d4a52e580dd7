"""Is a unit worth what the formula of its metric says?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import csp
from csp import methods, metrics, structures
from csp.metrics import Sight

W = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
GRADIENTS = np.random.default_rng(1).normal(size=(5, 4, 3)).astype(np.float32)


def see(metric: metrics.Metric, points=W, gradients=GRADIENTS, **seen) -> Sight:
    """What the metric knows after these gradients at these points."""
    sight = Sight("w", jnp.asarray(W), **seen)
    sight = sight._replace(memory=metric.start(sight))
    for gradient, point in zip(gradients, np.broadcast_to(points, gradients.shape), strict=True):
        now = sight._replace(gradient=jnp.asarray(gradient), point=jnp.asarray(point))
        sight = now._replace(memory=metric.observe(now))
    return sight


def moving_average(values, decay=metrics.DECAY):
    mean = np.zeros_like(values[0])
    for value in values:
        mean = decay * mean + (1 - decay) * value
    return mean


def test_magnitude():
    np.testing.assert_array_equal(metrics.magnitude().worth(see(metrics.magnitude())), np.abs(W))


def test_adam_is_the_fourth_root_of_the_second_moment():
    nu = np.square(GRADIENTS[0])
    worth = metrics.adam().worth(see(metrics.adam(), second=jnp.asarray(nu)))
    np.testing.assert_allclose(worth, nu**0.25 * np.abs(W), rtol=1e-5)


def test_fisher_is_the_square_root_of_the_second_moment():
    nu = np.square(GRADIENTS[0])
    sight = see(metrics.fisher(), second=jnp.asarray(nu, jnp.bfloat16))
    assert sight.memory == ()
    np.testing.assert_allclose(metrics.fisher().worth(sight), np.sqrt(nu) * np.abs(W), rtol=1e-2)
    assert metrics.fisher().worth(sight).dtype == jnp.float32


def test_fisher_keeps_its_own_moment_where_the_optimizer_has_none():
    worth = metrics.fisher().worth(see(metrics.fisher()))
    np.testing.assert_allclose(worth, np.sqrt(moving_average(np.square(GRADIENTS))) * np.abs(W), rtol=1e-5)


def test_both_fishers_agree_but_for_a_factor():
    """An RMSprop of the same decay remembers the same; Adam's bias correction is one factor for all."""
    rms = optax.scale_by_rms(decay=metrics.DECAY)
    state = rms.init(jnp.asarray(W))
    for gradient in GRADIENTS:
        _, state = rms.update(jnp.asarray(gradient), state)
    theirs = metrics.fisher().worth(see(metrics.fisher(), second=state.nu))
    np.testing.assert_allclose(theirs, metrics.fisher().worth(see(metrics.fisher())), rtol=1e-5)


def test_taylor_is_the_first_order_change_of_the_loss():
    points = W + np.linspace(0, 1, 5)[:, None, None].astype(np.float32)
    sight = see(metrics.taylor(), points)
    expected = np.sqrt(moving_average(np.abs(GRADIENTS * points)))
    np.testing.assert_allclose(metrics.taylor().worth(sight), expected, rtol=1e-5)


@pytest.mark.parametrize("memory", [0.0, 1.0, 1e6, 1e30])
def test_taylor_of_a_vanishing_weight_vanishes(memory):
    point = jnp.array([[0.0, 1e-25, -1e-30, 2.0]])
    sight = Sight("w", point, memory=jnp.full(point.shape, memory))
    worth = metrics.taylor().worth(sight)
    assert jnp.all(jnp.isfinite(worth))
    assert worth[0, 0] == 0
    assert jnp.all(worth[0, :3] <= worth[0, 3])


def test_activation_is_wanda():
    """|W| times the norm of each input, from a matrix of inputs."""
    inputs = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
    mean_square = np.mean(np.square(inputs), axis=0)
    metric = metrics.activation()
    worth = metric.worth(see(metric, activations=jnp.asarray(mean_square)))
    wanda = np.abs(W) * np.linalg.norm(inputs, axis=0)[:, None]
    np.testing.assert_allclose(worth / worth[0, 0], wanda / wanda[0, 0], rtol=1e-4)


def test_movement_rewards_what_the_gradient_moves_away_from_zero():
    metric = metrics.movement()
    point, gradient = np.array([[2.0, 2.0, -2.0, -2.0]]), np.array([[1.0, -1.0, 1.0, -1.0]])
    sight = Sight("w", jnp.asarray(point, jnp.float32), jnp.asarray(gradient, jnp.float32), memory=jnp.zeros((1, 4)))
    sight = sight._replace(memory=metric.observe(sight))
    np.testing.assert_array_equal(np.sign(metric.worth(sight)), [[-1, 1, 1, -1]])


def test_movement_accumulates():
    worth = metrics.movement().worth(see(metrics.movement()))
    np.testing.assert_allclose(worth, -np.sum(GRADIENTS * W, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["magnitude", "adam", "fisher", "taylor", "activation"])
def test_a_unit_is_worth_the_norm_of_its_entries(name):
    """Pruning costs D w^2 / 2, which adds up over a unit."""
    metric = getattr(metrics, name)()
    sight = see(metric, second=jnp.square(GRADIENTS[0]) if name == "adam" else None, activations=jnp.arange(1.0, 5.0))
    worth = metric.worth(sight)
    units = structures.rows().layout(worth, metric.pool)
    np.testing.assert_allclose(units, np.linalg.norm(worth, axis=1), rtol=1e-5)


def test_movement_of_a_unit_is_the_sum():
    worth = metrics.movement().worth(see(metrics.movement()))
    units = structures.columns().layout(worth, metrics.movement().pool)
    np.testing.assert_allclose(units, np.sum(worth, axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["adam", "fisher", "taylor", "activation", "movement"])
def test_before_anything_is_seen_magnitude_decides(name):
    """A support chosen on the first step is that of the largest weights, not of the first ones."""
    params = {"w": jnp.asarray(W)}
    rule = csp.Rule("w", structures.entries(), metric=getattr(metrics, name)(), sparsity=0.5)
    tx = csp.sparsify(optax.adam(1e-6), rule, method=methods.static(steps=3))
    step = functools.partial(tx.update, activations={"w": jnp.ones(4)})
    updates, _ = jax.jit(step)(params, tx.init(params), params)
    largest = np.abs(W) >= np.sort(np.abs(W), axis=None)[-6]
    np.testing.assert_array_equal(optax.apply_updates(params, updates)["w"] != 0, largest)


def test_a_metric_of_your_own_needs_a_diagonal_and_no_more():
    ours = metrics.Metric("late columns", diagonal=lambda sight: jnp.array([0.0, 1.0, 100.0]))
    rule = csp.Rule("w", structures.columns(), metric=ours, sparsity=0.34)
    tx = csp.sparsify(optax.sgd(1e-6), rule, method=methods.static(steps=3))
    params = {"w": jnp.ones((4, 3))}
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    assert (optax.apply_updates(params, updates)["w"] != 0).all(axis=0).tolist() == [False, True, True]
