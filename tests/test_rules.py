"""Do rules find their parameters, share their budgets, and refuse what they cannot mean?"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import csp
from csp import Rule, budgets, metrics, rules, schedules, structures
from csp.structures import keep_count


class Cell(NamedTuple):
    kernel: object
    bias: object


PARAMS = {
    "encoder": [Cell(jnp.ones((4, 6)), jnp.ones(6)), Cell(jnp.ones((6, 6)), jnp.ones(6))],
    "embedding": jnp.ones((20, 4)),
    "output": {"kernel": jnp.ones((6, 20))},
    "depthwise": jnp.ones((3, 1, 6)),
    "temperature": jnp.ones(()),
    "nothing": None,
}


def half(pattern: str, **choices) -> Rule:
    return Rule(pattern, structures.entries(), sparsity=0.5, **choices)


def bound(*given: Rule, params=PARAMS, steps: int = 10) -> dict[str, rules.Target]:
    return {target.path: target for target in rules.bind(params, given, steps)}


def test_paths_are_the_names_on_the_way():
    assert [name for name, _ in rules.named_leaves(PARAMS)] == [
        "depthwise",
        "embedding",
        "encoder/0/kernel",
        "encoder/0/bias",
        "encoder/1/kernel",
        "encoder/1/bias",
        "output/kernel",
        "temperature",
    ]


def test_the_first_rule_that_matches_wins():
    targets = bound(Rule("encoder/0/.*", None), half("encoder/.*"), Rule(".*", structures.rows(), sparsity=0.25))
    assert set(targets) == {"encoder/1/kernel", "embedding", "output/kernel"}
    assert targets["encoder/1/kernel"].rule.structure == structures.entries()
    assert targets["embedding"].rule.structure == structures.rows()


def test_a_pattern_means_the_whole_path():
    with pytest.raises(ValueError, match="rule 'kernel' matches no parameter"):
        bound(half("kernel"))


def test_vectors_among_matrices_are_left_alone():
    assert set(bound(half(".*"))) == {"encoder/0/kernel", "encoder/1/kernel", "embedding", "output/kernel"}


def test_vectors_that_are_meant_are_pruned():
    assert set(bound(half("encoder/.*/bias"))) == {"encoder/0/bias", "encoder/1/bias"}


def test_budgets_are_integers_of_the_units():
    targets = bound(half("encoder/.*"), Rule("embedding", structures.rows(), sparsity=0.9))
    assert targets["encoder/0/kernel"].kept == 12
    assert targets["embedding"].kept == 2


def test_a_joint_budget_is_of_one_rule():
    targets = bound(half("encoder/.*", budget=budgets.erk()), half("output/.*"))
    assert targets["encoder/0/kernel"].kept + targets["encoder/1/kernel"].kept == 30
    assert targets["output/kernel"].kept == 60


def test_a_float32_sparsity_means_its_decimal():
    wide = {"w": np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (2**13, 2**13), (0, 0))}
    for sparsity in (np.float32(0.9), schedules.constant(0.9), lambda count: jnp.float32(0.9)):
        rule = Rule("w", structures.entries(), sparsity=sparsity)
        assert rules.bind(wide, [rule], 10)[0].kept == keep_count(2**26, 0.9)


def test_a_schedule_ends_the_rule_where_it_ends():
    rule = Rule("w", structures.entries(), sparsity=schedules.cubic(0.75, 2, 8))
    assert rule.target(8) == 0.75


def test_the_short_form_spares_embeddings_outputs_vectors_and_depthwise_kernels():
    targets = bound(*rules.default_rules(PARAMS, 0.5))
    assert set(targets) == {"encoder/0/kernel", "encoder/1/kernel"}


def test_the_short_form_spares_output_layers_and_not_what_ends_a_block():
    """Names of a BERT in flax; a norm is spared, and a convolution of many scales is not."""
    dense = {"dense": {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}}
    block = {"attention": {"query": dense["dense"], "output": dense}, "intermediate": dense, "output": dense}
    params = {"layer": {"0": block}, "multiscale": {"kernel": jnp.ones((4, 4))}, "output": {"kernel": jnp.ones((4, 9))}}
    params["norm"] = params["ln_scale"] = jnp.ones((2, 4))
    names = ["attention/output/dense", "attention/query", "intermediate/dense", "output/dense"]
    found = bound(*rules.default_rules(params, 0.5), params=params)
    assert set(found) == {*(f"layer/0/{name}/kernel" for name in names), "multiscale/kernel"}


def test_the_short_form_knows_words_from_parts_of_words():
    pruned = ["composition", "decomposition", "abnormal", "normalizer", "output_gate", "multiscale"]
    spared = ["position", "positional", "pos_enc", "layernorm_0", "layer_normalization", "output", "output_layer"]
    params = {name: {"kernel": jnp.ones((4, 4))} for name in pruned + spared}
    assert set(bound(*rules.default_rules(params, 0.5), params=params)) == {f"{name}/kernel" for name in pruned}


def test_the_short_form_leaves_what_is_no_number_of_a_network():
    params = {"w": jnp.ones((4, 4)), "table": jnp.ones((4, 4), jnp.int32), "mask": jnp.ones((4, 4), bool)}
    assert set(bound(*rules.default_rules(params, 0.5), params=params)) == {"w"}


class Attention(NamedTuple):
    query: object
    value: object


def test_a_field_that_is_called_value_keeps_its_name():
    params = {"attention": Attention(jnp.ones((4, 4)), jnp.ones((4, 4)))}
    assert set(bound(half("attention/.*"), params=params)) == {"attention/query", "attention/value"}


@pytest.mark.parametrize("said", [{"sparsity": 0.9}, {"metric": metrics.adam()}])
def test_a_rule_without_a_structure_only_leaves_alone(said):
    with pytest.raises(ValueError, match=r"rule '\.\*' says how to prune.*give it a structure"):
        Rule(".*", **said)


@pytest.mark.parametrize(
    "spared", [{"embedding": jnp.ones((4, 4)), "gain": jnp.ones(4)}, {"bias": jnp.ones((2, 2))}, {}]
)
def test_the_short_form_prunes_no_vector_for_want_of_a_matrix(spared):
    with pytest.raises(ValueError, match=r"name it with csp\.Rule"):
        rules.default_rules(spared, 0.5)


def test_a_sparsity_for_all_is_for_rules_without_one():
    given = (half("a"), Rule("b", structures.rows()), Rule("c", structures.n_of_m(2, 4)), Rule("d", None))
    assert [rule.sparsity for rule in rules.with_sparsity(given, 0.9)] == [0.5, 0.9, None, None]


def test_a_sparsity_that_no_rule_takes_is_an_error():
    with pytest.raises(ValueError, match=r"sparsity=0\.9 is asked for, but every rule has its own"):
        rules.with_sparsity((half("a"),), 0.9)


def linear_beyond(count):
    return jnp.minimum(count / 20, 1.0)


WRONG = {
    "no pattern": (lambda: half("("), r"rule '\(' is not a regular expression"),
    "no structure": (lambda: Rule("w", "entries"), "needs a structure such as csp.structures.entries.*got 'entries'"),
    "no metric": (lambda: half("w", metric="adam"), "needs a metric such as csp.metrics.adam.*got 'adam'"),
    "no budget": (lambda: half("w", budget="erk"), r"needs a budget such as csp.budgets.erk\(\), got 'erk'"),
    "too sparse": (lambda: Rule("w", structures.rows(), sparsity=1.5), "'w' asks for sparsity 1.5"),
    "negative": (lambda: Rule("w", structures.rows(), sparsity=-0.1), "'w' asks for sparsity -0.1"),
    "nan": (lambda: Rule("w", structures.rows(), sparsity=float("nan")), "'w' asks for sparsity nan"),
    "text": (lambda: Rule("w", structures.rows(), sparsity="0.9"), "a number or a schedule.*got '0.9'"),
    "n of m": (lambda: Rule("w", structures.n_of_m(2, 4), sparsity=0.9), "2:4 for sparsity 0.9, but it has 0.5"),
    "n of m, shared": (
        lambda: Rule("w", structures.n_of_m(2, 4), budget=budgets.erk()),
        "2:4 fixes every tensor's budget",
    ),
    "n of m, scheduled": (
        lambda: bound(Rule("embedding", structures.n_of_m(2, 4), sparsity=schedules.constant(0.75))),
        "2:4 for sparsity 0.75, but it has 0.5",
    ),
    "rank, shared": (
        lambda: Rule("w", structures.rank(), sparsity=0.5, budget=budgets.global_()),
        "csp.lowrank.ladder",
    ),
    "no sparsity": (lambda: bound(Rule("embedding", structures.rows())), "'embedding' has no sparsity"),
    "unknown": (
        lambda: bound(half("encoder/0/kernl")),
        "rule 'encoder/0/kernl' matches no parameter; the nearest are 'encoder/0/kernel', 'encoder/1/kernel'",
    ),
    "shadowed": (
        lambda: bound(Rule("encoder/.*", None), half("encoder/1/kernel")),
        "rule 'encoder/1/kernel' comes too late.*put it before",
    ),
    "scalar": (lambda: bound(half("temperature")), r"'temperature' is a scalar.*Rule\('temperature', None\)"),
    "integer": (lambda: bound(half("w"), params={"w": jnp.ones((2, 2), int)}), r"'w' has dtype int.*Rule\('w', None\)"),
    "complex": (lambda: bound(half("w"), params={"w": jnp.ones((2, 2), complex)}), "'w' has dtype complex"),
    "twice": (
        lambda: bound(half(".*"), params={"a/b": jnp.ones((2, 2)), "a": {"b": jnp.ones((3, 3))}}),
        r"have one path, among \['a/b'\]",
    ),
    "no rank": (
        lambda: bound(Rule("embedding", structures.rank(), sparsity=0.99)),
        "rule 'embedding': no rank saves 0.99 of a matrix",
    ),
    "moving schedule": (
        lambda: bound(Rule("embedding", structures.rows(), sparsity=linear_beyond)),
        "'embedding': its schedule still moves after step 10, the end of training .*0.5 there, 1 later.*: end it at or",
    ),
    "nan schedule": (
        lambda: bound(Rule("embedding", structures.rows(), sparsity=lambda count: jnp.nan)),
        "'embedding': its schedule ends at nan",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_meant_is_refused_in_one_line(case):
    make, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("case", ["too sparse", "nan", "n of m", "no sparsity", "no rank", "moving schedule"])
def test_a_budget_that_cannot_be_met_is_a_budget_error(case):
    with pytest.raises(csp.BudgetError):
        WRONG[case][0]()


def test_a_matrix_of_one_input_is_a_matrix_and_a_depthwise_kernel_is_none():
    params = {"a": jnp.ones((8, 8)).at[:4].set(0), "b": jnp.ones((1, 64)), "c": jnp.ones((3, 1, 64))}
    assert [t.path for t in rules.bind(params, [Rule(".", structures.entries(), sparsity=0.5)])] == ["a", "b"]
    with pytest.raises(csp.BudgetError, match="'b' keeps 64 of entries, its budget is 32"):
        csp.verify(params, Rule(".", structures.entries(), sparsity=0.5))
