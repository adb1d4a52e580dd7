"""Selection against sorting with numpy: every dtype, ties, infinities, NaN, groups, transforms, meshes."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from devices import eight_devices
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from csp import select

ROOT = Path(__file__).parent.parent
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 1e-40, -1e-40, 2e-45, np.inf, -np.inf, np.nan, 3.5, 3.5]


def order(x):
    """The indices of x from the best to the worst: by value, NaN last, and ties by index."""
    x = np.asarray(x).ravel()
    x = x.astype(np.float64) if x.dtype.kind not in "iu" else x.astype(object)
    missing = np.array([v != v for v in x], bool)
    worth = np.where(missing, 0, x)
    return np.array(sorted(range(x.size), key=lambda i: (missing[i], -worth[i], i)), int)


def largest(x, k):
    keep = np.zeros(np.size(x), bool)
    keep[order(x)[:k]] = True
    return keep.reshape(np.shape(x))


def largest_along(x, k, axes):
    """`largest` in every group; k broadcasts to the shape with length 1 along the axes."""
    x = np.asarray(x)
    groups = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
    counts = np.moveaxis(
        np.broadcast_to(k, [1 if a in axes else n for a, n in enumerate(x.shape)]), axes, range(-len(axes), 0)
    )
    keep = np.zeros(groups.shape, bool)
    for i in np.ndindex(groups.shape[: x.ndim - len(axes)]):
        keep[i] = largest(groups[i], int(counts[i].item()))
    return np.moveaxis(keep, range(x.ndim - len(axes), x.ndim), axes)


def same_number(a, b):
    a, b = np.asarray(a).item(), np.asarray(b).item()
    return a == b or (a != a and b != b)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int32", "uint8", "uint32"])
@pytest.mark.parametrize("draw", ["special", "few", "many"])
def test_agrees_with_sorting(dtype, draw):
    rng = np.random.default_rng(0)
    integers = "int" in dtype
    values = {
        "special": [0, 1, 2, 100, *((np.iinfo(dtype).min, np.iinfo(dtype).max) if integers else SPECIAL)],
        "few": [0, 1, 2],
        "many": rng.integers(0, 127, 500) if integers else rng.standard_normal(500),
    }[draw]
    x = jnp.asarray(
        rng.choice(np.asarray(values, object if integers else np.float64), 105).astype(dtype).reshape(7, 15)
    )
    best = np.asarray(x).ravel()[order(x)]
    for k in [0, 1, 2, 20, 52, 104, 105]:
        np.testing.assert_array_equal(select.keep_largest(x, k), largest(x, k))
        if k:
            assert same_number(np.asarray(select.kth_largest(x, k)), best[k - 1])


def test_float64_and_int64_agree_with_sorting():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        close = 1 + np.arange(40) * 1e-15
        for x in [np.r_[close, SPECIAL, rng.standard_normal(26)], rng.integers(-(2**62), 2**62, 80)]:
            x = jnp.asarray(rng.permutation(x)).reshape(8, 10)
            for k in [0, 1, 33, 79, 80]:
                np.testing.assert_array_equal(select.keep_largest(x, k), largest(x, k))
                if k:
                    assert same_number(np.asarray(select.kth_largest(x, k)), np.asarray(x).ravel()[order(x)][k - 1])


def test_subnormal_numbers_are_told_apart():
    x = np.arange(1, 65, dtype=np.int32).view(np.float32)  # the 64 smallest positive numbers
    assert np.asarray(select.kth_largest(x, 10)).view(np.int32) == 55
    np.testing.assert_array_equal(select.keep_largest(x, 10), np.arange(64) >= 54)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.data())
def test_any_array_any_group(data):
    shape, axes = data.draw(
        st.sampled_from([((37,), (0,)), ((3, 40, 2), (1,)), ((6, 5), (0,)), ((2, 3, 4), (0, 2)), ((4, 33), (1,))])
    )
    element = st.one_of(st.sampled_from(SPECIAL), st.floats(width=32))
    x = np.array(data.draw(st.lists(element, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))).astype(
        np.float32
    )
    x = x.reshape(shape)
    size = int(np.prod([shape[a] for a in axes]))
    k = data.draw(st.integers(-2, size + 2))
    cut = select.cut(jnp.asarray(x), jnp.int32(k), axes)
    keep = np.asarray(select.above(jnp.asarray(x), cut, axes))
    np.testing.assert_array_equal(keep, largest_along(x, np.clip(k, 0, size), axes))


@pytest.mark.parametrize(
    ("shape", "axes"), [((4, 128, 6), (-2,)), ((6, 4, 10), (1,)), ((2, 32, 3), (1,)), ((96, 5), (0,))]
)
def test_groups_may_keep_different_numbers(shape, axes):
    rng = np.random.default_rng(1)
    x = np.round(rng.standard_normal(shape) * 3).astype(np.float32)
    axes = tuple(a % len(shape) for a in axes)
    groups = [1 if a in axes else n for a, n in enumerate(shape)]
    k = rng.integers(0, shape[axes[0]] + 1, groups)
    np.testing.assert_array_equal(select.keep_largest(x, k, axes), largest_along(x, k, axes))
    values = np.asarray(select.kth_largest(x, np.maximum(k, 1), axes))
    kept = np.where(largest_along(x, np.maximum(k, 1), axes), x, np.inf)
    np.testing.assert_array_equal(values, kept.min(axes))


def test_padding_is_never_kept_before_a_number():
    x = np.full((3, 48), -np.inf, np.float32)
    x[:, ::3] = -1e30
    assert np.all(np.asarray(select.keep_largest(x, 16, 1)) == (x > -np.inf))


def test_joint_budget_is_one_ranking():
    rng = np.random.default_rng(2)
    worths = [np.round(rng.standard_normal(s) * 2).astype(np.float32) for s in [(5, 7), (), (64, 8), (0, 3), (11,)]]
    flat = np.concatenate([w.ravel() for w in worths])
    for k in [0, 1, 30, 200, 558, 559, 10_000]:
        cuts = select.cut_jointly([jnp.asarray(w) for w in worths], k)
        keep = [np.asarray(select.above(jnp.asarray(w), c)).ravel() for w, c in zip(worths, cuts, strict=True)]
        np.testing.assert_array_equal(np.concatenate(keep), largest(flat, min(k, flat.size)))


@functools.cache
def adversaries():
    rng = np.random.default_rng(3)
    z = rng.standard_normal((1024, 512)).astype(np.float32)
    return {
        "rows of very different scale": z * np.float32(10.0) ** rng.integers(-30, 30, (1024, 1)).astype(np.float32),
        "sorted": np.sort(z.ravel()).reshape(z.shape),
        "the sample sees none of it": np.where(np.arange(512) % 2 == 1, z + 1e6, 0).astype(np.float32),
        "zeros but a few": np.where(rng.random(z.shape) < 1e-4, z, 0).astype(np.float32),
        "all equal": np.full_like(z, 0.1),
        "one point, next to it another": np.where(z > 0, np.float32(1), np.nextafter(np.float32(1), np.float32(2))),
        "bits": rng.integers(-(2**31), 2**31, z.shape).astype(np.int32).view(np.float32),
    }


@pytest.mark.parametrize("name", adversaries())
def test_a_bad_guess_changes_nothing(name):
    x = adversaries()[name]
    keys = np.where(np.isnan(x), -np.inf, x).astype(np.float64).ravel()
    indices = np.lexsort((np.arange(x.size), np.isnan(x).ravel(), -keys))
    for k in [1, 1000, x.size // 2, x.size - 3]:
        keep = np.asarray(select.keep_largest(x, k)).ravel()
        assert keep.sum() == k
        assert keep[indices[:k]].all()
        assert same_number(np.asarray(select.kth_largest(x, k)), x.ravel()[indices[k - 1]])


@pytest.mark.long
def test_twenty_million_are_counted_exactly():
    n = 20 * 2**20
    x = (np.arange(n, dtype=np.uint32) * np.uint32(2654435761)).view(np.int32)
    k = 7_654_321
    assert int(select.kth_largest(jnp.asarray(x), k)) == np.partition(x, n - k)[n - k]
    assert int(jnp.sum(select.keep_largest(jnp.asarray(x).reshape(4096, -1) >> 20, k))) == k
    assert int(select.count_at_least(jnp.asarray(x), 12345)) == np.sum(x >= 12345)


@pytest.mark.parametrize(("shape", "axis"), [((6, 70), None), ((6, 8), 1)])
def test_vmap_is_a_loop(shape, axis):
    x = jnp.round(jax.random.normal(jax.random.key(0), (3, *shape)) * 2)
    k = jnp.array([1, 5, 8])
    for f in (select.keep_largest, select.kth_largest):
        one_by_one = [f(x[i], int(k[i]), axis) for i in range(3)]
        np.testing.assert_array_equal(jax.vmap(lambda x, k: f(x, k, axis))(x, k), one_by_one)  # noqa: B023


def test_inside_scan_with_donation_and_one_compilation():
    x = jax.random.normal(jax.random.key(0), (64, 48))

    @functools.partial(jax.jit, donate_argnums=0)
    def prune(x, ks):
        return jax.lax.scan(lambda x, k: (jnp.where(select.keep_largest(jnp.abs(x), k), x, 0), jnp.sum(x != 0)), x, ks)

    pruned, counts = prune(x + 0, jnp.array([3000, 500, 17]))
    assert counts.tolist() == [3072, 3000, 500]
    assert int(jnp.sum(pruned != 0)) == 17
    prune(x + 0, jnp.array([1, 2, 3]))
    assert prune._cache_size() == 1


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((1024, 1024), None), ((1 << 20,), None), ((256, 4, 1024), (1,)), ((8, 128, 1024), (1,))],
)
def test_no_temporary_is_as_large_as_the_array(shape, axes):
    x = jnp.zeros(shape)
    compiled = jax.jit(lambda x: select.cut(x, 3, axes)).lower(x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= x.nbytes / 2


def test_strict_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        for axis in (None, 0, 1):
            assert select.keep_largest(jnp.ones((40, 3), jnp.bfloat16), 2, axis).sum() == {None: 2, 0: 6, 1: 80}[axis]


def test_empty_and_scalar():
    assert select.keep_largest(jnp.zeros((0, 3)), 0).shape == (0, 3)
    assert select.keep_largest(jnp.zeros((2, 0)), 0, 1).shape == (2, 0)
    assert select.kth_largest(jnp.zeros((0, 3)), 2, 1).shape == (0,)
    assert bool(select.keep_largest(jnp.array(2.0), 1))
    assert float(select.kth_largest(2.0, 1)) == 2
    assert select.cut_jointly([], 3) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: select.kth_largest(x, 0), "k = 0, but 12 units compete: choose k from 1 to 12"),
        (lambda x: select.kth_largest(x, 5, 1), "k = 5, but 4 units compete: choose k from 1 to 4"),
        (lambda x: select.keep_largest(x, 13), "k = 13, but 12 units compete: choose k from 0 to 12"),
        (lambda x: select.keep_largest(x, -1), "k = -1, but 12 units compete"),
        (lambda x: select.keep_largest(x, 2.5), "k has dtype float32, but units are counted in integers"),
        (lambda x: select.cut(x, 1, 2), "axis 2 of an array of shape (3, 4): choose from -2 to 1"),
        (lambda x: select.kth_largest(x + 1j, 1), "complex64 values cannot be ranked: cast them to float32"),
        (
            lambda x: select.cut_jointly([x, x.astype(int)], 1),
            "worths of dtypes float32, int32 cannot be ranked together",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        call(jnp.zeros((3, 4)))
    assert "\n" not in str(error.value)


def test_a_count_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="units compete, which needs 64-bit counts"):
        jax.eval_shape(lambda x: select.cut(x, 1), jax.ShapeDtypeStruct((2**16, 2**16), jnp.bfloat16))


def test_sharded_is_unsharded_and_only_counts_travel():
    env = eight_devices() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def check_sharded(f, axis_type, mesh_shape, shape, spec, groups=1):
    """f gives the same bits as on one device, and all that crosses devices are sums of at most 14 counts a group."""
    mesh = jax.make_mesh(mesh_shape, ("a", "b"), (axis_type,) * 2, devices=jax.devices()[: np.prod(mesh_shape)])
    x = np.round(np.random.default_rng(0).standard_normal(shape) * 8).astype(np.float32) / 8
    expected = jax.jit(f)(jnp.asarray(x))
    with jax.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
        compiled = jax.jit(f).lower(sharded).compile()
        got = compiled(sharded)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert got[0].shape != shape or got[0].sharding.is_equivalent_to(sharded.sharding, x.ndim)
    hlo = compiled.as_text()
    assert not re.search("all-gather|all-to-all|collective-permute|reduce-scatter", hlo)
    sent = re.findall(r"\[([\d,]*)\]", "".join(re.findall(r"= (.*?) all-reduce\(", hlo)))
    assert all(np.prod([int(n) for n in size.split(",") if n]) <= 14 * groups for size in sent)


def keep_together(x, k):
    return [select.above(w, c) for w, c in zip([x, -x], select.cut_jointly([x, -x], k), strict=True)]


def keep_in_groups(x):
    return [select.keep_largest(x, 12, 1)]


def check_meshes():
    auto, explicit = AxisType.Auto, AxisType.Explicit
    for kind in (auto, explicit):
        check_sharded(lambda x: [select.keep_largest(x, 9_999)], kind, (4, 2), (256, 128), ("a", "b"))
        check_sharded(keep_in_groups, kind, (4, 2), (16, 128, 32), ("a", None, "b"), groups=512)
        check_sharded(keep_in_groups, kind, (4, 2), (64, 16, 32), ("a", None, "b"), groups=0)
    check_sharded(lambda x: [select.kth_largest(x, 99_999)], auto, (2, 2), (1024, 512), ("b", "a"))
    check_sharded(lambda x: [select.keep_largest(x, 100, 0)], explicit, (4, 2), (512, 64), ("a",), groups=64)
    check_sharded(lambda x: [select.keep_largest(x, 99, 1)], auto, (8, 1), (8, 512), (None, "a"), groups=8)
    check_sharded(lambda x: keep_together(x, 2345), auto, (2, 2), (64, 48), ("b",))
    check_sharded(lambda x: [select.kth_largest(x, 9, 0)], explicit, (1, 1), (64, 48), ("a",), groups=48)


if __name__ == "__main__":
    check_meshes()


@pytest.mark.parametrize("size", [10, 100, 5000])
def test_a_threshold_is_a_constant_to_gradients(size):
    x = jnp.asarray(np.random.default_rng(0).normal(size=size), jnp.float32)
    slope = jax.grad(lambda x: jnp.sum(x * select.kth_largest(x, 5)))(x)
    np.testing.assert_array_equal(slope, jnp.full(size, select.kth_largest(x, 5)))
