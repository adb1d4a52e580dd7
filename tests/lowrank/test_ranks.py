"""Ranks from one budget of bytes: exact, and better than any exchange."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ranked import (
    like,
    normal,
    singular_values,
)

from csp import lowrank

sides = st.integers(1, 40)


class TestRankFor:
    @given(sides, sides, st.floats(0, 0.99))
    def test_is_the_largest_rank_that_saves_enough(self, n_in, n_out, saving):
        kept = (1 - saving) * n_in * n_out
        try:
            rank = lowrank.rank_for((n_in, n_out), saving)
        except ValueError:
            rank = 0
        assert rank * (n_in + n_out) <= kept + 1e-6
        assert (rank + 1) * (n_in + n_out) > kept - 1e-6

    def test_counts_in_decimals(self):
        assert lowrank.rank_for((20, 20), 0.9) == 1
        assert lowrank.rank_for((3, 20, 20), 0.7) == 3

    @given(sides, sides, st.integers(1, 40))
    def test_worthwhile_is_fewer_numbers(self, n_in, n_out, rank):
        assert lowrank.worthwhile((n_in, n_out), rank) == (rank * (n_in + n_out) < n_in * n_out)

    @pytest.mark.parametrize(
        ("shape", "saving", "match"), [((8, 8), 0.8, r"rank 1 saves 0\.7500"), ((8, 8), 1.0, "outside")]
    )
    def test_says_what_can_be_saved(self, shape, saving, match):
        with pytest.raises(ValueError, match=match):
            lowrank.rank_for(shape, saving)


@st.composite
def budget_problems(draw):
    shapes = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=3))
    dtypes = [draw(st.sampled_from([jnp.float32, jnp.bfloat16])) for _ in shapes]
    tensors = {
        f"{i}/kernel": like(*shape, dtype=dtype) for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    }
    seed = draw(st.integers(0, 1000))
    spectra = {path: singular_values(normal(*x.shape, seed=seed + i)) for i, (path, x) in enumerate(tensors.items())}
    floor, total = (
        sum(stored(x, 1) for x in tensors.values()),
        sum(stored(x, min(x.shape)) for x in tensors.values()),
    )
    return spectra, tensors, draw(st.integers(floor, total))


def stored(tensor, rank):
    *lead, n_in, n_out = tensor.shape
    return math.prod(lead) * min(rank * (n_in + n_out), n_in * n_out) * tensor.dtype.itemsize


def energy(spectra, ranks):
    return sum(float(np.sum(s[: ranks[path]] ** 2)) for path, s in spectra.items())


class TestRanksForBudget:
    @settings(max_examples=200, deadline=None)
    @given(budget_problems())
    def test_stays_in_the_budget_and_no_further_rank_fits(self, problem):
        spectra, tensors, budget = problem
        ranks = lowrank.ranks_for_budget(spectra, tensors, budget)
        spent = sum(stored(tensors[path], rank) for path, rank in ranks.items())
        assert spent <= budget
        for path, rank in ranks.items():
            full = min(tensors[path].shape)
            assert rank == full or lowrank.worthwhile(tensors[path].shape, rank)
            if rank < full:
                assert spent - stored(tensors[path], rank) + stored(tensors[path], rank + 1) > budget

    @settings(max_examples=200, deadline=None)
    @given(budget_problems())
    def test_energy_against_brute_force(self, problem):
        spectra, tensors, budget = problem
        ranks = lowrank.ranks_for_budget(spectra, tensors, budget)
        if any(rank == min(tensors[path].shape) for path, rank in ranks.items()):
            return
        choices = [[r for r in range(1, 7) if lowrank.worthwhile(x.shape, r)] for x in tensors.values()]
        best = max(
            energy(spectra, dict(zip(tensors, chosen, strict=True)))
            for chosen in itertools.product(*choices)
            if sum(stored(x, r) for x, r in zip(tensors.values(), chosen, strict=True)) <= budget
        )
        missed = [
            (spectra[path][rank] ** 2 / stored(tensors[path], 1), spectra[path][rank] ** 2)
            for path, rank in ranks.items()
        ]
        assert energy(spectra, ranks) <= best + 1e-12
        assert best <= energy(spectra, ranks) + max(missed)[1] + 1e-12

    @pytest.mark.parametrize("units", [3, 6, 8.9])
    def test_equal_shapes_are_optimal(self, units):
        tensors = {name: like(12, 12) for name in "abc"}
        spectra = {name: 2.0 ** (-np.arange(12) / scale) for name, scale in zip("abc", (1, 2, 3), strict=True)}
        ranks = lowrank.ranks_for_budget(spectra, tensors, int(units * 4 * 24))
        best = max(
            energy(spectra, dict(zip("abc", chosen, strict=True)))
            for chosen in itertools.product(range(1, 6), repeat=3)
            if sum(chosen) <= units
        )
        assert sum(ranks.values()) == int(units)
        assert energy(spectra, ranks) == pytest.approx(best)

    def test_a_batch_costs_and_counts_as_its_sum(self):
        s = singular_values(normal(3, 9, 8))
        pooled = np.sqrt(np.sum(s**2, 0))
        for budget in range(300, 864, 50):
            batched = lowrank.ranks_for_budget({"w": s}, {"w": like(3, 9, 8)}, budget)
            assert batched == lowrank.ranks_for_budget({"w": pooled}, {"w": like(9, 8)}, budget // 3)

    def test_a_short_spectrum_bounds_the_rank(self):
        assert lowrank.ranks_for_budget({"w": np.ones(2)}, {"w": like(20, 20)}, 1600) == {"w": 2}
        assert lowrank.ranks_for_budget({"w": np.ones(20)}, {"w": like(20, 20)}, 1600) == {"w": 20}

    @pytest.mark.parametrize(
        ("spectra", "budget", "match"),
        [
            ({"w": np.ones(8)}, 60, r"64 bytes: the smallest possible fraction of the dense bytes is 0\.25"),
            ({"v": np.ones(8)}, 99, r"\['v', 'w'\]"),
            ({"w": np.ones(9)}, 99, r"1 to 8 singular values, not 9"),
            ({"w": np.full(8, np.nan)}, 99, r"w has no finite singular values"),
        ],
    )
    def test_bad_input(self, spectra, budget, match):
        with pytest.raises(ValueError, match=match):
            lowrank.ranks_for_budget(spectra, {"w": like(8, 8)}, budget)
