"""How many units of each group reach each of seven places, in one pass over the array?

Three facts of XLA decide the form. A sum of counts is fast on the CPU when several are taken in one pass, and runs on
all cores when its result is one array: so eight neighbours are first added up as fields of four bits of one integer. A
sum becomes one all-reduce of the result, and nothing else, when the axis that crosses devices is summed last: so every
competing axis is cut in an outer part and parts that lie together. And what is written in a branch of a conditional is
compiled by itself.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

PLACES = 7
Read = Callable[..., Array]
Counter = Callable[[Array, Array], Array]


class View(NamedTuple):
    """An array with each competing axis cut into [outer, inner, pack, lanes]; `groups` is () or a keepdims shape."""

    array: Array
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    pack: tuple[int, ...]
    groups: tuple[int, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(sorted(self.outer + self.inner + self.pack))

    @property
    def size(self) -> int:
        return group_size(self.array, self.axes)

    def spread(self, x: Array) -> Array:
        """One value a group, of a shape that broadcasts to the array."""
        if not self.groups:
            return x
        return x.reshape([1 if a in self.axes else n for a, n in enumerate(self.array.shape)])


def view(x: Array, axes: tuple[int, ...]) -> View:
    """Cuts the axes of x along which units compete. The row-major order inside a group stays as it is."""
    sizes, roles, spec = [], [], []
    for a, length in enumerate(x.shape):
        parts = _parts(x, a, "pack" not in roles) if a in axes else {"": length}
        sizes += parts.values()
        roles += parts.keys()
        spec += [_mesh_axes(x, a)] + [None] * (len(parts) - 1)
    sharding = jax.typeof(x).sharding.update(spec=PartitionSpec(*spec)) if any(spec) else None
    outer, inner, lanes, pack = (
        tuple(i for i, r in enumerate(roles) if r == role) for role in ("outer", "inner", "lanes", "pack")
    )
    groups = tuple(1 if a in axes else n for a, n in enumerate(x.shape)) if len(axes) < x.ndim else ()
    return View(lax.reshape(x, sizes, out_sharding=sharding), outer, inner + lanes, pack, groups)


def _parts(x: Array, axis: int, packs: bool) -> dict[str, int]:
    """How an axis is cut, outermost part first, such that all but the outer one stay on their device.

    How the axis is sharded is known on an explicit mesh only; elsewhere up to 16 devices are provided for.
    """
    length, known = x.shape[axis], shards(x, axis)
    if axis < x.ndim - 1:
        parts = _split(length, known, packs)
    elif packs and length % (16 * 8 * 32 * known) == 0:
        lanes = 32 if length % (16 * 8 * 256 * known) else 256
        parts = _split(length // lanes, known, packs) | {"lanes": lanes}
    else:
        most = length // 256 if x.size >= 2**20 else length  # sums along less than 256 entries take long
        outer = known if known > 1 else math.gcd(length, min(16, 1 << max(most.bit_length() - 1, 0)))
        parts = {"outer": outer, "inner": length // max(outer, 1)}
    return {role: n for role, n in parts.items() if n != 1} or {"outer": 1}


def _split(length: int, shards: int, packs: bool) -> dict[str, int]:
    rests = {p: length // p for p in (8, 7, 6, 5, 4) if packs and length % (p * shards) == 0}
    pack = max(rests, key=lambda p: math.gcd(rests[p], 16) if length > 32 else p, default=1)
    rest = rests.get(pack, length)
    outer = rest if rest <= 32 else shards if shards > 1 else math.gcd(rest, 16)
    return {"outer": outer, "inner": rest // max(outer, 1), "pack": pack}


def _mesh_axes(x: Array, axis: int) -> str | tuple[str, ...] | None:
    spec = jax.typeof(x).sharding.spec
    return spec[axis] if axis < len(spec) else None


def shards(x: Array, axis: int) -> int:
    """Over how many devices an axis is known to be spread: that of an explicit mesh is, that of an auto mesh is not."""
    names = _mesh_axes(x, axis)
    names = (names,) if isinstance(names, str) else names or ()
    return math.prod(jax.typeof(x).sharding.mesh.shape[name] for name in names)


def group_size(x: Array, axes: Sequence[int]) -> int:
    """How many units compete."""
    return math.prod(x.shape[a] for a in axes)


def count_dtype(size: int) -> DTypeLike:
    """The integers that count up to `size`."""
    if size < 2**31:
        return jnp.int32
    if not jax.config.read("jax_enable_x64"):
        raise ValueError(f"{size} units compete, which needs 64-bit counts: set jax_enable_x64")
    return jnp.int64


def position(x: Array, axes: Sequence[int]) -> Array:
    """The row-major index of every unit within its group."""
    dtype = count_dtype(group_size(x, axes))
    sharding = jax.typeof(x).sharding if any(_mesh_axes(x, a) for a in range(x.ndim)) else None
    index, stride = jnp.zeros((), dtype), 1
    for a in reversed(axes):
        index += stride * lax.broadcasted_iota(dtype, x.shape, a, out_sharding=sharding)
        stride *= x.shape[a]
    return index


def counter(views: Sequence[View], read: Read, *context: Array, weights: Sequence[float] = ()) -> Counter:
    """count(start, shift): how many units' keys reach start + j 2^shift, for j = 0 to 6, as [7, *groups].

    The key of the unit x is read(x, at, *context), where `at` is its position, counted through all views.
    """

    def count(start: Array, shift: Array) -> Array:
        totals, first = [], 0
        for i, view in enumerate(views):
            total = _count(view, read, first, start, shift, *context)
            totals.append(weights[i] * total if weights else total)
            first += view.size
        return sum(totals[1:], totals[0])

    return count


def _count(view: View, read: Read, first: int, *values: Array) -> Array:
    dtype = count_dtype(first + view.size)

    def total(parts: list[Array]) -> Array:
        parts = _sum([part.astype(dtype) for part in parts], view.inner)
        sums = jnp.sum(jnp.stack(parts), [a + 1 for a in view.axes], dtype=dtype)
        return sums.reshape((PLACES, *view.groups))

    def local(x: Array, start: Array, shift: Array, *context: Array) -> Array:
        place = _place(read(x, first + position(x, view.axes), *context), start, shift)
        if view.pack:
            return jnp.sum(0x1111111 >> (28 - 4 * place), view.pack, jnp.int32, keepdims=True)
        return total([place > j for j in range(PLACES)])

    counts = fenced(local, view.array, *(view.spread(value) for value in values))
    return total([(counts >> (4 * j)) & 15 for j in range(PLACES)]) if view.pack else counts


def sums(*arrays: Array) -> list[Array]:
    """The sums of float arrays of one shape in one pass, some parts first, the devices' last.

    One by one float32 adds some millions of numbers, and gets stuck.
    """
    views = [view(x, tuple(range(x.ndim))) for x in arrays]
    parts = _sum([v.array for v in views], sorted(views[0].inner + views[0].pack))
    return [jnp.sum(part) for part in parts]


def largest(*arrays: Array, axes: Sequence[int] | None) -> list[Array]:
    """The largest numbers along the axes, all by default, which keep length 1; of float arrays of one shape, in one
    pass. All are NaN where one of them is.

    XLA writes down what a single reduction reads, and makes no array of what several read together; that is why all
    are needed for each. (With `isnan` of them stacked it makes one again.)
    """
    n = arrays[0].ndim
    axes = tuple(range(n) if axes is None else sorted(a % n for a in axes))
    views = [view(x, axes) for x in arrays]
    parts = _reduced([v.array for v in views], sorted(views[0].inner + views[0].pack), -jnp.inf, lax.max)
    shape = tuple(1 if a in axes else n for a, n in enumerate(arrays[0].shape))
    tops = [jnp.max(part, views[0].axes).reshape(shape) for part in parts]
    known = jnp.all(jnp.stack([top == top for top in tops]), 0)
    return [jnp.where(known, top, jnp.nan) for top in tops]


def _place(key: Array, start: Array, shift: Array) -> Array:
    """How many of the places start + j 2^shift, from j = 0 to 6, the key reaches."""
    steps = (key - start).astype(shift.dtype) >> shift
    return jnp.where(key >= start, jnp.minimum(steps, PLACES - 1).astype(jnp.int32) + 1, 0)


def _sum(parts: list[Array], axes: Sequence[int]) -> list[Array]:
    """The sums of all parts along the axes, in one pass."""
    return _reduced(parts, axes, 0, lax.add)


def _reduced(parts: list[Array], axes: Sequence[int], start: float, join: Callable[..., Array]) -> list[Array]:
    if not axes:
        return parts
    starts = [jnp.asarray(start, part.dtype) for part in parts]
    joined = lax.reduce(parts, starts, lambda xs, ys: [join(x, y) for x, y in zip(xs, ys, strict=True)], axes)
    return [lax.expand_dims(part, axes) for part in joined]


def fenced(f: Callable[..., Any], *args: Array) -> Any:
    """f(*args), compiled by itself: fused with nothing outside, and none of it kept in memory from pass to pass."""
    always = lax.optimization_barrier(jnp.array(True))
    return lax.cond(always, f, lambda *args: jax.tree.map(jnp.zeros_like, jax.eval_shape(f, *args)), *args)
