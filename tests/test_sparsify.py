"""`csp.sparsify` around any optimizer: the budget, the momentum of the dead, dtypes, averages; and what is refused."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from wrapped import LABELS, LEARNING_RATE, RULE, STEPS, compiled, make_gradients, make_params, train

import csp
from csp import Rule, methods, metrics, schedules, structures


class Inner(NamedTuple):
    """An optimizer, and by what names its state remembers a direction, and a size."""

    tx: optax.GradientTransformation
    momenta: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()


def adam_alike(make: Callable, *sizes: str, **choices) -> Inner:
    return Inner(make(LEARNING_RATE, **choices), ("mu",), ("nu", *sizes))


OPTIMIZERS = {
    "adam": adam_alike(optax.adam),
    "adamw": adam_alike(optax.adamw),
    "amsgrad": adam_alike(optax.amsgrad, "nu_max"),
    "adamax": adam_alike(optax.adamax),
    "nadam": adam_alike(optax.nadam),
    "lamb": adam_alike(optax.lamb),
    "adabelief": Inner(optax.adabelief(LEARNING_RATE), ("mu",)),
    "yogi": adam_alike(optax.yogi),
    "radam": adam_alike(optax.radam),
    "adan": Inner(optax.adan(LEARNING_RATE), ("m", "v")),
    "novograd": Inner(optax.novograd(LEARNING_RATE), ("mu",)),
    "adagrad": Inner(optax.adagrad(LEARNING_RATE), (), ("sum_of_squares",)),
    "adadelta": Inner(optax.adadelta(1.0), (), ("e_g", "e_x")),
    "rmsprop": Inner(optax.rmsprop(LEARNING_RATE, momentum=0.9), ("trace",), ("nu",)),
    "sgd": Inner(optax.sgd(LEARNING_RATE)),
    "momentum": Inner(optax.sgd(LEARNING_RATE, momentum=0.9), ("trace",)),
    "nesterov": Inner(optax.sgd(LEARNING_RATE, momentum=0.9, nesterov=True), ("trace",)),
    "lion": Inner(optax.lion(1e-3), ("mu",)),
    "lars": Inner(optax.lars(0.1), ("trace",)),
    "sm3": Inner(optax.sm3(LEARNING_RATE), ("nu",)),
    "adafactor": Inner(optax.adafactor(LEARNING_RATE, min_dim_size_to_factor=4, momentum=0.9), ("ema",)),
    "muon": Inner(optax.contrib.muon(LEARNING_RATE)),
    "prodigy": Inner(optax.contrib.prodigy(), ("exp_avg",), ("exp_avg_sq",)),
    "dog": Inner(optax.contrib.dog(1.0)),
    "chain": Inner(
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.warmup_constant_schedule(0.0, LEARNING_RATE, 2))),
        ("mu",),
        ("nu",),
    ),
    "inject_hyperparams": Inner(optax.inject_hyperparams(optax.adamw)(learning_rate=LEARNING_RATE), ("mu",), ("nu",)),
    "apply_if_finite": Inner(optax.apply_if_finite(optax.adam(LEARNING_RATE), 3), ("mu",), ("nu",)),
    "masked": Inner(optax.masked(optax.adam(LEARNING_RATE), {"w": True, "b": False}), ("mu",), ("nu",)),
    "partition": Inner(
        optax.partition({"matrix": optax.adam(LEARNING_RATE), "vector": optax.sgd(0.1, momentum=0.9)}, LABELS),
        ("mu",),
        ("nu",),
    ),
}


def leaves_named(state: Any, name: str) -> list[np.ndarray]:
    """Those of the matrix."""
    trees = [tree for _, tree in optax.tree_utils.tree_get_all_with_path(state, name)]
    found = [np.asarray(leaf) for leaf in jax.tree.leaves(trees) if leaf.shape == (16, 8)]
    assert found, f"the optimizer's state has no {name!r} of the matrix"
    return found


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_ends_on_the_budget_and_forgets_the_momentum_of_the_dead(name):
    """The third of four steps prunes, with a gradient of zero: what it leaves of the momentum is what it kept."""
    inner = OPTIMIZERS[name]
    tx = csp.sparsify(inner.tx, RULE, method=methods.one_shot(4))
    params = make_params()
    state = tx.init(params)
    step = compiled(tx, params, state)
    for number in range(2):
        params, state = step(params, state, make_gradients(params, number))
    nothing = jax.tree.map(jnp.zeros_like, params)
    _, plain = jax.jit(inner.tx.update)(nothing, state.inner, params)
    params, state = step(params, state, nothing)
    dead = np.asarray(params["w"]) == 0
    for momentum in inner.momenta:
        for after, alone in zip(leaves_named(state.inner, momentum), leaves_named(plain, momentum), strict=True):
            np.testing.assert_array_equal(after[dead], 0, momentum)
            np.testing.assert_allclose(after[~dead], alone[~dead], rtol=1e-5, err_msg=momentum)
            assert alone[dead].any(), "there was none to forget"
    for size in inner.sizes:
        np.testing.assert_allclose(leaves_named(state.inner, size), leaves_named(plain, size), rtol=1e-5, err_msg=size)
    params, state = step(params, state, make_gradients(params))
    csp.verify(params, RULE)
    assert np.isfinite(params["w"]).all()
    assert (np.asarray(params["b"]) != 1).any(), "what is not pruned is trained"


@pytest.mark.parametrize("name", ["adamw", "momentum", "lion", "adafactor", "muon", "partition"])
@pytest.mark.parametrize("make", [methods.compressed_sensing, methods.rigl])
def test_shadows_and_moving_supports_with_optimizers_of_every_kind(name, make):
    params, _ = train(csp.sparsify(OPTIMIZERS[name].tx, RULE, method=make(STEPS)), make_params())
    csp.verify(params, RULE)


def test_a_revived_weight_takes_a_short_first_step():
    """Adam divides by what it knows of the size of gradients: forgetting that too would make the first steps huge."""
    tx = csp.sparsify(optax.adam(LEARNING_RATE), RULE, method=methods.rigl(40, every=5))
    params = make_params()
    state = tx.init(params)
    step = compiled(tx, params, state)
    longest = []
    for number in range(40):
        before = params
        params, state = step(params, state, make_gradients(params, number))
        revived = (np.asarray(before["w"]) == 0) & (np.asarray(params["w"]) != 0)
        longest += [np.abs(params["w"])[revived].max()] if revived.any() else []
    assert len(longest) >= 4, "some weights did come back"
    assert max(longest) <= LEARNING_RATE


def test_what_no_rule_prunes_moves_as_without_the_wrapper():
    inner = optax.adamw(LEARNING_RATE)
    params, state = make_params(), inner.init(make_params())
    sparse, _ = train(csp.sparsify(inner, RULE, method=methods.set_(STEPS)), params)
    step = compiled(inner, params, state)
    for number in range(STEPS):
        params, state = step(params, state, make_gradients(params, number))
    np.testing.assert_array_equal(sparse["b"], params["b"])


def test_no_sparsity_is_the_optimizer_alone():
    inner = optax.adam(LEARNING_RATE)
    tx = csp.sparsify(inner, Rule("w", structures.entries(), sparsity=0.0), method=methods.gradual(STEPS))
    params, _ = train(tx, make_params())
    alone, _ = train(inner, make_params())
    np.testing.assert_allclose(params["w"], alone["w"], rtol=1e-5, atol=1e-7)


DTYPES = [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "float32")]


@pytest.mark.parametrize(("dtype", "of_update"), DTYPES)
def test_pruned_is_exactly_zero_whatever_the_dtypes(dtype, of_update):
    cast = optax.stateless(lambda updates, _: jax.tree.map(lambda u: u.astype(of_update), updates))
    tx = csp.sparsify(optax.chain(optax.adam(LEARNING_RATE), cast), RULE, method=methods.gradual(STEPS))
    params, _ = train(tx, jax.tree.map(lambda p: p.astype(dtype), make_params()))
    csp.verify(params, RULE)
    assert params["w"].dtype == dtype
    assert not np.signbit(np.asarray(params["w"], np.float32)[np.asarray(params["w"] == 0)]).any()


def test_an_average_is_projected_by_the_support():
    """`optax.ema` of the weights beside the training; shipped is the average, on the support of the last step."""
    tx, ema = csp.sparsify(optax.adam(LEARNING_RATE), RULE, method=methods.rigl(STEPS)), optax.ema(0.9)
    params = make_params()
    state, average = tx.init(params), ema.init(params)
    step = compiled(tx, params, state)
    for number in range(STEPS):
        params, state = step(params, state, make_gradients(params, number))
        averaged, average = ema.update(params, average)
    with pytest.raises(csp.BudgetError):
        csp.verify(averaged, RULE)
    csp.verify(jax.tree.map(lambda p, a: jnp.where(p != 0, a, 0), params, averaged), RULE)


def test_settled_training_keeps_the_support_and_nothing_else():
    tx = csp.sparsify(optax.adam(LEARNING_RATE), RULE, method=methods.compressed_sensing(STEPS))
    params, state = train(tx, make_params())
    settled = csp.settle(state)
    assert len(jax.tree.leaves(settled)) < len(jax.tree.leaves(state))
    after, _ = compiled(tx, params, settled)(params, settled, make_gradients(params))
    np.testing.assert_array_equal(after["w"] != 0, params["w"] != 0)
    assert (after["w"] != params["w"]).any()


def test_settling_reaches_through_what_is_around_and_is_not_for_the_middle_of_training():
    method = methods.compressed_sensing(STEPS, freeze=0.7)
    tx = optax.chain(optax.clip(9.0), csp.sparsify(optax.adam(LEARNING_RATE), RULE, method=method))
    params = make_params()
    with pytest.raises(ValueError, match=r"step 0 is too early to settle: the support is fixed after 5 steps"):
        csp.settle(tx.init(params))
    params, state = train(tx, params)
    settled = csp.settle(state)
    assert len(jax.tree.leaves(settled)) < len(jax.tree.leaves(state))
    updates, _ = jax.jit(tx.update)(make_gradients(params), settled, params)
    np.testing.assert_array_equal(optax.apply_updates(params, updates)["w"] != 0, params["w"] != 0)
    template = jax.eval_shape(csp.settle, tx.init(params))  # to restore a checkpoint of it
    assert jax.tree.structure(template) == jax.tree.structure(settled)
    with pytest.raises(ValueError, match=r"holds none of csp\.sparsify"):
        csp.settle(optax.adam(1e-3).init(params))


def test_a_schedule_that_moves_after_the_freeze_is_refused():
    """It would be cut short there."""
    late = schedules.phases((0.0, 0.5, 0.75), (2, 9))
    tx = csp.sparsify(optax.sgd(0.1), Rule("w", structures.entries(), sparsity=late), method=methods.gradual(10))
    with pytest.raises(ValueError, match=r"still moves after step 7, the freeze of gradual \(0.5 there, 0.75 later\)"):
        tx.init(make_params())
    for method in (methods.static(10), methods.one_shot(10, at=0.0)):
        tx = csp.sparsify(optax.sgd(0.1), Rule("w", structures.entries(), sparsity=late), method=method)
        with pytest.raises(ValueError, match="still moves after step 0"):
            tx.init(make_params())


@pytest.mark.parametrize("begin", [101, 1100, 5000, 2**28])
def test_a_schedule_that_begins_after_training_is_refused(begin):
    """However late: such as that of a long recipe in a short trial."""
    for method in (methods.gradual(100), methods.compressed_sensing(100)):
        for schedule in (schedules.cubic(0.9, begin, 2 * begin), schedules.one_shot(0.9, at=begin)):
            tx = csp.sparsify(optax.sgd(0.1), Rule("w", structures.entries(), sparsity=schedule), method=method)
            with pytest.raises(ValueError, match="still moves after step"):
                tx.init(make_params())


@pytest.mark.parametrize("skipped", [(40,), (99,), (5, 6, 71, 98), (97, 98)])
def test_skipped_steps_leave_a_rank_on_its_budget(skipped):
    rule = Rule("w", structures.rank(), sparsity=0.5)
    tx = csp.sparsify(optax.adam(1e-2), rule, method=methods.gradual(100), nonfinite="skip")
    params = {"w": jax.random.normal(jax.random.key(0), (16, 8))}
    state, update = tx.init(params), jax.jit(tx.update)
    for number in range(100):
        gradient = jax.random.normal(jax.random.key(number), (16, 8)) + (jnp.nan if number in skipped else 0.0)
        updates, state = update({"w": gradient}, state, params)
        params = optax.apply_updates(params, updates)
    assert state.skipped == len(skipped)
    csp.verify(params, rule)


def nan_once(inner):
    """Ten steps of RigL, on one of which one entry's gradient is NaN."""
    rule = Rule("w", structures.entries(), sparsity=0.5)
    tx = csp.sparsify(inner, rule, method=methods.rigl(10))
    params = {"w": jax.random.normal(jax.random.key(0), (8, 6))}
    state, update = tx.init(params), jax.jit(tx.update)
    for number in range(10):
        gradient = params["w"].at[0, 0].add(jnp.nan if number == 4 else 0.0)
        updates, state = update({"w": gradient}, state, params)
        params = optax.apply_updates(params, updates)
    csp.verify(params, rule)
    return state.inner


def test_an_optimizer_that_looks_for_nan_is_shown_it():
    """What it refuses moves no weight, and what it counts it counts; metrics still read zeros."""
    guarded = optax.apply_if_finite(optax.adam(1e-2), 5)
    assert nan_once(guarded).total_notfinite == 1
    assert nan_once(optax.chain(optax.clip(1.0), guarded))[1].total_notfinite == 1


def test_a_guard_of_some_parameters_leaves_the_others_clean():
    labels = {"w": "plain", "guarded": "guarded"}
    inner = optax.partition({"plain": optax.adam(1e-2), "guarded": optax.apply_if_finite(optax.adam(1e-2), 5)}, labels)
    params = {"w": jnp.ones((4, 4)), "guarded": jnp.ones(2)}
    tx = csp.sparsify(inner, Rule("w", structures.entries(), sparsity=0.5), method=methods.gradual(4))
    gradients = jax.tree.map(lambda p: p.at[0].set(jnp.nan), params)
    updates, _ = tx.update(gradients, tx.init(params), params)
    assert np.isfinite(updates["w"]).all()


def test_a_rank_takes_no_metric():
    rule = Rule("w", structures.rank(), metric=metrics.taylor(), sparsity=0.2)
    with pytest.raises(ValueError, match=r"'w': a rank is chosen by singular values, and metric taylor knows none"):
        csp.sparsify(optax.sgd(0.1), rule, method=methods.gradual(10)).init(make_params())


def test_equal_sizes_do_not_fade_together():
    """Of a tie none is the edge: the firm projection would send all of them to zero (FAULTS 23); near it they fade."""
    sign = jnp.where(jnp.arange(96).reshape(8, 12) % 2 == 0, 1.0, -1.0)
    for structure in (structures.entries(), structures.n_of_m(2, 4), structures.rows()):
        rule = Rule("w", structure, sparsity=structure.sparsity or 0.5)
        tx = csp.sparsify(optax.sgd(0.1), rule, method=methods.compressed_sensing(20))
        params, update = {"w": sign}, jax.jit(tx.update)
        state = tx.init(params)
        for _ in range(20):
            updates, state = update({"w": jnp.zeros_like(sign)}, state, params)
            params = optax.apply_updates(params, updates)
            alive = np.asarray(params["w"]) != 0
            assert np.abs(params["w"])[alive].min() > 0.01, structure
        np.testing.assert_allclose(np.abs(params["w"])[alive], 1.0, rtol=1e-5)
        assert alive.sum() == 48, structure


@pytest.mark.parametrize("name", ["rigl", "set_"])
def test_small_competitions_exchange_in_turns(name):
    """A third of two places is none in each group of four, and a third of all of them together."""
    w = jax.random.normal(jax.random.key(0), (64, 32))
    tx = csp.sparsify(optax.sgd(0.0), Rule("w", structures.n_of_m(2, 4)), method=getattr(methods, name)(40, every=1))
    params, update = {"w": w}, jax.jit(tx.update)
    state, masks = tx.init(params), []
    for step in range(40):
        updates, state = update({"w": jax.random.normal(jax.random.key(step), w.shape)}, state, params)
        params = optax.apply_updates(params, updates)
        masks.append(np.asarray(params["w"]) != 0)
    csp.verify(params, Rule("w", structures.n_of_m(2, 4)))
    changed = [np.mean(now & ~before) / 0.5 for before, now in itertools.pairwise(masks)]
    assert changed[0] == pytest.approx(0.2, abs=0.03)  # of three that a place of 0.3 may go to, one had it before
    assert changed[-1] == 0
    assert np.mean(masks[0] != masks[-1]) > 0.2


def test_activations_are_checked_as_gradients_are():
    rule = Rule("w", structures.entries(), metric=metrics.activation(), sparsity=0.75)
    params, spoiled = make_params(), {"w": jnp.ones(16).at[3].set(jnp.nan)}
    for policy in ("drop", "skip", "raise"):
        tx = csp.sparsify(optax.sgd(0.1), rule, method=methods.gradual(STEPS), nonfinite=policy)
        state = tx.init(params)
        if policy == "raise":
            with pytest.raises(ValueError, match=r"NaN or infinity in the activations of 'w'"):
                tx.update(make_gradients(params), state, params, activations=spoiled)
            continue
        _, after = tx.update(make_gradients(params), state, params, activations=spoiled)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(after)), policy
        assert int(after.skipped) == (policy == "skip")


def test_a_gradient_of_none_is_an_error_only_where_weights_are_pruned():
    tx = csp.sparsify(optax.sgd(0.1), RULE, method=methods.static(STEPS))
    params = make_params()
    updates, _ = tx.update({"w": params["w"], "b": None}, tx.init(params), params)
    assert updates["b"] is None
    with pytest.raises(ValueError, match="'w' is pruned, but has no gradient"):
        tx.update({"w": None, "b": params["b"]}, tx.init(params), params)


def test_the_state_of_other_parameters_is_refused():
    tx = csp.sparsify(optax.sgd(0.1), sparsity=0.5, steps=STEPS)
    params = {"a": jnp.ones((4, 4)), "b": jnp.ones((4, 4))}
    other = {"a": jnp.ones((4, 4))}
    with pytest.raises(ValueError, match=r"this state is of 2 pruned parameters, and here are 1: tx.init"):
        tx.update(other, tx.init(params), other)
