"""Is every projection the nearest one in its metric, by brute force over all supports, and does it stay where it is?"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import trial

import csp
from csp import methods, metrics, structures

CASES = {
    "entries": (structures.entries(), (2, 4), 0.5),
    "entries of a vector": (structures.entries(), (7,), 0.6),
    "2 of 4": (structures.n_of_m(2, 4), (4, 3), None),
    "2 of 4, partial": (structures.n_of_m(2, 4), (7, 2), None),
    "1 of 3 of a vector": (structures.n_of_m(1, 3), (8,), None),
    "blocks": (structures.blocks(2, 2), (4, 4), 0.5),
    "blocks, partial": (structures.blocks(2, 3), (5, 4), 0.5),
    "blocks of a stack": (structures.blocks(2, 2), (2, 2, 4), 0.5),
    "rows": (structures.rows(), (5, 2), 0.4),
    "columns": (structures.columns(), (2, 6), 0.5),
    "tied columns": (structures.columns(tied=4), (2, 12), 0.34),
    "heads": (structures.heads(4), (2, 8), 0.5),
    "heads of the output": (structures.heads(3, axis=-2), (6, 2), 0.3),
}


def competitions(structure, shape) -> list[list[np.ndarray]]:
    """For each competition its units, each as the mask of its entries."""
    if isinstance(structure, structures.NofM):
        length = shape[-2] if len(shape) > 1 else shape[0]
        groups = [range(i, min(i + structure.m, length)) for i in range(0, length, structure.m)]
        columns = [(j,) for j in range(shape[-1])] if len(shape) > 1 else [()]
        at = np.eye(int(np.prod(shape)), dtype=bool).reshape(*shape, *shape)
        return [[at[(i, *j)] for i in group] for group in groups for j in columns]
    numbers = trial.unit_numbers(structure, shape)
    return [[numbers == unit for unit in np.unique(numbers)]]


def kept_by_each(structure, shape, sparsity) -> np.ndarray:
    """As many as the documentation says: a share of N in M of every group, all but a rounded fraction of the units."""
    groups = competitions(structure, shape)
    if isinstance(structure, structures.NofM):
        return np.array([-(-structure.n * len(group) // structure.m) for group in groups])
    return np.array([len(group) - int(np.floor(sparsity * len(group) + 0.5)) for group in groups])


def most_worth(structure, shape, sparsity, worth) -> float:
    """The largest sum of worth^2 that any allowed support can keep."""
    total = 0.0
    for units, kept in zip(competitions(structure, shape), kept_by_each(structure, shape, sparsity), strict=True):
        values = [np.sum(worth[unit] ** 2) for unit in units]
        total += max((sum(chosen) for chosen in itertools.combinations(values, kept)), default=0.0)
    return total


@functools.cache
def projection(case: str) -> Callable:
    """(weights, diagonal of the metric) -> the first step of a method that projects at once."""
    structure, shape, sparsity = CASES[case]

    def project(w, diagonal):
        metric = metrics.Metric("drawn", diagonal=lambda sight: diagonal)
        rule = csp.Rule("w", structure, metric=metric, sparsity=sparsity)
        tx = csp.sparsify(optax.sgd(1.0), rule, method=methods.static(steps=1))
        params = {"w": w}
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
        return optax.apply_updates(params, updates)["w"]

    return trial.compiled(project, jnp.ones(shape), jnp.ones(shape))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
def test_no_support_keeps_more(case, seed):
    structure, shape, sparsity = CASES[case]
    draw = np.random.default_rng(seed)
    w, diagonal = draw.normal(size=shape).astype(np.float32), draw.uniform(0.1, 9, shape).astype(np.float32)
    projected = np.asarray(projection(case)(w, diagonal))
    alive = projected != 0
    np.testing.assert_array_equal(projected[alive], w[alive])
    kept = np.sum((diagonal * w**2)[alive], dtype=np.float64)
    np.testing.assert_allclose(kept, most_worth(structure, shape, sparsity, np.sqrt(diagonal) * w), rtol=1e-5)
    for units, count in zip(competitions(structure, shape), kept_by_each(structure, shape, sparsity), strict=True):
        assert sum(alive[unit].all() for unit in units) == count
        assert sum(alive[unit].any() for unit in units) == count


@pytest.mark.parametrize("case", CASES)
def test_what_is_projected_stays(case):
    _, shape, _ = CASES[case]
    once = projection(case)(jax.random.normal(jax.random.key(0), shape), jnp.ones(shape))
    twice = projection(case)(once, jnp.ones(shape))
    assert trial.same_bits(once, twice)


@pytest.mark.parametrize("case", [case for case in CASES if case != "blocks, partial"])  # whose sizes differ
def test_of_equals_the_first_stay(case):
    """So that the budget is exact, and the same on every machine."""
    structure, shape, sparsity = CASES[case]
    alive = np.asarray(projection(case)(jnp.ones(shape), jnp.ones(shape))) != 0
    for units, kept in zip(competitions(structure, shape), kept_by_each(structure, shape, sparsity), strict=True):
        assert [alive[unit].all() for unit in units] == [i < kept for i in range(len(units))]
        assert [alive[unit].any() for unit in units] == [i < kept for i in range(len(units))]
