"""What must hold of a language model: no label sees another sentence or the future; steps are the whole, one by one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from csp import lowrank, models
from csp.models import lm
from csp.models.smaller import smaller

CONFIG = lm.LMConfig(layers=2, width=16, heads=2)
NETWORKS = {
    "rotary": CONFIG,
    "learned": dataclasses.replace(CONFIG, positions="learned", context=12),
    "untied": dataclasses.replace(CONFIG, tied=False),
    "lstm": dataclasses.replace(CONFIG, network="lstm"),
}


@pytest.fixture(params=NETWORKS)
def made(request):
    structure, params = lm.create(NETWORKS[request.param], 9)
    return structure, jax.tree.map(lambda w: w + 0.1 * jnp.sin(jnp.arange(w.size).reshape(w.shape)), params)


_apply = jax.jit(models.apply, static_argnums=(0, 2))


def logits(made, inputs, documents):
    return _apply(*made, "logits", jnp.asarray(inputs), jnp.asarray(documents))


def test_a_packed_sentence_is_as_if_alone(made):
    packed = logits(made, [[0, 3, 4, 0, 5, 6, 7, 0]], [[1, 1, 1, 2, 2, 2, 2, 0]])
    assert np.allclose(packed[0, :3], logits(made, [[0, 3, 4]], [[1, 1, 1]])[0], atol=1e-5)
    assert np.allclose(packed[0, 3:7], logits(made, [[0, 5, 6, 7]], [[1, 1, 1, 1]])[0], atol=1e-5)


def test_the_future_is_not_seen(made):
    one, other = logits(made, [[0, 3, 4, 5]], [[1] * 4]), logits(made, [[0, 3, 8, 1]], [[1] * 4])
    assert np.allclose(one[0, :2], other[0, :2], atol=1e-6)
    assert not np.allclose(one[0, 2], other[0, 2], atol=1e-3)


def test_step_by_step_is_the_whole(made):
    model, rows = nnx.merge(*made), jnp.array([[0, 3, 4, 5], [0, 7, 1, 2]])
    state, found = model.start(2, 4), []
    for t in range(4):
        log_KxV, state = model.step(rows[:, t], state)
        found.append(log_KxV)
    whole = jax.nn.log_softmax(logits(made, rows, np.ones((2, 4), int)))
    assert np.allclose(jnp.stack(found, 1), whole, atol=1e-5)


def test_gradients_stop_at_the_edge_of_a_sentence(made):
    """Finite differences of the loss of the second sentence; the first has no part in it."""
    structure, params = made
    inputs, targets = jnp.array([[0, 3, 4, 0, 5, 6]]), jnp.array([[3, 4, 0, 5, 6, 0]])
    documents = jnp.array([[1, 1, 1, 2, 2, 2]])

    @jax.jit
    def second(p):
        return models.apply(structure, p, "losses", inputs, targets, documents)[0, 3:].sum()

    grads = jax.jit(jax.grad(second))(params)
    used = np.asarray(jnp.abs(grads["embedding"]["embedding"]).sum(1))
    if "output" in params:
        assert not used[[3, 4]].any()
    assert used[[0, 5]].all()
    rng = np.random.default_rng(0)
    along = jax.tree.map(lambda w: jnp.asarray(rng.normal(size=w.shape), jnp.float32), params)
    h = 1e-3
    ends = [second(jax.tree.map(lambda w, d, s=s: w + s * h * d, params, along)) for s in (1, -1)]
    slope = sum(float(jnp.vdot(g, d)) for g, d in zip(jax.tree.leaves(grads), jax.tree.leaves(along), strict=True))
    assert float(ends[0] - ends[1]) / (2 * h) == pytest.approx(slope, rel=0.02, abs=0.02)


def test_nothing_is_lost_where_there_is_no_sentence(made):
    losses = _apply(*made, "losses", jnp.zeros((1, 5), int), jnp.zeros((1, 5), int), jnp.array([[1, 1, 0, 0, 0]]))
    assert (losses[0, 2:] == 0).all()
    assert (losses[0, :2] > 0).all()


def test_factors_run_in_place_of_their_matrix():
    structure, params = lm.create(CONFIG, 9)
    up = params["blocks"][1]["feed"]["up"]
    whole = logits((structure, params), [[0, 3, 4]], [[1] * 3])
    up["kernel"] = lowrank.factor(up["kernel"], 16)
    assert np.allclose(logits((structure, params), [[0, 3, 4]], [[1] * 3]), whole, atol=1e-4)
    _, like = lm.abstract(dataclasses.replace(CONFIG, ranks={"blocks/1/feed/up/kernel": 12}), 9)
    assert [part.shape for part in like["blocks"][1]["feed"]["up"]["kernel"]] == [(16, 12), (12, 64)]
    with pytest.raises(ValueError, match=r"rank 13 of 'blocks/1/feed/up/kernel', 16 x 64, saves nothing: at most 12"):
        lm.abstract(dataclasses.replace(CONFIG, ranks={"blocks/1/feed/up/kernel": 13}), 9)


def test_units_that_nobody_listens_to_are_removed_and_nothing_changes():
    config = dataclasses.replace(CONFIG, heads=4)
    structure, params = lm.create(config, 9)
    params = jax.tree.map(np.array, params)
    params["blocks"][0]["feed"]["down"]["kernel"][5:40] = 0
    params["blocks"][1]["attention"]["out"]["kernel"][4:12] = 0
    params["blocks"][1]["feed"]["down"]["kernel"][:] = 0
    params["blocks"][0]["feed"]["up"]["bias"][:] = 0.3
    left, cut = smaller(config, params)
    assert (left.left_heads, left.left_hidden) == ((4, 2), (29, 1))
    assert cut["blocks"][0]["feed"]["up"]["kernel"].shape == (16, 29)
    assert cut["blocks"][1]["attention"]["query"]["kernel"].shape == (16, 8)
    small, like = lm.abstract(left, 9)
    assert jax.tree.map(lambda x: x.shape, like) == jax.tree.map(lambda x: x.shape, cut)
    whole = logits((structure, params), [[0, 3, 4]], [[1] * 3])
    assert np.allclose(logits((small, jax.tree.map(jnp.asarray, cut)), [[0, 3, 4]], [[1] * 3]), whole, atol=1e-5)


def test_units_that_always_say_the_same_are_removed_and_nothing_changes():
    """Their columns are zero, so that their biases are all they say: to the next layer it is a bias."""
    config = dataclasses.replace(CONFIG, heads=4)
    structure, params = lm.create(config, 9)
    params = jax.tree.map(np.array, params)
    params["blocks"][0]["feed"]["up"]["kernel"][:, 5:40] = 0
    params["blocks"][0]["feed"]["up"]["bias"][:] = np.linspace(-1, 1, 64)
    params["blocks"][1]["attention"]["value"]["kernel"][:, 4:11] = 0  # a head, and most of another
    params["blocks"][1]["attention"]["value"]["bias"][:] = np.linspace(1, -1, 16)
    left, cut = smaller(config, params)
    assert (left.left_heads, left.left_hidden) == ((4, 3), (29, 64))
    whole = logits((structure, params), [[0, 3, 4]], [[1] * 3])
    small, _ = lm.abstract(left, 9)
    assert np.allclose(logits((small, jax.tree.map(jnp.asarray, cut)), [[0, 3, 4]], [[1] * 3]), whole, atol=1e-5)


def test_gram_matrices_are_those_of_the_inputs_of_every_matrix():
    grams_of = jax.jit(models.grams, static_argnums=(0, 3))
    for config in NETWORKS.values():
        structure, params = lm.create(config, 9)
        documents = jnp.array([[1, 1, 2, 2, 0]])
        inputs = jnp.array([[0, 3, 0, 4, 7]])
        grams = grams_of(structure, params, documents > 0, "logits", inputs, documents)
        flat = {"/".join(str(k.key) for k in path): w for path, w in jax.tree_util.tree_leaves_with_path(params)}
        matrices = {p for p, w in flat.items() if w.ndim > 1 and "embedding" not in p}
        assert set(grams) == matrices
        assert all(grams[p].shape == (flat[p].shape[0],) * 2 for p in matrices)
    x = grams_of(structure, params, documents > 0, "logits", inputs, documents)["blocks/0/lstm/input"]
    rows = params["embedding"]["embedding"][jnp.array([0, 3, 0, 4])]  # what is no sentence does not count
    assert np.allclose(x, rows.T @ rows, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"heads": 3}, "no multiple of twice model.heads 3"), ({"network": "gru"}, "'transformer' or 'lstm'")],
)
def test_sizes_that_make_no_sense(wrong, says):
    with pytest.raises(ValueError, match=says):
        lm.create(dataclasses.replace(CONFIG, **wrong), 9)
