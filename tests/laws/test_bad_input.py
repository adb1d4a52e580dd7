"""Does every mistake end in one line that names the path, the value and the cure?"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trial

import csp
from csp import budgets, methods, metrics, schedules, structures

PARAMS = {"encoder": {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}, "step": jnp.ones(3, int)}
GRADIENTS = jax.tree.map(jnp.ones_like, PARAMS)


def half(**choices) -> csp.Rule:
    return csp.Rule("encoder/kernel", structures.entries(), **{"sparsity": 0.5, **choices})


def start(*rules, inner=None, params=PARAMS, method=None, **choices):
    """A transformation and its first state."""
    method = method if method or "steps" in choices else methods.gradual(steps=10)
    tx = csp.sparsify(inner or optax.adam(1e-3), *rules, method=method, **choices)
    return tx, tx.init(params)


def step(*rules, gradients=GRADIENTS, params=PARAMS, extra=None, **choices):
    tx, state = start(*rules, params=params, **choices)
    return tx.update(gradients, state, params, **(extra or {}))


def abstractly(shapes, *rules):
    """A first state of parameters that no test has the memory for."""
    tx = csp.sparsify(optax.sgd(1e-3), *rules, method=methods.gradual(steps=10), sparsity=0.5)
    return jax.eval_shape(tx.init, {path: jax.ShapeDtypeStruct(shape, jnp.float32) for path, shape in shapes.items()})


WRONG = {
    "unknown path": (lambda: start(csp.Rule("encoder/kernl", structures.rows(), sparsity=0.5)), "'encoder/kernel'"),
    "no rule at all": (lambda: start(), "give rules, or sparsity=... for all matrices"),
    "no length": (lambda: csp.sparsify(optax.sgd(0.1), sparsity=0.5), "give steps=... or method="),
    "two lengths": (lambda: start(half(), method=methods.ste(10), steps=20), "steps=20.*method was made for 10 steps"),
    "no method": (lambda: start(half(), method="gradual"), r"one of csp.methods, e.g. .* got 'gradual'"),
    "method not called": (lambda: start(half(), method=methods.ste), "made by one of csp.methods"),
    "no optimizer": (lambda: start(half(), inner=0.1), "wraps an optax optimizer .* got 0.1"),
    "no policy": (lambda: start(half(), nonfinite="ignore"), "'drop', 'skip', 'raise', got 'ignore'"),
    "no parameters": (
        lambda: start(half())[0].update(GRADIENTS, start(half())[1]),
        r"tx.update\(grads, state, params\)",
    ),
    "sparsity above 1": (lambda: start(half(sparsity=1.01)), "'encoder/kernel' asks for sparsity 1.01"),
    "sparsity below 0": (lambda: start(sparsity=-0.5), "asks for sparsity -0.5"),
    "sparsity nan": (lambda: start(sparsity=float("nan")), "asks for sparsity nan"),
    "sparsity unused": (lambda: start(half(), sparsity=0.9), "every rule has its own"),
    "schedule too long": (lambda: start(half(sparsity=schedules.cubic(0.9, 0, 11))), "end it at or before that step"),
    "n above m": (lambda: structures.n_of_m(5, 4), "0 <= n <= m.*n=5, m=4"),
    "rank too small": (
        lambda: start(csp.Rule("encoder/kernel", structures.rank(), sparsity=0.9)),
        r"'encoder/kernel': no rank saves 0.9 of a matrix of shape \(4, 6\)",
    ),
    "rank of a method of units": (
        lambda: start(csp.Rule("encoder/kernel", structures.rank(), sparsity=0.5), method=methods.rigl(10)),
        "'encoder/kernel': method rigl chooses units.*csp.lowrank.ladder",
    ),
    "rank of a primal iterate": (
        lambda: start(
            csp.Rule("encoder/kernel", structures.rank(), sparsity=0.5),
            method=methods.compressed_sensing(10, methods.trimmed()),
        ),
        "'encoder/kernel': method compressed_sensing.*its dual iterate",
    ),
    "heads that do not divide": (
        lambda: start(csp.Rule("encoder/kernel", structures.heads(4), sparsity=0.5)),
        "'encoder/kernel', of shape .*, does not hold 4 equal heads",
    ),
    "given out of range": (
        lambda: half(budget=budgets.given({"encoder/.*": 1.5})),
        "'encoder/.*' asks for sparsity 1.5",
    ),
    "given to nobody": (lambda: start(half(budget=budgets.given({"encoder": 0.1}))), "'encoder' matches no parameter"),
    "adam of sgd": (
        lambda: start(half(metric=metrics.adam()), inner=optax.sgd(0.1)),
        r"'encoder/kernel': metric adam needs an optimizer .*metrics.fisher\(\)",
    ),
    "activations missing": (
        lambda: step(half(metric=metrics.activation())),
        r"'encoder/kernel': metric activation needs .*activations=\{'encoder/kernel': vector of 4\}",
    ),
    "activations of another shape": (
        lambda: step(half(metric=metrics.activation()), extra={"activations": {"encoder/kernel": jnp.ones(6)}}),
        r"'encoder/kernel': activations have shape \(6,\), one mean square an input is \(4,\)",
    ),
    "activations of a vector": (
        lambda: start(csp.Rule("encoder/bias", structures.entries(), metric=metrics.activation(), sparsity=0.5)),
        "'encoder/bias': metric activation .* of a matrix.*metrics.magnitude",
    ),
    "a rule that is a word": (lambda: start("kernel"), r"'kernel' is no rule: write csp.Rule"),
    "a budget for what is left alone": (
        lambda: csp.Rule("encoder/bias", None, budget=budgets.erk()),
        "'encoder/bias' says how to prune, but not in which units",
    ),
    "true as sparsity": (lambda: half(sparsity=True), "needs a number or a schedule as sparsity, got True"),
    "steps in words": (lambda: methods.gradual("a"), r"a whole number of steps in \[1, 2\^31\), got 'a'"),
    "steps that no step counts": (lambda: methods.gradual(2**31), r"in \[1, 2\^31\), got 2147483648"),
    "steps without end": (lambda: methods.gradual(float("inf")), r"in \[1, 2\^31\), got inf"),
    "a schedule of plain Python": (
        lambda: start(half(sparsity=lambda at: min(at / 10.0, 0.5))),
        "schedule is run inside jax.jit and cannot be traced: write jnp.minimum for min",
    ),
    "a schedule beyond its end": (
        lambda: start(half(sparsity=schedules.phases([0, 0.95, 0.5], [2, 5]))),
        "its schedule goes up to 0.95 and ends at 0.5",
    ),
    "metric shrinkage of rows": (
        lambda: start(
            csp.Rule("encoder/kernel", structures.rows(), sparsity=0.5),
            method=methods.compressed_sensing(10, methods.trimmed(shrink=methods.metric())),
        ),
        r"'encoder/kernel': metric shrinkage is for entries and N of M, not for rows: use methods.decoupled\(\)",
    ),
    "integers": (
        lambda: start(csp.Rule("step", structures.entries(), sparsity=0.5)),
        r"'step' has dtype int32, .*Rule\('step', None\)",
    ),
    "complex numbers": (
        lambda: start(csp.Rule("w", structures.entries(), sparsity=0.5), params={"w": jnp.ones((2, 2), complex)}),
        r"'w' has dtype complex64, .*Rule\('w', None\)",
    ),
    "more entries than are counted": (
        lambda: abstractly({"w": (2**16, 2**15)}, csp.Rule("w", structures.entries())),
        "'w': 2147483648 units compete, and fewer than 2.31 are counted: cut the parameter",
    ),
    "more entries together": (
        lambda: abstractly(
            dict.fromkeys("ab", (2**15, 2**15)), csp.Rule("[ab]", structures.entries(), budget=budgets.global_())
        ),
        "'a', 'b': 2147483648 units compete",
    ),
    "no gradient": (
        lambda: step(half(), gradients={**GRADIENTS, "encoder": {"kernel": None, "bias": jnp.ones(6)}}),
        "'encoder/kernel' is pruned, but has no gradient",
    ),
    "another state": (
        lambda: start(half())[0].update(
            GRADIENTS, start(half(), csp.Rule("encoder/bias", structures.entries()))[1], PARAMS
        ),
        "has no sparsity",
    ),
    "no steps": (lambda: methods.gradual(0), r"steps in \[1, 2\^31\), got 0"),
    "end before begin": (lambda: methods.gradual(10, begin=0.8, end=0.2), "begin <= end <= 1, got 0.8 and 0.2"),
    "end after the end": (lambda: methods.rigl(10, end=1.5), "begin <= end <= 1, got 0 and 1.5"),
    "never": (lambda: methods.rigl(10, every=0), "at least 1, got 0"),
    "exchange all": (lambda: methods.set_(10, exchange=1.0), r"in \[0, 1\), got 1.0"),
    "cycles": (lambda: methods.acdc(10, cycles=0), "cycles >= 1 .* got 0"),
    "no time for cycles": (lambda: methods.acdc(10, warmup=0.9), "warmup . finish <= 1 is needed, got 0.9 and 0.25"),
    "no cycles": (lambda: methods.compressed_sensing(10, cycles=0), "cycles >= 1, got 0"),
    "full after the freeze": (lambda: methods.compressed_sensing(10, full=0.95), "full <= freeze .* 0.95, 0.9"),
    "no strength": (lambda: methods.trimmed(0), "a finite number > 0, got 0"),
    "no gain": (lambda: methods.ista(gain=-1), "gain > 0, got -1"),
    "a pull of NaN": (lambda: methods.dual(pull=float("nan")), "a finite pull >= 0 .* pull=nan"),
    "firm as NaN": (lambda: methods.dual(firm=float("nan")), "firm >= 1, got pull=30.0 and firm=nan"),
    "a strength without end": (lambda: methods.trimmed(float("inf")), "a finite number > 0, got inf"),
    "a boundary of NaN": (lambda: schedules.phases([0, 0.5], [float("nan")]), "increasing"),
    "a push": (lambda: methods.dual(pull=-1), "pull >= 0 .* pull=-1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_named_in_one_line(case):
    make, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def poisoned(value: float):
    gradients = jax.tree.map(jnp.array, GRADIENTS)
    gradients["encoder"]["kernel"] = gradients["encoder"]["kernel"].at[1, 2].set(value)
    return gradients


METHODS = {"gradual": methods.gradual, "dual": methods.compressed_sensing, "str": methods.str_}
VALUES = [jnp.nan, jnp.inf, -jnp.inf]


@pytest.mark.parametrize("name", METHODS)
def test_skipping_leaves_parameters_and_state_as_they_are_and_counts(name):
    """Bit for bit: moments, memory and the step number too, so that the schedules wait."""
    tx, state = start(half(metric=metrics.taylor()), method=METHODS[name](4), nonfinite="skip")
    params, update = PARAMS, jax.jit(tx.update)
    for skipped, value in enumerate(VALUES):
        updates, state = update(GRADIENTS, state, params)
        params = optax.apply_updates(params, updates)
        updates, after = update(poisoned(value), state, params)
        assert trial.same_bits(optax.apply_updates(params, updates), params)
        assert trial.same_bits(after._replace(skipped=state.skipped), state)
        assert (state.skipped, after.skipped) == (skipped, skipped + 1)
        state = after


@pytest.mark.parametrize("value", VALUES)
def test_dropping_takes_the_bad_entries_as_zero(value):
    tx, state = start(half(), nonfinite="drop")
    clean = poisoned(0.0)
    expected = tx.update(clean, state, PARAMS)
    assert trial.same_bits(tx.update(poisoned(value), state, PARAMS), expected)


@pytest.mark.parametrize("name", METHODS)
def test_a_support_survives_gradients_that_are_not_finite(name):
    tx, state = start(half(), method=METHODS[name](6))
    params, update = PARAMS, jax.jit(tx.update)
    for value in [*VALUES, *VALUES]:
        gradients = optax.tree_utils.tree_full_like(GRADIENTS, value, jnp.float32)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    assert np.isfinite(params["encoder"]["kernel"]).all()
    assert np.sum(params["encoder"]["kernel"] != 0) == 12


MESSAGE = "NaN or infinity in the gradient of 'encoder/kernel': clip them"


@pytest.mark.parametrize("value", VALUES)
def test_raising_names_the_parameter(value):
    tx, state = start(half(), nonfinite="raise")
    tx.update(GRADIENTS, state, PARAMS)
    with pytest.raises(ValueError, match=MESSAGE):
        tx.update(poisoned(value), state, PARAMS)


def test_raising_works_in_a_compiled_step():
    tx, state = start(half(), nonfinite="raise")
    update = jax.jit(tx.update)
    jax.block_until_ready(update(GRADIENTS, state, PARAMS))

    def poison():
        jax.block_until_ready(update(poisoned(jnp.nan), state, PARAMS))
        jax.effects_barrier()

    with pytest.raises(Exception, match=MESSAGE):
        poison()
