"""Does the dual iterate do what it says: remember, fade, forget, and judge in the metric that it prefers?"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from one_matrix import SHAPE, W, counts, largest, run

import csp
from csp import methods, metrics, shrinkage, structures
from csp.methods.dual import _decoded, _encoded


def test_the_dual_iterate_remembers_what_it_prunes():
    """The smallest weights are pruned, their shadows grow under the gradient, and they come back."""
    smallest = W <= 4
    method = methods.compressed_sensing(20, methods.dual(0.0, firm=1.0), begin=0.0, full=0.2, freeze=0.9, every=1)
    weights, states = run(method, lambda step: -2.0 * smallest * (step > 4))
    assert not np.any(weights[5][smallest])
    assert np.all(weights[-1][smallest] != 0)
    np.testing.assert_allclose(states[-1].memory[0].fast[smallest], W[smallest] + 30)
    assert counts(weights)[5:] == [10] * 16


def test_the_pull_shrinks_the_tail_of_the_shadow_by_its_sum():
    """By the product of 1 / (1 + c_t), with c_t = 3 pull x^2 / span, on what is dead from the first step on."""
    method = methods.compressed_sensing(40, methods.dual(2.0, firm=1.0), begin=0.0, full=0.0, freeze=0.9, every=1)
    _, states = run(method)
    shadow = np.asarray(states[-1].memory[0].fast)
    c = [3 * 2.0 * (t / 36) ** 2 / 36 for t in range(37)]
    np.testing.assert_allclose(shadow[largest(10)], W[largest(10)])
    np.testing.assert_allclose(shadow[~largest(10)], W[~largest(10)] / np.prod(1 + np.array(c)), rtol=1e-4)
    assert sum(c) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("gamma", [1.0, 1.5, np.inf])
def test_the_projection_of_the_shadow_is_firm_and_the_shadow_becomes_it(gamma):
    """10 is the largest dead magnitude, of 11 to 20 that live."""
    method = methods.compressed_sensing(20, methods.dual(0.0, firm=gamma), begin=0.0, full=0.0, freeze=0.5, every=1)
    weights, states = run(method)
    expected = np.where(largest(10), shrinkage.firm(W, 10.0, gamma), 0)
    for step in (0, 5, 10, 15):
        np.testing.assert_allclose(weights[step + 1], expected, rtol=1e-6)
    np.testing.assert_array_equal(weights[10], weights[-1])
    np.testing.assert_allclose(np.asarray(states[-1].memory[0].fast)[largest(10)], expected[largest(10)], rtol=1e-6)


def test_each_competition_has_a_threshold_of_its_own():
    w = np.array([[4.0], [3.0], [2.0], [1.0], [0.4], [0.3], [0.2], [0.1]], np.float32)
    method = methods.compressed_sensing(20, methods.dual(0.0, firm=2.0), begin=0.0, full=0.0, freeze=0.5, every=1)
    weights, _ = run(method, w=w, sparsity=None, structure=structures.n_of_m(2, 4))
    np.testing.assert_allclose(weights[5][:, 0], [4, 2, 0, 0, 0.4, 0.2, 0, 0], rtol=1e-6)


def test_blocks_fade_as_a_whole():
    w = np.array([[3.0, 6.0], [4.0, 8.0], [0.0, 30.0], [2.0, 40.0]], np.float32)  # norms 5, 10, 2, 50
    method = methods.compressed_sensing(20, methods.dual(0.0, firm=4.0), begin=0.0, full=0.0, freeze=0.5, every=1)
    weights, _ = run(method, w=w, structure=structures.blocks(2, 1))
    faded = 4 / 3 * (10 - 5) / 10
    np.testing.assert_allclose(weights[5], [[0, 6 * faded], [0, 8 * faded], [0, 30], [0, 40]], rtol=1e-6)


def test_the_straight_through_estimator_is_the_bare_dual_iterate():
    """With the same path of the budget."""
    ste = methods.ste(20, every=2)
    ours = dataclasses.replace(methods.compressed_sensing(20, methods.dual(0.0, 1.0), freeze=1.0, every=2), name="ste")
    draw = np.random.default_rng(1).normal(size=(20, *SHAPE))
    a, b = (run(method, lambda step: draw[step])[0] for method in (ste, ours))
    np.testing.assert_array_equal(a[-1], b[-1])


def steepness(scale: np.ndarray):
    """Gradients of constant size and changing sign, so that Adam's second moments become their squares."""
    return lambda step: scale * (-1.0) ** step


def rested(rate: float = 0.0) -> optax.GradientTransformation:
    return optax.adam(rate, b2=0.5)


SCALE = np.random.default_rng(3).permutation(np.geomspace(1, 1e4, W.size)).reshape(SHAPE)
WORTH = W * np.sqrt(SCALE)  # sqrt(sqrt(second moment)) |w|


@pytest.mark.parametrize("gamma", [1.0, 1.5, 4.0])
def test_units_fade_by_their_worth_in_the_metric_of_adam(gamma):
    """Which is the metric of rules that name none."""
    method = methods.compressed_sensing(60, methods.dual(0.0, firm=gamma), begin=0.0, full=0.0, freeze=0.9, every=1)
    weights, _ = run(method, steepness(SCALE), inner=rested())
    edge = np.sort(WORTH, axis=None)[9]
    least, most = (
        np.where(largest(10, WORTH), np.abs(W) * shrinkage.firm(WORTH, edge * (1 + error), gamma) / WORTH, 0)
        for error in (1 / 30, -1 / 30)  # a byte says what the root of the metric was
    )
    assert np.all(np.abs(weights[50]) >= least * (1 - 1e-3))
    assert np.all(np.abs(weights[50]) <= most * (1 + 1e-3))
    np.testing.assert_array_equal(np.sign(weights[50]), np.where(weights[50] != 0, np.sign(W), 0))


def test_a_byte_holds_a_root_within_a_thirtieth():
    ratio = np.geomspace(1, 2**15.9, 5001, dtype=np.float32)
    code = np.asarray(_encoded(jnp.asarray(ratio)))
    assert (code.min(), code.max(), _decoded(jnp.uint8(1))) == (1, 255, 1.0)  # by size nothing is rounded
    assert np.all(np.diff(code) >= 0)
    np.testing.assert_allclose(_decoded(jnp.asarray(code, jnp.uint8)), ratio, rtol=1 / 30)
    np.testing.assert_array_equal(_encoded(jnp.asarray([np.inf, 1e30, np.nan])), 255)


def test_a_metric_that_a_rule_names_is_obeyed():
    rule = csp.Rule("w", structures.entries(), metrics.magnitude(), sparsity=0.5)
    weights, _ = run(methods.compressed_sensing(60), steepness(SCALE), inner=rested(), rule=rule)
    np.testing.assert_array_equal(weights[-1] != 0, largest(10))


@pytest.mark.parametrize("inner", [optax.sgd(0.0), optax.lion(0.0), optax.sgd(0.0, momentum=0.9)])
def test_without_second_moments_worth_is_size(inner):
    weights, _ = run(methods.compressed_sensing(20), steepness(SCALE), inner=inner)
    np.testing.assert_array_equal(weights[-1] != 0, largest(10))


def test_each_tensor_has_the_metric_that_its_optimizer_allows():
    """Half of the tensors are trained by Adam, the others without second moments."""
    labels = {"a": "adam", "b": "sgd"}
    inner = optax.partition({"adam": rested(), "sgd": optax.sgd(0.0)}, labels)
    tx = csp.sparsify(inner, csp.Rule(".", structures.entries(), sparsity=0.5), method=methods.compressed_sensing(40))
    params = {name: jnp.asarray(W) for name in labels}
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(40):
        gradient = jnp.asarray(steepness(SCALE)(step), jnp.float32)
        updates, state = update(dict.fromkeys(labels, gradient), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(params["a"] != 0, largest(10, WORTH))
    np.testing.assert_array_equal(params["b"] != 0, largest(10))


@pytest.mark.parametrize("make", [methods.gradual, methods.one_shot, methods.acdc, methods.ste])
def test_others_prefer_magnitude(make):
    weights, _ = run(make(20), lambda step: 1e-9 * steepness(SCALE)(step), inner=rested())
    np.testing.assert_array_equal(weights[-1] != 0, largest(10))


def test_what_is_projected_before_any_gradient_does_not_fade():
    """At step 0 worth is size, and from step 1 on it is not: an edge of then would say nothing."""
    method = methods.compressed_sensing(40, begin=0.0, full=0.0, every=10)
    weights, _ = run(method, steepness(1e-6 * SCALE), inner=rested(), steps=10)
    np.testing.assert_array_equal(weights[9], np.where(largest(10), W, 0))


@pytest.mark.parametrize("make", [methods.gradual, methods.compressed_sensing, methods.rigl, methods.acdc])
def test_a_length_may_be_a_whole_float(make):
    assert make(1e3).clock == make(1000).clock
    with pytest.raises(ValueError, match=r"whole number of steps in \[1, 2\^31\), got 10\.5"):
        make(10.5)


def test_an_input_that_never_fires_fades_with_the_budget_and_not_before():
    """Its second moments stay zero, so that it is worth nothing, and is left alone for as long as there is room."""
    scale = SCALE * (np.arange(SHAPE[0]) > 0)[:, None]
    method = methods.compressed_sensing(60, begin=0.2, full=0.5, freeze=0.9, every=3)
    weights, _ = run(method, steepness(scale), inner=rested())
    np.testing.assert_array_equal(weights[12], W)
    assert not weights[-1][0].any()
    assert counts(weights)[-1] == 10


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_a_gradient_whose_square_overflows_makes_no_nan(dtype):
    """Adam survives it, with a step of nothing; so does what judges by its second moment."""
    loud = 1e25 if dtype == jnp.float32 else 300.0
    tx = csp.sparsify(optax.adam(1e-2, eps=1e-4), sparsity=0.5, method=methods.compressed_sensing(60))
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(16, 16)), dtype)}
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(60):
        gradient = (params["w"] - 1).at[0, 0].add(jnp.asarray(loud if step == 20 else 0, dtype))
        updates, state = update({"w": gradient}, state, params)
        params = optax.apply_updates(params, updates)
    assert jnp.all(jnp.isfinite(params["w"]))
    csp.verify(params, sparsity=0.5)


@pytest.mark.parametrize("iterate", [methods.trimmed, methods.ista])
def test_nor_where_weights_shrink_in_that_metric(iterate):
    method = methods.compressed_sensing(60, iterate(shrink=methods.metric()))
    rule = csp.Rule("w", structures.entries(), metric=metrics.adam(), sparsity=0.5)
    loud = np.zeros(SHAPE)
    loud[0, 0] = 1e25
    weights, _ = run(method, lambda step: loud * (step == 20), inner=optax.adam(1e-2, eps=1e-4), rule=rule)
    assert np.isfinite(weights[-1]).all()
