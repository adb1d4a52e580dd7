"""Is what an optimizer remembers of a parameter found, whatever is wrapped around it?"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import csp
from csp import methods, moments, structures

PARAMS = {
    "encoder": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)},
    "kernel": jnp.ones((3, 2)),
    "list": [jnp.ones((3, 2)), (jnp.ones((2, 2)), None)],
}
PATHS = [path for path, _ in jax.tree_util.tree_leaves_with_path(PARAMS)]


def kernels(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


WITH_SECOND = {
    "adam": optax.adam(1e-3),
    "adamw": optax.adamw(1e-3),
    "rmsprop": optax.rmsprop(1e-3),
    "adagrad": optax.adagrad(1e-3),
    "lamb": optax.lamb(1e-3),
    "chain": optax.chain(optax.clip(9.0), optax.adam(1e-3), optax.add_decayed_weights(1e-4)),
    "inject_hyperparams": optax.inject_hyperparams(optax.adam)(learning_rate=1e-3),
    "apply_if_finite": optax.apply_if_finite(optax.adam(1e-3), 3),
    "partition": optax.partition({True: optax.adam(1e-3), False: optax.adam(1e-4)}, kernels),
}
WITHOUT_SECOND = {
    "sgd": optax.sgd(1e-3),
    "momentum": optax.sgd(1e-3, momentum=0.9),
    "lion": optax.lion(1e-3),
}


def trained(optimizer: optax.GradientTransformation):
    """Its state after one step with a gradient whose square is the number of the parameter plus one."""
    leaves, treedef = jax.tree.flatten(PARAMS)
    gradients = treedef.unflatten([jnp.full_like(p, np.sqrt(i + 1)) for i, p in enumerate(leaves)])
    return optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)[1]


@pytest.mark.parametrize("name", WITH_SECOND)
def test_each_parameter_finds_its_own_second_moment(name):
    """Told apart by their sizes, which grow with the number of the parameter, as all shapes but two are alike."""
    seconds = moments.second_moments(trained(WITH_SECOND[name]), PARAMS)
    sizes = [float(seconds[i].mean()) for i in range(len(PATHS))]
    if name == "adagrad":
        sizes = [size - 0.1 for size in sizes]  # where its accumulator starts
    np.testing.assert_allclose(np.array(sizes) / sizes[0], np.arange(1, 1 + len(PATHS)), rtol=1e-5)


@pytest.mark.parametrize("name", WITHOUT_SECOND)
def test_none_is_found_where_there_is_none(name):
    assert moments.second_moments(trained(WITHOUT_SECOND[name]), PARAMS) == {}


def test_factored_moments_are_not_taken_for_full_ones():
    seconds = moments.second_moments(trained(optax.adafactor(1e-3, min_dim_size_to_factor=1)), PARAMS)
    assert [PARAMS["encoder"]["bias"].shape] == [second.shape for second in seconds.values()]


def test_what_is_masked_away_has_none():
    optimizer = optax.masked(optax.adam(1e-3), kernels)
    seconds = moments.second_moments(optimizer.init(PARAMS), PARAMS)
    vectors = [i for i, leaf in enumerate(jax.tree.leaves(PARAMS)) if leaf.ndim < 2]
    assert set(seconds) == set(range(len(PATHS))) - set(vectors)


def test_the_longest_path_wins():
    """ "kernel" is also how "encoder/kernel" ends."""
    mirrors = moments.match(optax.sgd(0.1, momentum=0.9).init(PARAMS), PARAMS)
    assert sorted(i for _, i, _ in mirrors) == list(range(len(PATHS)))


def test_leaves_of_another_shape_are_no_mirror():
    assert moments.match({"trace": {"w": jnp.ones(())}}, {"w": jnp.ones((2, 2))}) == []


def momentum_after_a_refresh(optimizer: optax.GradientTransformation, gradient, name: str):
    """Of one that lived and lives, one pruned, after dense steps and a projection on half of four weights."""
    params = {"w": jnp.array([[1.0, 2.0], [3.0, 4.0]])}
    rule = csp.Rule("w", structures.entries(), sparsity=0.5)
    tx = csp.sparsify(optimizer, rule, method=methods.one_shot(steps=4))
    state = tx.init(params)
    with jax.disable_jit():
        for _ in range(2):
            updates, state = tx.update({"w": jnp.full((2, 2), gradient)}, state, params)
            params = optax.apply_updates(params, updates)
        _, state = tx.update({"w": jnp.zeros((2, 2))}, state, params)
    return np.asarray(optax.tree_utils.tree_get(state, name)["w"])


@pytest.mark.parametrize("gradient", [-1.0, 1.0])
def test_pruned_weights_lose_their_momentum(gradient):
    trace = momentum_after_a_refresh(optax.sgd(1e-3, momentum=0.9), gradient, "trace")
    np.testing.assert_array_equal(trace != 0, [[False, False], [True, True]])


def test_second_moments_stay():
    nu = momentum_after_a_refresh(optax.adam(1e-3), 1.0, "nu")
    assert (nu > 0).all()


def test_an_unnamed_leaf_is_momentum_if_it_is_negative_anywhere():
    carries = jnp.array([True, False])
    unnamed = (jax.tree_util.SequenceKey(0),)
    assert moments.forget(jnp.array([-1.0, 2.0]), unnamed, carries).tolist() == [-1, 0]
    assert moments.forget(jnp.array([1.0, 2.0]), unnamed, carries).tolist() == [1, 2]
