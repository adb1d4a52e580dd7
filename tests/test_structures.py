"""Do structures cut parameters into the units that they say, and count them exactly?"""

import decimal
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from csp import structures
from csp.state import decode, encode
from csp.structures import keep_count, rank_for

EVERY = [
    structures.entries(),
    structures.n_of_m(2, 4),
    structures.n_of_m(12, 128),
    structures.blocks(16, 1),
    structures.rows(),
    structures.columns(tied=4),
    structures.heads(3, axis=-2),
    structures.rank(),
]


@pytest.mark.parametrize(
    ("size", "sparsity", "kept"),
    [
        (10, 0.9, 1),
        (10, 0.95, 0),  # half a unit more is pruned
        (5, 0.5, 2),
        (100, 0.0, 100),
        (100, 1.0, 0),
        (7, 1 / 3, 5),
        (64 * 2**20, 0.9, 6_710_886),  # float32 cannot tell this count from its neighbours
        (10**12, 0.9, 10**11),
    ],
)
def test_a_budget_is_counted_in_decimals(size, sparsity, kept):
    assert keep_count(size, sparsity) == kept


@given(some.integers(0, 10**10), some.decimals(0, 1, places=4))
def test_a_budget_is_what_decimal_arithmetic_says(size, sparsity):
    zeros = (size * sparsity).quantize(decimal.Decimal(1), rounding=decimal.ROUND_HALF_UP)
    assert keep_count(size, float(sparsity)) == size - zeros


def test_entries_are_their_own_units():
    x = jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(structures.entries().layout(x), x)
    assert structures.entries().sizes((2, 3)) == 6


def test_n_of_m_groups_the_inputs_of_every_output():
    x = jnp.arange(1.0, 11.0).reshape(5, 2)
    units = structures.n_of_m(2, 4).layout(x)
    assert units.shape == (2, 4, 2)
    np.testing.assert_array_equal(units[0, :, 1], [2, 4, 6, 8])
    np.testing.assert_array_equal(units[1, :, 0], [9, -np.inf, -np.inf, -np.inf])


@pytest.mark.parametrize(
    ("n", "m", "length", "sizes", "kept"),
    [
        (2, 4, 8, [4, 4], [2, 2]),
        (2, 4, 7, [4, 3], [2, 2]),
        (2, 4, 5, [4, 1], [2, 1]),
        (12, 128, 133, [128, 5], [12, 1]),
        (1, 4, 3, [3], [1]),
        (0, 4, 6, [4, 2], [0, 0]),
        (4, 4, 6, [4, 2], [4, 2]),
    ],
)
def test_a_partial_group_keeps_its_share(n, m, length, sizes, kept):
    structure = structures.n_of_m(n, m)
    assert structure.sizes((length, 3)).ravel().tolist() == sizes
    assert structure.kept((length, 3), structure.sparsity).ravel().tolist() == kept
    assert structure.sizes((length,)).ravel().tolist() == sizes


@pytest.mark.parametrize("sparsity", np.linspace(0, 1, 9))
def test_a_partial_group_is_never_cut_below_its_share_on_the_way(sparsity):
    structure = structures.n_of_m(12, 128)
    on_the_way = structure.kept_at((133, 1), jnp.float32(sparsity * structure.sparsity))
    assert np.all(on_the_way >= structure.kept((133, 1), structure.sparsity))


def test_a_partial_block_is_a_unit_like_any_other():
    x = jnp.ones((5, 4))
    units = structures.blocks(2, 3).layout(x)
    np.testing.assert_allclose(jnp.square(units), [[6, 2], [6, 2], [3, 1]], rtol=1e-6)
    assert structures.blocks(2, 3).sizes((5, 4)) == 6


def test_blocks_keep_the_leading_axes_apart():
    assert structures.blocks(2, 2).layout(jnp.ones((3, 4, 4))).shape == (3, 2, 2)
    assert structures.blocks(2, 2).sizes((3, 4, 4)) == 12


def test_rows_and_columns_own_the_slices_of_all_taps():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_allclose(structures.rows().layout(x), np.linalg.norm(x, axis=(0, 2)), rtol=1e-6)
    np.testing.assert_allclose(structures.columns().layout(x), np.linalg.norm(x, axis=(0, 1)), rtol=1e-6)


def test_a_tied_column_is_the_same_unit_of_every_gate():
    x = jnp.arange(12.0).reshape(1, 12)
    expected = [math.hypot(0, 3, 6, 9), math.hypot(1, 4, 7, 10), math.hypot(2, 5, 8, 11)]
    np.testing.assert_allclose(structures.columns(tied=4).layout(x), expected, rtol=1e-6)
    spread = structures.columns(tied=4).spread(jnp.array([True, False, True]), (1, 12))
    assert spread[0].tolist() == [True, False, True] * 4


@pytest.mark.parametrize("axis", [-1, -2])
def test_heads_are_contiguous_pieces_of_their_axis(axis):
    shape = (6, 4) if axis == -2 else (4, 6)
    spread = structures.heads(3, axis=axis).spread(jnp.array([1, 2, 3]), shape)
    line = spread[:, 0] if axis == -2 else spread[0]
    assert line.tolist() == [1, 1, 2, 2, 3, 3]
    assert spread.shape == shape


@given(some.integers(1, 40), some.integers(1, 40), some.decimals(0, "0.99", places=2))
def test_a_rank_is_the_largest_that_saves_the_bytes(m, n, saving):
    """r (m + n) <= (1 - saving) m n, and one more would be too many."""
    budget = (1 - saving) * m * n
    if budget < m + n:
        with pytest.raises(ValueError, match="no rank saves"):
            rank_for((m, n), float(saving))
    else:
        rank = rank_for((m, n), float(saving))
        assert rank * (m + n) <= budget < (rank + 1) * (m + n)


def test_a_dense_rank_is_full():
    assert structures.rank().kept((6, 4), 0.0) == 4
    assert structures.rank().kept_at((6, 4), jnp.float32(0)) == 4


@pytest.mark.parametrize("structure", EVERY, ids=str)
def test_a_structure_can_be_written_in_three_integers(structure):
    assert decode(*encode(structure)) == structure


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: structures.n_of_m(5, 4), "0 <= n <= m.*n=5, m=4"),
        (lambda: structures.n_of_m(-1, 4), "n=-1"),
        (lambda: structures.n_of_m(0, 0), "m=0"),
        (lambda: structures.blocks(0, 1), "p=0, q=1"),
        (lambda: structures.columns(tied=0), "positive number of gates, got 0"),
        (lambda: structures.heads(0), "n=0"),
        (lambda: structures.heads(2, axis=1), "axis=1"),
    ],
)
def test_impossible_structures_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("structure", "shape", "message"),
    [
        (structures.entries(), (), "'w' is a scalar.*Rule\\('w', None\\)"),
        (structures.n_of_m(2, 4), (), "'w' is a scalar"),
        (structures.blocks(2, 2), (4,), "blocks 2x2 needs a matrix.*'w'.*entries"),
        (structures.rows(), (4,), "rows needs a matrix"),
        (structures.columns(tied=4), (4, 6), "'w' has 6 columns.*4 does not divide"),
        (structures.heads(4), (4, 6), "'w'.*does not hold 4 equal heads"),
        (structures.heads(2, axis=-3), (4, 6), "axis -3 of 'w'"),
        (structures.rank(), (4,), "rank needs a matrix"),
    ],
)
def test_parameters_that_cannot_be_cut_are_refused(structure, shape, message):
    with pytest.raises(ValueError, match=message):
        structure.check("w", shape)


@pytest.mark.parametrize("structure", [structures.blocks(4, 4), structures.rows(), structures.columns(tied=4)])
@pytest.mark.parametrize("loud", [1.0, 1e6, 1e18])
@pytest.mark.parametrize("size", [1.0, 1e-22])
def test_units_are_ranked_whatever_their_size_and_their_loudest_neighbour(structure, size, loud):
    x = size * np.random.default_rng(0).normal(size=(64, 32))
    x[3, 5] *= loud
    norms = np.asarray(structure.layout(jnp.asarray(x, jnp.float32))).ravel()
    true = np.sqrt(_sums(structure, x**2)).ravel()
    assert norms.shape == true.shape
    np.testing.assert_allclose(norms, true, rtol=1e-5)


def _sums(structure, squares):
    """In float64, by numpy alone."""
    if isinstance(structure, structures.Blocks):
        return squares.reshape(16, 4, 8, 4).sum((1, 3))
    if structure.axis == -2:
        return squares.sum(1)
    return squares.reshape(64, 4, 8).sum((0, 1))
