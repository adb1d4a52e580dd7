"""Is a budget shared out as its rule says, and is the total exact?"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import csp
from csp import Rule, budgets, methods, metrics, structures
from csp.structures import keep_count

SHAPES = {"small": (8, 6), "wide": (10, 200), "square": (60, 60), "taps": (3, 5, 40), "long": (500, 7)}
SPARSITIES = (0.0, 0.3, 0.5, 0.9, 0.99, 1.0)


def shared(budget, sparsity, structure=None):
    structure = structure or structures.entries()
    return {path: kept for path, (_, kept) in budget.share(structure, SHAPES, sparsity).items()}


@functools.cache
def compiled(budget):
    return jax.jit(budget.allocate)


def random_worths(seed: int = 0, scales=(1.0, 10.0, 0.01)) -> list[jax.Array]:
    draw = np.random.default_rng(seed)
    sizes = ((40, 30), (25,), (60, 50))
    return [jnp.asarray(np.abs(draw.normal(size=n)) * s, jnp.float32) for n, s in zip(sizes, scales, strict=True)]


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_uniform_is_the_same_fraction_of_each(sparsity):
    for path, kept in shared(budgets.uniform(), sparsity).items():
        assert kept == keep_count(int(np.prod(SHAPES[path])), sparsity)


@pytest.mark.parametrize("structure", [structures.entries(), structures.blocks(4, 3), structures.columns()], ids=str)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_erk_meets_its_total_exactly(sparsity, structure):
    sizes = {path: int(structure.sizes(shape)) for path, shape in SHAPES.items()}
    kept = shared(budgets.erk(), sparsity, structure)
    assert sum(kept.values()) == keep_count(sum(sizes.values()), sparsity)
    assert all(0 <= kept[path] <= sizes[path] for path in SHAPES)


@pytest.mark.parametrize("sparsity", SPARSITIES[1:-1])
def test_erk_is_its_formula(sparsity):
    """Density min(1, e sum(shape) / prod(shape)), with e found by bisection."""
    sizes = np.array([np.prod(shape) for shape in SHAPES.values()])
    raw = np.array([sum(shape) / np.prod(shape) for shape in SHAPES.values()])
    total = keep_count(int(sizes.sum()), sparsity)
    low, high = 0.0, 1 / raw.min()
    for _ in range(200):
        e = (low + high) / 2
        low, high = (low, e) if np.sum(np.minimum(1, e * raw) * sizes) > total else (e, high)
    kept = np.array(list(shared(budgets.erk(), sparsity).values()))
    np.testing.assert_allclose(kept, np.minimum(1, low * raw) * sizes, atol=1 + 1e-6)


@settings(max_examples=30)
@given(some.lists(some.integers(1, 500), min_size=1, max_size=6), some.decimals(0, 1, places=3))
def test_erk_of_any_sizes_meets_its_total(widths, sparsity):
    shapes = {str(i): (3 + i, width) for i, width in enumerate(widths)}
    shares = budgets.erk().share(structures.entries(), shapes, float(sparsity))
    total = sum(np.prod(shape) for shape in shapes.values())
    assert sum(kept for _, kept in shares.values()) == keep_count(int(total), float(sparsity))


def test_given_takes_the_first_pattern_that_matches_the_whole_path():
    kept = shared(budgets.given({"s.*": 0.5, "square": 0.9, "wide": 0.0}), 0.75)
    assert kept == {"small": 24, "wide": 2000, "square": 1800, "taps": 150, "long": 875}


@pytest.mark.parametrize("sparsity", [-0.1, 1.5, float("nan")])
def test_given_refuses_what_is_no_fraction(sparsity):
    with pytest.raises(ValueError, match=f"given: 'square' asks for sparsity {sparsity}"):
        budgets.given({"square": sparsity})


def test_given_refuses_what_is_no_pattern():
    with pytest.raises(ValueError, match=r"given: '\(' is not a regular expression"):
        budgets.given({"(": 0.5})


def test_given_refuses_a_pattern_that_matches_nothing():
    """As a rule does: what is asked of nothing is forgotten otherwise."""
    with pytest.raises(ValueError, match=r"given: 'sqare' matches no parameter.*'square'"):
        shared(budgets.given({"sqare": 0.5}), 0.75)


def numpy_global(worths, scales, total: int) -> list[int]:
    """How many of the `total` largest normalised worths each array holds."""
    owner = np.concatenate([np.full(w.size, i) for i, w in enumerate(worths)])
    score = np.concatenate([np.ravel(w) / s for w, s in zip(worths, scales, strict=True)])
    chosen = owner[np.argsort(-score, kind="stable")[:total]]
    return [int(np.sum(chosen == i)) for i in range(len(worths))]


@pytest.mark.parametrize("total", [0, 1, 7, 500, 2000, 4224, 4225])
def test_global_is_one_sort_of_the_normalised_worths(total):
    worths = random_worths()
    scales = [np.sqrt(np.mean(np.square(w))) for w in worths]
    kept = np.array(compiled(budgets.global_(floor=0))(worths, total))
    assert kept.sum() == total
    np.testing.assert_allclose(kept, numpy_global(worths, scales, total), atol=2 + 0.03 * total)


@pytest.mark.parametrize("total", [1, 500, 2000])
def test_global_is_exact_for_the_scale_that_it_takes(total):
    worths = random_worths(3)
    scales = [float(budgets.root_mean_square(w)) for w in worths]
    kept = np.array(compiled(budgets.global_(floor=0))(worths, total))
    np.testing.assert_allclose(kept, numpy_global(worths, scales, total), atol=1)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e15])
def test_the_root_mean_square_is_near(scale):
    worth = random_worths(5, (scale,) * 3)[2]
    expected = np.sqrt(np.mean(np.square(np.asarray(worth, np.float64))))
    np.testing.assert_allclose(budgets.root_mean_square(worth), expected, rtol=0.05)


def test_the_root_mean_square_is_of_what_lives():
    worth = random_worths(6)[2]
    padded = jnp.concatenate([worth, jnp.zeros_like(worth)])
    assert budgets.root_mean_square(padded) == budgets.root_mean_square(worth)


def test_global_does_not_depend_on_the_scale_of_a_tensor():
    kept = compiled(budgets.global_(floor=0))(random_worths(1, (1.0, 1.0, 1.0)), 1000)
    scaled = compiled(budgets.global_(floor=0))(random_worths(1, (8.0, 0.25, 1024.0)), 1000)
    np.testing.assert_array_equal(kept, scaled)


@pytest.mark.parametrize("total", [1, 100, 300, 399])
def test_global_compares_worths_below_zero_too(total):
    """As movement's: twins share a total evenly, wherever their worths lie."""
    worth = random_worths(2)[0].reshape(-1)[:200]
    kept = [int(k) for k in compiled(budgets.global_(floor=0))([worth - 2, worth - 2], total)]
    assert sum(kept) == total
    assert abs(kept[0] - kept[1]) <= 1
    shifted = [worth - 2, -jnp.abs(worth) - 9]
    scales = [float(budgets.root_mean_square(jnp.abs(w))) for w in shifted]
    kept = np.array(compiled(budgets.global_(floor=0))(shifted, total))
    np.testing.assert_allclose(kept, numpy_global(shifted, scales, total), atol=1)


@pytest.mark.parametrize("scale", [1e-20, 1e-10, 1e10, 1e20])
def test_lamp_does_not_depend_on_the_scale_of_a_tensor(scale):
    worths = random_worths(4, (1.0, 1.0, 1.0))
    kept = compiled(budgets.lamp())([worths[0], worths[1], scale * worths[2]], 1000)
    np.testing.assert_array_equal(kept, compiled(budgets.lamp())(worths, 1000))


def test_lamp_squares_no_worth_that_has_a_sign():
    with pytest.raises(ValueError, match="those of metric movement have a sign"):
        Rule("w", structures.entries(), metrics.movement(), 0.5, budgets.lamp())
    tx = csp.sparsify(
        optax.sgd(0.1), Rule("w", structures.entries(), sparsity=0.5, budget=budgets.lamp()), method=methods.movement(9)
    )
    with pytest.raises(ValueError, match="'w': this budget squares worths"):
        tx.init({"w": jnp.ones((4, 4))})


def numpy_lamp(worths, total: int) -> list[int]:
    """Scores by sorting: w^2 over the sum of the squares that are as large or larger."""
    scores = []
    for worth in worths:
        square = np.sort(np.square(np.ravel(np.asarray(worth, np.float64))))
        scores.append(square / np.cumsum(square[::-1])[::-1])
    return numpy_global(scores, [1.0] * len(scores), total)


@pytest.mark.parametrize("total", [100, 800, 2000, 3500])
def test_lamp_is_near_its_definition(total):
    worths = random_worths(2)
    kept = np.array(compiled(budgets.lamp())(worths, total))
    assert kept.sum() == total
    np.testing.assert_allclose(kept, numpy_lamp(worths, total), atol=2, rtol=0.06)


@pytest.mark.parametrize("make", [budgets.global_, budgets.lamp])
@pytest.mark.parametrize("floor", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("total", [0, 1, 5, 300, 4000, 4225])
def test_the_total_is_exact_and_the_floor_respected(make, floor, total):
    worths = random_worths(4, (1.0, 1e-6, 1e6))
    kept = np.array(compiled(make(floor))(worths, total))
    sizes = np.array([w.size for w in worths])
    assert kept.sum() == total
    assert np.all((kept >= 0) & (kept <= sizes))
    assert np.all(kept >= np.floor(floor * sizes * total / sizes.sum() - 1e-3))


HARD_CASES = {
    "all equal": [np.ones((9, 9)), np.ones(7)],
    "all zero": [np.zeros((9, 9)), np.zeros(7)],
    "one zero": [np.zeros((9, 9)), np.arange(7.0)],
    "mostly zero": [np.eye(9), np.eye(3)],
    "negative, as movement's": [-np.ones((9, 9)), np.linspace(-1, 1, 7)],
    "huge and tiny": [np.full((9, 9), 3e38), np.full(7, 1e-38)],
}


@pytest.mark.parametrize("make", [budgets.global_, budgets.lamp])
@pytest.mark.parametrize("case", HARD_CASES)
def test_the_total_is_exact_whatever_the_worths(make, case):
    worths = [jnp.asarray(w, jnp.float32) for w in HARD_CASES[case]]
    size = sum(w.size for w in worths)
    allocate = compiled(make())
    for total in (0, 1, size // 2, size - 1, size):
        kept = np.array(allocate(worths, total))
        assert kept.sum() == total
        assert all(0 <= k <= w.size for k, w in zip(kept, worths, strict=True))


@pytest.mark.parametrize("make", [budgets.global_, budgets.lamp])
@pytest.mark.parametrize("floor", [-0.1, 1.1, float("nan")])
def test_a_floor_that_is_no_fraction_is_refused(make, floor):
    with pytest.raises(ValueError, match=f"floor is the fraction.*got {floor}"):
        make(floor)
