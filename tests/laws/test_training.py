"""What holds at every step and at the end of every training, whatever the structure, the metric and the method?"""

import jax
import numpy as np
import pytest
import trial

import csp
from csp import schedules, structures
from csp.rules import Target

HARD = (
    "dual",
    "gradual",
    "gradual_regrow",
    "granet",
    "random_late",
    "one_shot",
    "ste",
    "set",
    "rigl",
    "static",
    "acdc",
)
SCHEDULED = ("gradual", "granet", "dual", "ste", "random_late")  # from the first refresh on
SHADOWED = ("dual", "dual_pulled", "dual_cycles", "ste", "str", "movement")
SETTLED = ("dual", "dual_pulled", "trimmed", "gradual", "str", "movement", "random")  # once settled all are alike
VARIANTS = (
    "dual_pulled",
    "dual_cycles",
    "trimmed_metric",
    "ista_metric",
    "gradual_regrow",
    "random_late",
    "random",
    "set",
    "granet",
    "static",
)
TIGHTENING = ("gradual", "granet", "random_late", "one_shot", "static", "random")  # never more than a refresh ago


def asked_for(target: Target) -> np.ndarray:
    """The units that stay, in the layout of `trial.living_units`."""
    if isinstance(target.rule.structure, structures.NofM):
        return np.broadcast_to(target.kept[..., 0], (*target.kept.shape[:-2], target.shape[-1]))
    return np.asarray(target.kept)


def living(target: Target, params) -> np.ndarray:
    return trial.living_units(target.rule.structure, params[target.path])


def the_budget_is_met_to_the_integer(tried):
    params, _ = tried.history[-1]
    csp.verify(params, *tried.rules)
    for target in tried.cut:
        np.testing.assert_array_equal(living(target, params), asked_for(target), f"{target.path} {target.rule.metric}")


def units_live_and_die_as_one(tried):
    params, _ = tried.history[-1]
    for target in tried.cut:
        if target.rule.structure.pooled:
            alive = params[target.path] != 0
            units = trial.unit_numbers(target.rule.structure, target.shape)
            assert all(len(set(alive[units == unit])) == 1 for unit in np.unique(units)), target.path


def every_number_is_finite(tried):
    for params, state in tried.history:
        for x in jax.tree.leaves((params, state)):
            assert np.isfinite(x.astype(np.float64)).all()


def every_zero_is_positive(tried):
    for params, _ in tried.history[1:]:
        for path, w in params.items():
            assert not np.signbit(w[w == 0]).any(), path


def the_support_is_fixed_from_the_freeze_on(tried):
    frozen = [params for params, _ in tried.history[tried.method.clock.end + 1 :]]
    for params in frozen[1:]:
        for path in params:
            np.testing.assert_array_equal(params[path] != 0, frozen[0][path] != 0, path)


def what_lives_goes_on_training_after_the_freeze(tried):
    frozen = [params for params, _ in tried.history[tried.method.clock.end + 1 :]]
    if len(frozen) > 1:
        for path, w in frozen[0].items():
            assert (w != frozen[-1][path]).any() or not w.any(), path


def no_budget_is_missed_from_below_on_the_way(tried):
    if tried.name in HARD:
        for params, _ in tried.history[1:]:
            for target in tried.cut:
                assert np.all(living(target, params) >= asked_for(target)), target.path


def a_tightening_method_never_revives(tried):
    if tried.name in TIGHTENING:
        begin = tried.method.clock.begin
        counts = {t.path: [living(t, params) for params, _ in tried.history[begin + 1 :]] for t in tried.cut}
        for path, count in counts.items():
            assert np.all(np.diff(np.stack(count), axis=0) <= 0), path


def every_refresh_keeps_what_the_schedule_says(tried):
    if tried.name not in SCHEDULED:
        return
    for step in tried.method.clock.times:
        progress = float(tried.method.ramp(step))
        params, _ = tried.history[step + 1]
        for target in tried.cut:
            sizes = target.rule.structure.sizes(target.shape)
            if isinstance(target.rule.structure, structures.NofM):
                sizes = np.broadcast_to(sizes[..., 0], asked_for(target).shape)
            expected = np.maximum(sizes * (1 - progress * target.sparsity), asked_for(target))
            assert np.all(np.abs(living(target, params) - expected) <= 0.5 + 1e-4), (step, target.path)


def resuming_at_any_step_is_never_having_stopped(tried):
    """All that the next step depends on is (params, state), written to NumPy and read back."""
    for number, (now, then) in enumerate(zip(tried.history, tried.history[1:], strict=False)):
        again = tried.step(*trial.to_jax(now), number)
        assert trial.same_bits(again, then), number


def the_state_is_arrays_of_the_same_shape_and_type_from_first_to_last(tried):
    _, first = tried.history[0]
    for _, state in tried.history[1:]:
        assert jax.tree.structure(state) == jax.tree.structure(first)
        for before, after in zip(jax.tree.leaves(first), jax.tree.leaves(state), strict=True):
            assert (before.shape, before.dtype) == (after.shape, after.dtype)


def a_method_remembers_at_most_one_array_of_the_parameters_size(tried):
    _, state = tried.history[-1]
    for target, memory in zip(tried.targets, state.memory, strict=True):
        large = [x for x in jax.tree.leaves(memory) if x.size >= np.prod(target.shape) and x.dtype.itemsize > 1]
        assert len(large) <= (tried.name in SHADOWED), target.path


def a_metric_remembers_at_most_one_array_of_the_parameters_size(tried):
    _, state = tried.history[-1]
    for target, memory in zip(tried.targets, state.remembered, strict=True):
        metric = tried.method.metric or target.rule.metric
        large = [x for x in jax.tree.leaves(memory) if x.size >= np.prod(target.shape)]
        assert len(large) == (metric.name in ("taylor", "movement")), target.path


def another_process_resumes_and_settles(tried):
    """A transformation made anew needs (params, state) and no more; settled, it keeps the support."""
    if tried.name not in SETTLED:
        return
    params, state = trial.to_jax(tried.history[-1])
    before, state = params, csp.settle(state)
    assert state.memory is None
    assert state.remembered is None
    step = trial.compiled(trial.make_step(trial.make_transformation(tried.name)), params, state, 0)
    for number in range(3):
        params, state = step(params, state, number)
    for path, w in params.items():
        np.testing.assert_array_equal(w != 0, before[path] != 0, path)
        assert (w != before[path]).any() or not w.any(), path


LAWS = (
    every_number_is_finite,
    the_budget_is_met_to_the_integer,
    units_live_and_die_as_one,
    every_zero_is_positive,
    the_support_is_fixed_from_the_freeze_on,
    what_lives_goes_on_training_after_the_freeze,
    no_budget_is_missed_from_below_on_the_way,
    a_tightening_method_never_revives,
    every_refresh_keeps_what_the_schedule_says,
    resuming_at_any_step_is_never_having_stopped,
    the_state_is_arrays_of_the_same_shape_and_type_from_first_to_last,
    a_method_remembers_at_most_one_array_of_the_parameters_size,
    a_metric_remembers_at_most_one_array_of_the_parameters_size,
    another_process_resumes_and_settles,
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in VARIANTS else name for name in trial.METHODS]
)
def test_every_law_holds(name):
    """One test a method, since the training that all laws look at is made once."""
    for law in LAWS:
        law(trial.trial(name))


def test_gradual_follows_its_cubic():
    method = trial.make_method("gradual")
    cubic = schedules.cubic(1.0, method.clock.begin, method.clock.end)
    assert [float(method.ramp(step)) for step in range(trial.STEPS)] == [cubic(step) for step in range(trial.STEPS)]
