"""density, report and verify: exact counts, readable tables, errors that name every tensor."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import csp
from csp import BudgetError, Rule, budgets, methods, structures
from csp.report import numerical_rank

RULES = (
    Rule("a/.*", structures.entries(), sparsity=0.75),
    Rule("b", structures.n_of_m(2, 4)),
    Rule("c", structures.rank(), sparsity=0.5),
)


@pytest.fixture(scope="module")
def trained():
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "a": {"kernel": jax.random.normal(keys[0], (16, 8)), "bias": jnp.ones(8)},
        "b": jax.random.normal(keys[1], (10, 6)),
        "c": jax.random.normal(keys[2], (12, 12)),
    }
    tx = optax.MultiSteps(csp.sparsify(optax.sgd(0.1), *RULES, method=methods.one_shot(2)), 1)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for _ in range(2):
        updates, state = update(jax.tree.map(jnp.ones_like, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_density_counts(trained):
    params, _ = trained
    density = csp.density(params)
    assert density["a/kernel"] == 32 / 128
    assert density["a/bias"] == 1.0
    nonzero = sum(int(np.count_nonzero(x)) for x in jax.tree.leaves(params))
    assert csp.density(params, total=True) == nonzero / sum(x.size for x in jax.tree.leaves(params))


def test_report_knows_what_was_asked_from_the_state_alone(trained):
    params, state = trained
    restored = jax.tree.unflatten(jax.tree.structure(state), [np.asarray(x) for x in jax.tree.leaves(state)])
    rows = {row.path: row for row in csp.report(params, restored).rows}
    assert rows["a/kernel"].asked == rows["a/kernel"].reached == 0.75
    assert rows["b"].structure == "2:4"
    assert rows["b"].smallest == "n_of_m"
    assert rows["c"].reached >= 0.5
    assert rows["c"].bytes["factors"] == 3 * 24 * 4
    assert rows["a/bias"].structure == ""
    assert rows["a/bias"].asked is None


def test_violation_is_what_the_projection_cut_away():
    w = jnp.arange(1.0, 9.0).reshape(4, 2)
    tx = csp.sparsify(optax.sgd(0.1), Rule("w", structures.entries(), sparsity=0.5), method=methods.one_shot(1))
    updates, state = tx.update({"w": jnp.zeros_like(w)}, tx.init({"w": w}), {"w": w})
    row = csp.report(optax.apply_updates({"w": w}, updates), state).rows[0]
    assert row.violation == pytest.approx((1 + 2 + 3 + 4) / 36)


def test_bitmask_bytes_are_predicted():
    w = jnp.where(jnp.arange(64 * 32).reshape(64, 32) % 10 == 0, 1.0, 0.0)
    row = csp.report({"w": w}).rows[0]
    assert row.bytes["dense"] == 64 * 32 * 4
    assert row.bytes["bitmask"] == 64 * 32 // 8 + 205 * 4 + 4 * 4


def test_a_shared_budget_is_seen_to_be_met():
    """Tensors have what they have; of a rule and of all, what was asked is what was reached."""
    params = {"a": jnp.arange(1.0, 101.0).reshape(10, 10), "b": jnp.full((10, 10), 0.5), "c": jnp.ones(50)}
    rule = Rule("[ab]", structures.entries(), sparsity=0.6, budget=budgets.global_(floor=0.0))
    tx = csp.sparsify(optax.sgd(0.0), rule, method=methods.one_shot(2))
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = optax.apply_updates(params, updates)
    lines = [line.split() for line in str(csp.report(params, state)).split("\n\n")[0].splitlines()]
    said = {line[0] if line[0] == "total" else " ".join(line[:2]): line for line in lines}
    assert said["rule 0"][2:4] == ["0.6000", "0.6000"]
    assert said["total"][1:3] == ["0.4800", "0.4800"]
    one = {row.path: row for row in csp.report(params, state).rows}
    assert one["a"].reached != one["b"].reached
    assert float(said["rule 0"][4]) == pytest.approx((one["a"].violation + one["b"].violation) / 2, abs=1e-4)


def test_report_prints_and_serialises(trained):
    report = csp.report(*trained)
    table, codecs = (part.splitlines() for part in str(report).split("\n\n"))
    assert table[0].split()[:3] == ["path", "shape", "structure"]
    assert table[-1].startswith("total")
    assert all(len({len(line) for line in lines}) == 1 for lines in (table, codecs))
    assert {"dense", "bitmask", "n_of_m", "factors"} <= set(codecs[0].split())
    assert [line.split()[:2] for line in codecs[2:-1]] == [["rule", "0"], ["rule", "1"], ["rule", "2"]]
    everything = report.total(lambda row: row.bytes.get("n_of_m", row.bytes["dense"]))
    at = codecs[0].split().index("n_of_m") - 1
    assert codecs[-1].split("  ")[0] == "total"
    assert f"{everything / 1024:.1f} KiB" == re.findall(r"[\d.]+ (?:B|KiB)", codecs[-1])[at - 1]
    assert json.loads(json.dumps(report.to_json()))[0]["path"] == "a/bias"


def test_report_knows_parameters_by_their_paths_whatever_is_around():
    """`optax.masked` and `optax.partition` take some away before `sparsify` sees them."""
    params = {"a": jnp.ones((4, 4)), "b": jnp.arange(1.0, 17.0).reshape(4, 4), "c": jnp.arange(1.0, 17.0).reshape(4, 4)}

    def sparse(path, sparsity):
        rule = Rule(path, structures.entries(), sparsity=sparsity)
        return csp.sparsify(optax.sgd(0.1), rule, method=methods.one_shot(1))

    labels = {"a": "plain", "b": "half", "c": "most"}
    tx = optax.partition({"plain": optax.sgd(0.1), "half": sparse("b", 0.5), "most": sparse("c", 0.75)}, labels)
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    rows = {row.path: row for row in csp.report(optax.apply_updates(params, updates), state).rows}
    assert [(rows[path].asked, rows[path].reached) for path in "abc"] == [(None, 0.0), (0.5, 0.5), (0.75, 0.75)]
    assert (rows["b"].rule, rows["c"].rule) == (0, 1)
    masked = optax.masked(sparse("b", 0.5), {"a": False, "b": True, "c": False})
    found = csp.report(params, masked.init(params)).rows
    assert [row.structure for row in found] == ["", "entries", ""]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_rank_is_what_rounding_cannot_have_made(dtype):
    """Neither noise is counted, nor is a spectrum that falls to a hundredth taken for noise."""
    keys = jax.random.split(jax.random.key(0), 4)
    for m, n, r in ((64, 64, 5), (200, 40, 12), (16, 300, 1)):
        low = jax.random.normal(keys[0], (m, r)) @ jax.random.normal(keys[1], (r, n))
        assert numerical_rank(np.asarray(low.astype(dtype))) == r
    u, v = (jnp.linalg.qr(jax.random.normal(key, (64, 64)))[0] for key in keys[2:])
    full = np.asarray((u * jnp.geomspace(1, 0.02, 64) @ v).astype(dtype))
    rule = Rule("w", structures.rank(), sparsity=0.4)
    with pytest.raises(BudgetError, match=r"'w' has rank 6\d, its budget is 19"):
        csp.verify({"w": full}, rule)


def test_a_state_of_several_seeds_is_no_state_of_one():
    tx = csp.sparsify(optax.sgd(0.1), Rule("w", structures.entries(), sparsity=0.5), method=methods.one_shot(1))
    many = jax.vmap(lambda w: tx.init({"w": w}))(jnp.ones((3, 4, 4)))
    with pytest.raises(ValueError, match="the state of several seeds: ask for one"):
        csp.report({"w": jnp.ones((4, 4))}, many)
    one = csp.report({"w": jnp.ones((4, 4))}, jax.tree.map(lambda x: x[0], many))
    assert one.rows[0].asked == 0.5


def test_an_empty_matrix_has_no_rank():
    assert numerical_rank(np.zeros((0, 5), np.float32)) == 0


def test_report_refuses_a_state_without_sparsify(trained):
    with pytest.raises(ValueError, match=r"csp\.sparsify"):
        csp.report(trained[0], optax.adam(1e-3).init(trained[0]))


def test_verify_names_every_tensor_that_misses(trained):
    params, _ = trained
    csp.verify(params, *RULES)
    dense = jax.tree.map(lambda w: w + jax.random.normal(jax.random.key(5), w.shape), params)
    with pytest.raises(BudgetError) as error:
        csp.verify(dense, *RULES)
    assert all(repr(path) in str(error.value) for path in ("a/kernel", "b", "c"))
    assert "\n" not in str(error.value)


def test_verify_counts_to_one_unit():
    w = jnp.zeros((10, 10)).at[:1].set(1.0)
    rule = Rule("w", structures.entries(), sparsity=0.9)
    csp.verify({"w": w}, rule)
    with pytest.raises(BudgetError, match=r"keeps 11 of entries, its budget is 10"):
        csp.verify({"w": w.at[5, 5].set(1.0)}, rule)
    with pytest.raises(BudgetError, match=r"keeps 9"):
        csp.verify({"w": w.at[0, 0].set(0.0)}, rule)
    csp.verify({"w": w.at[0, 0].set(0.0)}, rule, exact=False)


def test_verify_of_a_joint_budget_counts_together():
    rule = Rule("[ab]", structures.entries(), sparsity=0.5, budget=budgets.global_())
    csp.verify({"a": jnp.ones((4, 4)), "b": jnp.zeros((4, 4))}, rule)
    with pytest.raises(BudgetError, match=r"'a', 'b' together keep 17"):
        csp.verify({"a": jnp.ones((4, 4)), "b": jnp.zeros((4, 4)).at[0, 0].set(1.0)}, rule)


def test_keys_of_random_numbers_are_no_parameters():
    params = {"w": jnp.eye(4), "rngs": {"dropout": {"key": jax.random.key(0), "count": jnp.uint32(3)}}}
    assert csp.density(params) == {"rngs/dropout/count": 1.0, "w": 0.25}
    assert csp.density(params, total=True) == 5 / 17
    assert [row.path for row in csp.report(params).rows] == ["rngs/dropout/count", "w"]
    csp.verify(params, sparsity=0.75, exact=True)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.uint8])
def test_what_is_no_float_is_reported_as_it_is(dtype):
    rows = csp.report({"w": jnp.ones((4, 4)), "ids": jnp.ones((4, 4), dtype)}).rows
    assert {row.path: row.bytes["dense"] for row in rows}["ids"] == 16 * jnp.dtype(dtype).itemsize


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("structure", [structures.entries(), structures.rank()])
def test_verify_names_a_tensor_that_is_not_finite(structure, bad):
    w = np.zeros((4, 4), np.float32)
    w[0], w[1] = 1, bad
    rule = Rule("w", structure, sparsity=0.5)
    with pytest.raises(BudgetError, match="'w' has NaN or infinite weights"):
        csp.verify({"w": w}, rule)
    tx = csp.sparsify(optax.sgd(0.1), rule, method=methods.gradual(10))
    assert "w" in str(csp.report({"w": w}, tx.init({"w": jnp.ones((4, 4))})))


def test_verify_holds_the_floor_of_a_joint_budget():
    rule = Rule("[ab]", structures.entries(), sparsity=0.5, budget=budgets.global_(floor=0.9))
    with pytest.raises(BudgetError, match="'b' keeps 0 of entries, the floor of its budget is 28"):
        csp.verify({"a": jnp.ones((8, 8)), "b": jnp.zeros((8, 8))}, rule)


def test_a_full_rank_saves_nothing():
    w = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    tx = csp.sparsify(optax.sgd(0.1), Rule("w", structures.rank(), sparsity=0.5), method=methods.gradual(10))
    assert csp.report({"w": w}, tx.init({"w": jnp.asarray(w)})).rows[0].reached == 0
