"""`csp.sparsify` as a wrapper: any optimizer, any container, inside and around other transformations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import csp
from csp import Rule, methods, structures

STEPS = 6
RULE = Rule("w", structures.entries(), sparsity=0.75)
OPTIMIZERS = {
    "adamw": optax.adamw(1e-2),
    "adam": optax.adam(1e-2),
    "sgd": optax.sgd(1e-2, momentum=0.9, nesterov=True),
    "lion": optax.lion(1e-3),
    "adafactor": optax.adafactor(1e-2, min_dim_size_to_factor=4),
    "lamb": optax.lamb(1e-2),
    "rmsprop": optax.rmsprop(1e-2, momentum=0.9),
    "adabelief": optax.adabelief(1e-2),
    "muon": optax.contrib.muon(1e-2),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.warmup_constant_schedule(0.0, 1e-2, 2))),
    "inject_hyperparams": optax.inject_hyperparams(optax.adamw)(learning_rate=1e-2),
    "apply_if_finite": optax.apply_if_finite(optax.adam(1e-2), 3),
    "masked": optax.chain(optax.masked(optax.scale_by_adam(), {"w": True, "b": False}), optax.scale(-1e-2)),
    "partition": optax.partition({"a": optax.adam(1e-2), "s": optax.sgd(1e-2)}, {"w": "a", "b": "s"}),
}


def _params(seed: int = 0) -> dict[str, jax.Array]:
    return {"w": jax.random.normal(jax.random.key(seed), (16, 8)), "b": jnp.ones(8)}


def _gradients(params: Any, seed: int = 1) -> Any:
    return jax.tree.map(lambda p: p - jax.random.normal(jax.random.key(seed), p.shape).astype(p.dtype), params)


def _train(tx: optax.GradientTransformation, params: Any, steps: int = STEPS) -> tuple[Any, Any]:
    state = tx.init(params)

    @jax.jit
    def step(params, state, seed):
        updates, state = tx.update(_gradients(params, seed), state, params)
        return optax.apply_updates(params, updates), state

    for seed in range(steps):
        params, state = step(params, state, seed)
    assert step._cache_size() == 1
    return params, state


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("make", [methods.compressed_sensing, methods.gradual])
def test_any_optimizer_ends_on_the_budget_with_one_compilation(name, make):
    params, _ = _train(csp.sparsify(OPTIMIZERS[name], RULE, method=make(STEPS)), _params())
    csp.verify(params, RULE)
    assert np.all(np.isfinite(params["w"]))


def test_multi_steps_goes_around():
    tx = optax.MultiSteps(csp.sparsify(optax.adamw(1e-2), RULE, method=methods.gradual(STEPS)), 3)
    params, _ = _train(tx, _params(), 3 * STEPS)
    csp.verify(params, RULE)


def test_inside_masked_partition_and_apply_if_finite():
    sparse = csp.sparsify(optax.adam(1e-2), RULE, method=methods.rigl(STEPS))
    around = [
        optax.apply_if_finite(sparse, 3),
        optax.masked(sparse, {"w": True, "b": False}),
        optax.partition({"a": sparse, "s": optax.sgd(1e-2)}, {"w": "a", "b": "s"}),
        optax.chain(optax.clip(1.0), sparse),
    ]
    for tx in around:
        csp.verify(_train(tx, _params())[0], RULE)


class Pair(NamedTuple):
    kernel: jax.Array
    rest: Any


@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda w: w, ""),
        (lambda w: [[w], (jnp.ones(()), None)], "0/0"),
        (lambda w: Pair(w, {"empty": jnp.zeros((0, 3)), "none": None}), "kernel"),
        (lambda w: {"params": {"Dense_0": {"kernel": w, "bias": jnp.ones(8)}}}, "params/Dense_0/kernel"),
    ],
    ids=["array", "lists", "NamedTuple", "linen"],
)
def test_containers(wrap, path):
    rule = Rule(path, structures.n_of_m(2, 4))
    params, state = _train(csp.sparsify(optax.adam(1e-2), rule, method=methods.gradual(STEPS)), wrap(_params()["w"]))
    csp.verify(params, rule)
    assert [row.path for row in csp.report(params, state).rows if row.structure] == [path]


def test_flax_nnx_state():
    nnx = pytest.importorskip("flax.nnx")
    state = nnx.state(nnx.Linear(16, 8, rngs=nnx.Rngs(0)), nnx.Param)
    rule = Rule("kernel", structures.entries(), sparsity=0.75)
    params, _ = _train(csp.sparsify(optax.adam(1e-2), rule, method=methods.gradual(STEPS)), state)
    csp.verify(params, rule)


def test_equinox_module():
    eqx = pytest.importorskip("equinox")
    params = eqx.filter(eqx.nn.Linear(16, 8, key=jax.random.key(0)), eqx.is_array)
    rule = Rule("weight", structures.entries(), sparsity=0.75)
    params, _ = _train(csp.sparsify(optax.adam(1e-2), rule, method=methods.gradual(STEPS)), params)
    csp.verify(params, rule)


def test_scan_and_vmap_over_seeds_equal_single_runs():
    tx = csp.sparsify(optax.adam(1e-2), RULE, method=methods.compressed_sensing(STEPS))

    def train(seed):
        params = {"w": jax.random.normal(jax.random.key(seed), (16, 8)), "b": jnp.ones(8)}

        def step(carry, i):
            params, state = carry
            updates, state = tx.update(_gradients(params, i), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(STEPS))[0][0]["w"]

    together = jax.jit(jax.vmap(train))(jnp.arange(3))
    for seed in range(3):
        np.testing.assert_array_equal(np.asarray(together[seed]) != 0, np.asarray(jax.jit(train)(seed)) != 0)


def test_donated_buffers_are_not_shared():
    for make in (methods.compressed_sensing, methods.movement, methods.str_):
        tx = csp.sparsify(optax.adam(1e-2), RULE, method=make(STEPS))
        params = _params()
        state = tx.init(params)
        step = jax.jit(lambda p, s, g, tx=tx: tx.update(g, s, p), donate_argnums=(0, 1))
        step(params, state, _gradients(params))


def test_momentum_of_the_dead_is_forgotten_and_their_scale_is_not():
    tx = csp.sparsify(optax.adam(1e-2), RULE, method=methods.one_shot(4))
    params = _params()
    state = tx.init(params)
    for _ in range(2):
        _, state = tx.update(_gradients(params), state, params)
    before = state.inner[0]
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    dead = np.asarray(optax.apply_updates(params, updates)["w"]) == 0
    assert dead.sum() == 96
    assert np.all(np.asarray(state.inner[0].mu["w"])[dead] == 0)
    np.testing.assert_allclose(state.inner[0].nu["w"], 0.999 * before.nu["w"], rtol=1e-5)


def test_settled_training_keeps_the_support_and_nothing_else():
    tx = csp.sparsify(optax.adam(1e-2), RULE, method=methods.compressed_sensing(STEPS))
    params, state = _train(tx, _params())
    settled = csp.settle(state)
    assert settled.memory is None
    updates, settled = jax.jit(tx.update)(_gradients(params), settled, params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(after["w"] != 0, params["w"] != 0)
    assert np.any(np.asarray(after["w"]) != np.asarray(params["w"]))


def test_an_average_is_projected_by_the_support():
    params, _ = _train(csp.sparsify(optax.adam(1e-2), RULE, method=methods.gradual(STEPS)), _params())
    average = jax.tree.map(lambda p: 0.5 * p + 0.1, params)
    csp.verify(jax.tree.map(lambda p, a: jnp.where(p != 0, a, 0), params, average), RULE)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: optax.chain(s(optax.sgd(1.0)), optax.scale(0.1)), "follows sparsify"),
        (lambda s: s(optax.scale_by_adam()), "uphill"),
        (lambda s: s(optax.MultiSteps(optax.sgd(0.1), 2)), "goes around the whole"),
        (lambda s: s(optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()), "goes around the whole"),
        (lambda s: s(s(optax.sgd(0.1))), "twice"),
        (lambda s: s(optax.contrib.schedule_free(optax.sgd(0.1), 0.1)), "averages the weights"),
        (lambda s: optax.contrib.schedule_free(s(optax.sgd(0.1)), 0.1), "averages the weights"),
        (lambda s: s(0.1), "wraps an optax optimizer"),
    ],
)
def test_placements_that_cannot_work_are_refused(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build(lambda inner: csp.sparsify(inner, RULE, method=methods.gradual(STEPS))).init(_params())
    assert "\n" not in str(error.value)
