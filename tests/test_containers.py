"""Which trees of parameters are understood, how are their leaves called, and do they survive a checkpoint?"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import csp
from csp import Rule, methods, rules, structures

STEPS = 4
W = jax.random.normal(jax.random.key(0), (16, 8))
V = jax.random.normal(jax.random.key(1), (8, 4))
B = jnp.ones(8)


class Pair(NamedTuple):
    kernel: Any
    rest: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    kernel: Any
    bias: Any


def linen_params() -> Any:
    linen = pytest.importorskip("flax.linen")
    model = linen.Sequential([linen.Dense(8), jnp.tanh, linen.Dense(4)])
    return model.init(jax.random.key(0), jnp.ones((1, 16)))


def nnx_model() -> Any:
    nnx = pytest.importorskip("flax.nnx")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(16, 8, rngs=rngs)
            self.rest = nnx.List([nnx.BatchNorm(8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)])

        def __call__(self, x):
            return self.rest[1](self.rest[0](self.first(x)))

    return Model(nnx.Rngs(0))


def nnx_state() -> Any:
    nnx = pytest.importorskip("flax.nnx")
    return nnx.split(nnx_model(), nnx.Param, ...)[1]


def nnx_pure_dict() -> Any:
    nnx = pytest.importorskip("flax.nnx")
    return nnx.to_pure_dict(nnx_state())


def equinox_module() -> Any:
    eqx = pytest.importorskip("equinox")
    mlp = eqx.nn.MLP(16, 4, 8, 1, use_final_bias=False, key=jax.random.key(0))
    return eqx.filter(mlp, eqx.is_inexact_array)


NNX = ("first/kernel", "rest/1/kernel")
TREES = {
    "array": (lambda: W, ("",)),
    "dict": (lambda: {"a": {"kernel": W, "bias": B}, "b": {0: V}}, ("a/kernel", "b/0")),
    "lists": (lambda: [[W, B], (V, jnp.ones(()))], ("0/0", "1/0")),
    "NamedTuple": (lambda: Pair(W, {"kernel": V, "empty": jnp.zeros((0, 3)), "none": None}), ("kernel", "rest/kernel")),
    "dataclass": (lambda: {"layer": Layer(W, None), "last": Layer(V, B[:4])}, ("layer/kernel", "last/kernel")),
    "numpy": (lambda: {"kernel": np.asarray(W), "bias": np.ones(8, np.float32)}, ("kernel",)),
    "linen": (linen_params, ("params/layers_0/kernel", "params/layers_2/kernel")),
    "nnx": (nnx_state, NNX),
    "nnx_dict": (nnx_pure_dict, NNX),
    "equinox": (equinox_module, ("layers/0/weight", "layers/1/weight")),
}


def gradients(params: Any, number: int) -> Any:
    rng = np.random.default_rng(number)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=np.shape(p)), p.dtype), params)


def compiled(tx: optax.GradientTransformation, params: Any, state: Any) -> Callable:
    def step(gradients, state, params):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step).lower(params, state, params).compile()


def trained(step: Callable, params: Any, state: Any, numbers: range) -> tuple[Any, Any]:
    for number in numbers:
        params, state = step(gradients(params, number), state, params)
    return params, state


@pytest.mark.parametrize("name", TREES)
def test_any_tree_by_the_names_its_users_know(name):
    make, matrices = TREES[name]
    params = make()
    rule = Rule("|".join(matrices), structures.entries(), sparsity=0.75)
    tx = csp.sparsify(optax.adam(1e-2), rule, method=methods.gradual(STEPS))
    state = tx.init(params)
    after, state = trained(compiled(tx, params, state), params, state, range(STEPS))
    assert jax.tree.structure(after) == jax.tree.structure(params)
    csp.verify(after, rule)
    sparse = {path for path, part in csp.density(after).items() if part == 0.25}
    assert sparse == set(matrices)
    assert {row.path for row in csp.report(after, state).rows if row.structure} == set(matrices)


@pytest.mark.parametrize("name", TREES)
def test_the_short_form_finds_the_matrices_and_nothing_else(name):
    make, matrices = TREES[name]
    params = make()
    found = rules.bind(params, rules.complete((), 0.75, params), STEPS)
    assert {target.path for target in found} == set(matrices)


@pytest.mark.parametrize("params", [jnp.ones(()), {"a": jnp.ones(()), "b": jnp.zeros((0, 4))}, {}, None])
def test_nothing_to_prune_is_an_error(params):
    with pytest.raises(ValueError, match=r"name|prune"):
        csp.sparsify(optax.sgd(0.1), sparsity=0.5, steps=STEPS).init(params)


def test_flax_train_state():
    train_state = pytest.importorskip("flax.training.train_state")
    params = linen_params()["params"]
    tx = csp.sparsify(optax.adamw(1e-2), sparsity=0.75, method=methods.rigl(STEPS))
    state = train_state.TrainState.create(apply_fn=None, params=params, tx=tx)
    step = jax.jit(lambda state, gradients: state.apply_gradients(grads=gradients))
    for number in range(STEPS):
        state = step(state, gradients(state.params, number))
    csp.verify(state.params, sparsity=0.75)
    assert csp.report(state.params, state.opt_state).rows


def test_flax_nnx_optimizer():
    nnx = pytest.importorskip("flax.nnx")
    model = nnx_model()
    rule = Rule("|".join(NNX), structures.n_of_m(2, 4))
    tx = csp.sparsify(optax.adamw(1e-2), rule, method=methods.compressed_sensing(STEPS))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        slopes = nnx.grad(lambda model: jnp.mean(jnp.square(model(x) - 1)))(model)
        optimizer.update(model, slopes)

    for number in range(STEPS):
        step(model, optimizer, jax.random.normal(jax.random.key(number), (32, 16)))
    csp.verify(nnx.state(model, nnx.Param), rule)


def test_an_equinox_module_with_its_functions():
    """They are no parameters: what counts passes over them, and what trains says what to give."""
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(16, 4, 8, 1, key=jax.random.key(0))
    assert csp.density(model, total=True) == 1.0
    assert {row.path for row in csp.report(model).rows} == set(csp.density(model))
    with pytest.raises(ValueError, match=r"'activation' is no array .*eqx.filter\(model, eqx.is_inexact_array\)"):
        csp.sparsify(optax.sgd(0.1), sparsity=0.5, steps=10).init(model)


def test_equinox_training():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(16, 4, 8, 1, key=jax.random.key(0))
    tx = csp.sparsify(optax.adamw(1e-2), sparsity=0.75, method=methods.compressed_sensing(STEPS))
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, x):
        slopes = eqx.filter_grad(lambda model: jnp.mean(jnp.square(jax.vmap(model)(x) - 1)))(model)
        updates, state = tx.update(slopes, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state

    for number in range(STEPS):
        model, state = step(model, state, jax.random.normal(jax.random.key(number), (32, 16)))
    csp.verify(eqx.filter(model, eqx.is_inexact_array), sparsity=0.75)


METHODS = {
    "dual": methods.compressed_sensing,
    "trimmed": functools.partial(methods.compressed_sensing, iterate=methods.trimmed()),
    "movement": methods.movement,
}


def interrupted(make, through) -> None:
    """Half a training, through a file, and the other half: the same bits as without the file."""
    tx = csp.sparsify(optax.adamw(1e-2), sparsity=0.75, method=make(STEPS))
    params = {"a": {"kernel": W, "bias": B}, "b": V}
    state = tx.init(params)
    step = compiled(tx, params, state)
    half = trained(step, params, state, range(STEPS // 2))
    restored = through(half)
    for before, after in zip(jax.tree.leaves(half), jax.tree.leaves(restored), strict=True):
        assert before.dtype == after.dtype
    whole = trained(step, *half, range(STEPS // 2, STEPS))
    resumed = trained(step, *restored, range(STEPS // 2, STEPS))
    assert jax.tree.structure(whole) == jax.tree.structure(resumed)
    for x, y in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", METHODS)
def test_numpy_files_hold_all_there_is(name, tmp_path):
    def through(tree):
        leaves, treedef = jax.tree.flatten(tree)
        np.savez(tmp_path / "half.npz", **{str(i): leaf for i, leaf in enumerate(leaves)})
        with np.load(tmp_path / "half.npz", allow_pickle=False) as file:
            return treedef.unflatten([file[str(i)] for i in range(len(leaves))])

    interrupted(METHODS[name], through)


@pytest.mark.parametrize("name", METHODS)
def test_orbax_checkpoints_hold_all_there_is(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that orbax imports
        ocp = pytest.importorskip("orbax.checkpoint")

    def through(tree):
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "half", tree)
            checkpointer.wait_until_finished()
            return checkpointer.restore(tmp_path / "half", jax.tree.map(ocp.utils.to_shape_dtype_struct, tree))

    interrupted(METHODS[name], through)
