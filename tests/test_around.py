"""`csp.sparsify` inside other wrappers, and under every transformation of JAX."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from wrapped import LABELS, LEARNING_RATE, RULE, STEPS, apply, compiled, make_gradients, make_params, train

import csp
from csp import Rule, methods, metrics, structures

SPARSE = csp.sparsify(optax.adam(LEARNING_RATE), RULE, method=methods.rigl(STEPS))
AROUND = {
    "MultiSteps": (optax.MultiSteps(SPARSE, 3), 3 * STEPS),
    "MultiSteps_as_a_link": (optax.chain(optax.clip(1.0), optax.MultiSteps(SPARSE, 2).gradient_transformation()), 12),
    "apply_if_finite": (optax.apply_if_finite(SPARSE, 3), STEPS),
    "masked": (optax.masked(SPARSE, {"w": True, "b": False}), STEPS),
    "partition": (optax.partition({"matrix": SPARSE, "vector": optax.sgd(0.1)}, LABELS), STEPS),
    "last_in_a_chain": (optax.chain(optax.clip_by_global_norm(1.0), SPARSE), STEPS),
    "inject_hyperparams": (
        optax.inject_hyperparams(
            lambda learning_rate: csp.sparsify(optax.adam(learning_rate), RULE, method=methods.rigl(STEPS))
        )(learning_rate=LEARNING_RATE),
        STEPS,
    ),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_goes_around_leaves_the_budget_exact(name):
    tx, steps = AROUND[name]
    params, _ = train(tx, make_params(), steps)
    csp.verify(params, RULE)


def test_accumulation_counts_updates_and_not_steps():
    tx = optax.MultiSteps(csp.sparsify(optax.sgd(0.1), RULE, method=methods.one_shot(STEPS, at=0.5)), 3)
    params, state = make_params(), tx.init(make_params())
    step = compiled(tx, params, state)
    alive = []
    for number in range(3 * STEPS):
        params, state = step(params, state, make_gradients(params, number))
        alive.append(int(np.count_nonzero(params["w"])))
    assert alive == [128] * 11 + [32] * 7  # the fourth update is the third of its accumulation


def test_one_compilation_serves_the_whole_training():
    for make in (methods.compressed_sensing, methods.gradual):
        tx = csp.sparsify(optax.adamw(LEARNING_RATE), RULE, method=make(STEPS))
        params, step = make_params(), jax.jit(functools.partial(apply, tx))
        state = jax.jit(tx.init)(params)
        for number in range(STEPS):
            params, state = step(params, state, make_gradients(params, number))
        assert step._cache_size() == 1
        csp.verify(params, RULE)


def test_scanned_and_over_seeds_at_once_is_one_by_one():
    tx = csp.sparsify(optax.adam(LEARNING_RATE), RULE, method=methods.compressed_sensing(STEPS))

    def trained(params):
        def step(carry, gradients):
            return apply(tx, *carry, gradients), None

        noise = jnp.linspace(-1, 1, STEPS * 128).reshape(STEPS, 16, 8)
        gradients = {"w": jnp.sin(40 * noise), "b": jnp.ones((STEPS, 8))}
        return jax.lax.scan(step, (params, tx.init(params)), gradients)[0][0]["w"]

    seeds = [make_params(seed) for seed in range(2)]
    together = jax.jit(jax.vmap(trained))(jax.tree.map(lambda *p: jnp.stack(p), *seeds))
    alone = jax.jit(trained)
    for w, params in zip(together, seeds, strict=True):
        np.testing.assert_array_equal(w != 0, alone(params) != 0)
        np.testing.assert_allclose(w, alone(params), rtol=1e-5, atol=1e-7)


DONATED = {
    "dual": (methods.compressed_sensing(STEPS), metrics.magnitude()),
    "trimmed": (methods.compressed_sensing(STEPS, methods.trimmed()), metrics.fisher()),
    "movement": (methods.movement(STEPS), metrics.magnitude()),
    "str": (methods.str_(STEPS), metrics.magnitude()),
    "taylor": (methods.gradual(STEPS), metrics.taylor()),
}


@pytest.mark.parametrize("name", DONATED)
@pytest.mark.parametrize("inner", [optax.adam(LEARNING_RATE), optax.sgd(LEARNING_RATE, 0.9)], ids=["adam", "momentum"])
def test_parameters_and_state_can_be_donated(name, inner):
    method, metric = DONATED[name]
    rule = Rule("w", structures.entries(), metric=metric, sparsity=0.75)
    tx = csp.sparsify(inner, rule, method=method)
    params = make_params()
    state = tx.init(params)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((params, state))]
    assert len(buffers) == len(set(buffers)), "two leaves share a buffer"
    step = jax.jit(functools.partial(apply, tx), donate_argnums=(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params, state = step(params, state, make_gradients(params))
        step(params, state, make_gradients(params))


def test_a_hunt_for_nan_finds_none_of_ours():
    """Not even in a step that is not compiled, as jax repeats one in which it found some."""
    tx, params = csp.sparsify(optax.adam(0.1), RULE, steps=STEPS), make_params()
    state = tx.init(params)
    with jax.debug_nans(True):
        tx.update(make_gradients(params), state, params)


def test_other_keyword_arguments_reach_the_optimizer():
    tx = csp.sparsify(optax.polyak_sgd(), RULE, method=methods.static(STEPS))
    params = make_params()
    _, state = tx.update(make_gradients(params), tx.init(params), params, value=jnp.float32(1.0))
    with pytest.raises(TypeError, match="value"):
        tx.update(make_gradients(params), state, params)


def test_activations_are_for_the_metric_alone():
    def update(updates, state, params=None, **extra):
        assert set(extra) == {"value"}
        return jax.tree.map(jnp.negative, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    rule = Rule("w", structures.entries(), metric=metrics.activation(), sparsity=0.75)
    tx = csp.sparsify(inner, rule, method=methods.static(STEPS))
    params = make_params()
    state = tx.init(params)
    tx.update(params, state, params, activations={"w": jnp.ones(16)}, value=jnp.ones(()))
    with pytest.raises(ValueError, match="'w': metric activation needs the mean squared inputs"):
        tx.update(params, state, params, value=jnp.ones(()))
