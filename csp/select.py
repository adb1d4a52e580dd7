"""Which k units are the largest? Exact order statistics without sorting, on one device or sharded.

Numbers become integers of the same order, and the integer that k units reach is searched by counting at seven places
a pass. The first places come from a sample, the next from the counts: a guess decides how many passes are needed,
never the answer. On a mesh only counts and thresholds cross devices.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike, DTypeLike

Axes = int | Sequence[int] | None
Counter = Callable[[Array, Array], list[Array]]

_PLACES = 7
_SHORT = 16
_SAMPLE = 2**16


class Cut(NamedTuple):
    """Where a ranking is cut: every unit with `worth > value` is kept, and of those with `worth == value` the first.

    Attributes:
        value: the threshold of every group, of the dtype of the worth, with length 1 along the axes that compete.
        last: the position of the last tie that is kept, an integer of the same shape. Positions count row-major
            inside the group from 0; -1 keeps no tie.
    """

    value: Array
    last: Array


def cut(worth: Array, k: ArrayLike, axes: Axes = None) -> Cut:
    """Finds the cut that keeps exactly the `k` units of greatest worth in every group.

    Equal units are kept in the order of their index. NaN is worth less than -inf, and -inf less than any number.

    Args:
        worth: floating or integer array.
        k: how many units to keep, clipped to [0, group size]; an integer, or an array of integers that broadcasts
            to the shape of `worth` with length 1 along `axes`.
        axes: the axes along which units compete, None for all. A single axis of up to 16 units is compared pair by
            pair where it lies, so shard another one.

    Returns:
        The cut, to be given to `above`. Its value lies between the last unit kept and the first one dropped.
    """
    axes = _axes(worth, axes)
    return _cut(worth, _whole(k, _size(worth, axes)), axes)


def cut_jointly(worths: Sequence[Array], k: ArrayLike) -> list[Cut]:
    """Finds the cuts that keep the `k` units of greatest worth of several arrays together.

    Equal units are kept in the order of the arrays, then of their index.

    Args:
        worths: arrays of one dtype, of any shapes.
        k: how many units to keep in all, clipped to [0, their number].

    Returns:
        One cut for every array: all `above(worths[i], cuts[i])` together hold exactly k True.
    """
    if len({worth.dtype for worth in worths}) > 1:
        dtypes = ", ".join(str(worth.dtype) for worth in worths)
        raise ValueError(f"cannot rank worths of dtypes {dtypes} together: cast them to one dtype")
    if not worths:
        return []
    return _cut_jointly(tuple(worths), _whole(k, sum(worth.size for worth in worths)))


def above(worth: Array, cut: Cut, axes: Axes = None) -> Array:
    """What a cut keeps: exactly k True in every group, for the `worth` and the `axes` that `cut` was given."""
    return _above(worth, cut, _axes(worth, axes))


def keep_all(worth: Array, axes: Axes = None) -> Cut:
    """The cut that keeps every unit but those worth NaN or -inf."""
    axes = _axes(worth, axes)
    if jnp.issubdtype(worth.dtype, jnp.floating):
        return _constant_cut(worth, axes, -jnp.inf, -1)
    return _constant_cut(worth, axes, jnp.iinfo(worth.dtype).min, _size(worth, axes) - 1)


def keep_nonzero(worth: Array, axes: Axes = None) -> Cut:
    """The cut that keeps every unit of positive worth."""
    return _constant_cut(worth, _axes(worth, axes), 0, -1)


def kth_largest(x: ArrayLike, k: ArrayLike, axis: Axes = None) -> Array:
    """The exact k-th largest value, without sorting.

    Args:
        x: floating or integer array. Signed values compare as numbers, NaN ranks below -inf.
        k: 1 for the maximum, the group size for the minimum; an integer or an array of them, as in `cut`.
        axis: the axes to reduce, None for all.

    Returns:
        Array of the dtype of x without the reduced axes.

    >>> float(kth_largest(jnp.array([3.0, -5.0, 1.0, 4.0]), 2))
    3.0
    """
    x = jnp.asarray(x)
    axes = _axes(x, axis)
    _check(k, _size(x, axes), least=1)
    return _kth_largest(x, _whole(k, _size(x, axes)), axes)


def keep_largest(x: ArrayLike, k: ArrayLike, axis: Axes = None) -> Array:
    """Keeps the k largest: exactly k True in every group, and of equal values those of lower index.

    >>> keep_largest(jnp.array([3.0, -5.0, 3.0, 4.0]), 2).tolist()
    [True, False, False, True]
    """
    x = jnp.asarray(x)
    _check(k, _size(x, _axes(x, axis)), least=0)
    return above(x, cut(x, k, axis), axis)


def count_at_least(worth: Array, value: ArrayLike) -> Array:
    """How many units are worth `value` or more: an exact integer. NaN is worth less than any value."""
    return _count_at_least(worth, jnp.asarray(value, worth.dtype))


def _check(k: ArrayLike, size: int, least: int) -> None:
    if isinstance(k, (int, np.integer)) and not least <= k <= size:
        raise ValueError(f"k = {k}, but {size} units compete: choose k from {least} to {size}")


def _whole(k: ArrayLike, size: int) -> Array:
    """The count k, clipped to [0, size], in an integer that holds the size."""
    dtype = _count_dtype(size)
    if isinstance(k, (int, np.ndarray, np.integer)):
        k = np.clip(k, 0, size)
    k = jnp.asarray(k)
    if not jnp.issubdtype(k.dtype, jnp.integer):
        raise ValueError(f"k has dtype {k.dtype}: round it to an integer first")
    return jnp.clip(k.astype(dtype), 0, size)


def _count_dtype(size: int) -> DTypeLike:
    if size < 2**31:
        return jnp.int32
    if not jax.config.read("jax_enable_x64"):
        raise ValueError(f"{size} units compete, which takes 64-bit counts: set jax_enable_x64")
    return jnp.int64


def _axes(x: Array, axes: Axes) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(x.ndim))
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    for axis in axes:
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(f"axis {axis} of an array of shape {x.shape}: choose from {-x.ndim} to {x.ndim - 1}")
    return tuple(sorted({axis % x.ndim for axis in axes}))


def _size(x: Array, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[a] for a in axes)


def _fill(x: Array, axes: tuple[int, ...], value: ArrayLike, dtype: DTypeLike) -> Array:
    """A value for every group, sharded as the groups are."""
    return jnp.full_like(jnp.sum(x, axes, keepdims=True), value, dtype=dtype)


def _constant_cut(worth: Array, axes: tuple[int, ...], value: float, last: int) -> Cut:
    dtype = _count_dtype(_size(worth, axes))
    return Cut(_fill(worth, axes, value, worth.dtype), _fill(worth, axes, last, dtype))


# Numbers and their keys.


def _key_range(dtype: np.dtype) -> tuple[int, int]:
    """The keys of NaN and infinity, or of the least and the greatest integer."""
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > 1:
        infinity = int(np.array(np.inf, dtype).view(f"uint{8 * dtype.itemsize}"))
        return -infinity - 1, infinity
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"cannot rank {dtype}: cast it to float32")
    info = jnp.iinfo(dtype if dtype.itemsize < 4 else f"int{8 * dtype.itemsize}")
    return int(info.min), int(info.max)


def _key(x: Array) -> Array:
    """An int32 or int64 that orders as x does: -0.0 and +0.0 are one, NaN is next below -inf.

    A float's bits are its sign and, as an integer, the order of its size. Integers also keep subnormal numbers apart
    where floating comparisons flush them to zero.
    """
    lowest, highest = _key_range(x.dtype)
    wide = jnp.int64 if x.dtype.itemsize == 8 else jnp.int32
    if jnp.issubdtype(x.dtype, jnp.floating):
        bits = lax.bitcast_convert_type(x, f"int{8 * x.dtype.itemsize}").astype(wide)
        size = bits & (2 ** (8 * x.dtype.itemsize - 1) - 1)
        return jnp.where(size > highest, lowest, jnp.where(bits < 0, -size, size))
    if jnp.issubdtype(x.dtype, jnp.unsignedinteger) and x.dtype.itemsize >= 4:
        return lax.bitcast_convert_type(x, wide) ^ lowest
    return x.astype(wide)


def _number(key: Array, dtype: np.dtype) -> Array:
    """The number that has this key."""
    if jnp.issubdtype(dtype, jnp.floating):
        bits = jnp.where(key < 0, -(2 ** (8 * dtype.itemsize - 1)) - key, key)
        return lax.bitcast_convert_type(bits.astype(f"int{8 * dtype.itemsize}"), dtype)
    if jnp.issubdtype(dtype, jnp.unsignedinteger) and dtype.itemsize >= 4:
        return lax.bitcast_convert_type(key ^ _key_range(dtype)[0], dtype)
    return key.astype(dtype)


def _position(shape: tuple[int, ...], axes: Sequence[int]) -> Array:
    """The row-major index along `axes`."""
    dtype = _count_dtype(math.prod(shape[a] for a in axes))
    position, stride = jnp.zeros(shape, dtype), 1
    for a in reversed(axes):
        position += stride * lax.broadcasted_iota(dtype, shape, a)
        stride *= shape[a]
    return position


@functools.partial(jax.jit, static_argnames="axes")
def _above(worth: Array, cut: Cut, axes: tuple[int, ...]) -> Array:
    key, value = _key(worth), _key(cut.value)
    return (key > value) | ((key == value) & (_position(worth.shape, axes) <= cut.last))


# Short groups.


def _is_short(x: Array, axes: tuple[int, ...]) -> bool:
    return len(axes) == 1 and x.shape[axes[0]] <= _SHORT and _shards(x, axes[0]) == 1


def _compare_pairs(worth: Array, k: Array, axis: int) -> Cut:
    """The last unit kept is the one that k - 1 others precede, counted over all pairs."""
    units = [lax.slice_in_dim(worth, i, i + 1, axis=axis) for i in range(worth.shape[axis])]
    keys = [_key(unit) for unit in units]
    last = jnp.full_like(keys[0], -1, dtype=k.dtype)
    for i, key in enumerate(keys):
        before = [(other >= key) if j < i else (other > key) for j, other in enumerate(keys) if j != i]
        last = jnp.where(sum(b.astype(k.dtype) for b in before) == k - 1, i, last)
    last = lax.optimization_barrier(last)
    value = _number(jnp.full_like(keys[0], _key_range(worth.dtype)[1]), worth.dtype)
    for i, unit in enumerate(units):
        value = jnp.where(last == i, unit, value)
    return Cut(value, last)


# Counting.


class _View(NamedTuple):
    """An array with every competing axis cut into four, [outer, inner, pack, lanes], and its groups' shape.

    Counts are added first over the pack, as fields of one integer, on all cores; then over inner and lanes, which lie
    together on one device; then over outer, which may be spread over the mesh.
    """

    array: Array
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    pack: int
    groups: tuple[int, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        return tuple(sorted({*self.outer, *self.inner, *((self.pack,) if self.pack >= 0 else ())}))

    def spread(self, x: Array) -> Array:
        """One value per group, of a rank that broadcasts to the array."""
        if not self.groups:
            return x
        return x.reshape([1 if a in self.axes else n for a, n in enumerate(self.array.shape)])


def _view(x: Array, axes: tuple[int, ...]) -> _View:
    sizes, spec, roles, packs = [], [], [], True
    for a, length in enumerate(x.shape):
        parts = {"group": length}
        if a in axes:
            parts = _split(length, _shards(x, a), minor=a == x.ndim - 1, packs=packs)
            packs = packs and "pack" not in parts
        spec += [_partition(x, a)] + [None] * (len(parts) - 1)
        sizes += parts.values()
        roles += parts.keys()
    sharding = jax.typeof(x).sharding.update(spec=PartitionSpec(*spec)) if any(spec) else None
    outer, inner, pack = ([i for i, r in enumerate(roles) if r in rs] for rs in (("outer",),("inner","lanes"),("pack",)))
    groups = tuple(1 if a in axes else n for a, n in enumerate(x.shape)) if len(axes) < x.ndim else ()
    return _View(lax.reshape(x, sizes, out_sharding=sharding), tuple(outer), tuple(inner), pack[0] if pack else -1, groups)


def _split(length: int, shards: int, minor: bool, packs: bool) -> dict[str, int]:
    """The parts of an axis, so that what is cut out of it stays on its device.

    Shards are known on an explicit mesh only; elsewhere any power of two up to 16 is provided for.
    """
    lanes = 32 if minor else 1
    if not packs or length % (128 * lanes if minor else 1):
        outer = shards if shards > 1 else math.gcd(length, 16)
        return _longer_than_one(outer=outer, inner=length // outer)
    rests = {p: length // lanes // p for p in (8, 7, 6, 5, 4) if length % (p * lanes * shards) == 0}
    pack = max(rests, key=lambda p: math.gcd(rests[p], 16), default=1)
    rest = rests.get(pack, length // lanes)
    outer = rest if rest <= 32 else shards if shards > 1 else math.gcd(rest, 16)
    return _longer_than_one(outer=outer, inner=rest // outer, pack=pack, lanes=lanes)


def _longer_than_one(**parts: int) -> dict[str, int]:
    return {part: n for part, n in parts.items() if n != 1} or {"outer": 1}


def _partition(x: Array, axis: int) -> str | tuple[str, ...] | None:
    """The mesh axes along which an axis is known to be sharded (those of an explicit mesh)."""
    spec = jax.typeof(x).sharding.spec
    return spec[axis] if axis < len(spec) else None


def _shards(x: Array, axis: int) -> int:
    names = _partition(x, axis)
    names = (names,) if isinstance(names, str) else names or ()
    return math.prod(jax.typeof(x).sharding.mesh.shape[name] for name in names)


def _counter(views: Sequence[_View], read: Callable[..., Array], *context: Array, weights: Sequence[float] = ()) -> Counter:
    """count(start, shift): how many of the keys read(x, at, *context) reach start + j 2^shift, for j = 0 to 6.

    `at` is the position of the entry x in its group, counted through all views.
    """

    def count(start: Array, shift: Array) -> list[Array]:
        totals, first = [], 0
        for view in views:
            totals.append(_histogram(view, read, first, start, shift, *context))
            first += _size(view.array, view.axes)
        if weights:
            totals = [w * total for w, total in zip(weights, totals, strict=True)]
        return [sum(total[i] for total in totals for i in range(j, _PLACES)) for j in range(_PLACES)]

    return count


def _histogram(view: _View, read: Callable[..., Array], first: int, *values: Array) -> Array:
    """[7, *groups]: how many units of a group are in each place but place 0."""
    dtype = _count_dtype(first + _size(view.array, view.axes))

    def local(array: Array, start: Array, shift: Array, *context: Array) -> list[Array]:
        place = _place(read(array, first + _position(array.shape, view.axes), *context), start, shift)
        if view.pack >= 0:
            return [jnp.sum(1 << (4 * place), view.pack, keepdims=True)]
        return _reduce([(place == j + 1).astype(dtype) for j in range(_PLACES)], view.inner or view.outer)

    parts = _fenced(local, view.array, *(view.spread(value) for value in values))
    if view.pack >= 0:
        parts = _reduce([((parts[0] >> (4 * j + 4)) & 15).astype(dtype) for j in range(_PLACES)], view.inner)
    return jnp.sum(jnp.stack(parts), [a + 1 for a in view.axes]).reshape((_PLACES, *view.groups))


def _place(key: Array, start: Array, shift: Array) -> Array:
    """0 below start, then 1 and one more at every multiple of 2^shift, up to 7."""
    steps = jnp.minimum((key - start).astype(shift.dtype) >> shift, _PLACES - 1).astype(jnp.int32)
    return jnp.where(key >= start, steps + 1, 0)


def _reduce(parts: list[Array], axes: Sequence[int]) -> list[Array]:
    """The sum of every part along the axes, all in one pass."""
    if not axes:
        return parts
    zeros = [jnp.zeros((), part.dtype) for part in parts]
    sums = lax.reduce(parts, zeros, lambda x, y: [a + b for a, b in zip(x, y, strict=True)], axes)
    return [lax.expand_dims(part, axes) for part in sums]


def _fenced(f: Callable[..., list[Array]], *args: Array) -> list[Array]:
    """f(*args) as a unit of its own: XLA neither fuses across a branch nor moves a loop's constants out of one."""
    always = lax.optimization_barrier(jnp.array(True))
    return lax.cond(always, f, lambda *args: [jnp.zeros_like(x) for x in jax.eval_shape(f, *args)], *args)


# Searching.


class _Bracket(NamedTuple):
    """The greatest key that k units reach lies in [low, low + span]; the next pass counts at low + offset + j 2^shift.

    `reached` units have keys of at least low, `beyond` units have keys above low + span.
    """

    low: Array
    span: Array
    reached: Array
    beyond: Array
    offset: Array
    shift: Array


def _bracket(zeros: Array, low: int, high: int, reached: ArrayLike) -> _Bracket:
    """The bracket [low, high] of every group, to be cut in eight; `zeros` has the dtype of the keys."""
    span = jnp.full_like(zeros, high - low, dtype=f"uint{8 * zeros.dtype.itemsize}")
    shift = jnp.full_like(span, max((high - low).bit_length() - 3, 0))
    reached = jnp.full_like(zeros, 0, dtype=jnp.asarray(reached).dtype) + reached
    return _Bracket(zeros + low, span, reached, jnp.zeros_like(reached), jnp.ones_like(shift) << shift, shift)


def _search(count: Counter, bracket: _Bracket, k: Array, tolerance: ArrayLike) -> _Bracket:
    """Narrows the bracket to one key, or until no more than k + tolerance units reach its low end."""

    def is_open(b: _Bracket) -> Array:
        return jnp.any((b.span > 0) & (b.reached > k + tolerance))

    def narrow(b: _Bracket) -> _Bracket:
        closer = _shrink(b, count(b.low + b.offset.astype(b.low.dtype), b.shift), k)
        return _aim(closer, k, before=b.reached - b.beyond)

    return lax.while_loop(is_open, narrow, bracket)


def _shrink(b: _Bracket, counts: list[Array], k: Array) -> _Bracket:
    offsets = [b.offset + (jnp.full_like(b.shift, j) << b.shift) for j in range(_PLACES)]
    low, top, reached, beyond = jnp.zeros_like(b.span), b.span, b.reached, b.beyond
    for offset, n in zip(offsets, counts, strict=True):
        up = (n >= k) & (offset >= b.offset) & (offset <= b.span)
        low, reached = jnp.where(up, offset, low), jnp.where(up, n, reached)
    for offset, n in zip(reversed(offsets), reversed(counts), strict=True):
        down = (n < k) & (offset >= b.offset) & (offset <= b.span)
        top, beyond = jnp.where(down, offset - 1, top), jnp.where(down, n, beyond)
    return b._replace(low=b.low + low.astype(b.low.dtype), span=top - low, reached=reached, beyond=beyond)


def _aim(b: _Bracket, k: Array, before: Array) -> _Bracket:
    """Aims where the counts point to while that pays, eight times fewer units a pass; otherwise cuts in eight."""
    even = jnp.maximum(_bits(b.span), 3) - 3
    inside = jnp.maximum(b.reached - b.beyond, 1).astype(jnp.float32)
    span = b.span.astype(jnp.float32)
    shift = jnp.minimum(even, _bits((0.25 * span / jnp.sqrt(inside)).astype(b.span.dtype)))
    shift = jnp.where(8 * inside <= before.astype(jnp.float32), shift, even)
    aim = span * ((b.reached - k).astype(jnp.float32) / inside) - 3 * jnp.exp2(shift.astype(jnp.float32))
    aim = jnp.clip(aim, 1, jnp.maximum(0.999 * span, 1)).astype(b.span.dtype)
    return b._replace(offset=jnp.where(shift < even, aim, jnp.ones_like(even) << even), shift=shift)


def _bits(x: Array) -> Array:
    """The length of x in binary."""
    return 8 * x.dtype.itemsize - lax.clz(x)


def _find(views: Sequence[_View], zeros: Array, k: Array, tolerance: int) -> _Bracket:
    """The key that k units reach, in a bracket of span 0; or, within the tolerance, any key that as few reach."""
    dtype, size = views[0].array.dtype, _total(views)
    whole = _bracket(zeros, *_key_range(dtype), jnp.asarray(size, k.dtype))
    if jnp.issubdtype(dtype, jnp.floating):
        whole = _aim_at_one(whole, dtype)
    return _search(_counter(views, _read_key), _guess(views, whole, k), k, tolerance)


def _aim_at_one(b: _Bracket, dtype: np.dtype) -> _Bracket:
    """Most numbers are not far from 1: in float32, between 2^-24 and 2^24."""
    shift = b.shift - 3
    one = jnp.asarray(1, dtype)
    offset = (_key(one) - _key_range(dtype)[0]).astype(b.span.dtype)
    return b._replace(offset=offset - (3 << shift), shift=shift)


def _find_cut(views: Sequence[_View], zeros: Array, k: Array) -> tuple[Array, Array]:
    """The key of the threshold and the position of the last tie, counted through all views."""
    target, size = jnp.maximum(k, 1), _total(views)
    found = _find(views, zeros, target, 0)

    def read_tie(x: Array, at: Array, key: Array) -> Array:
        return jnp.where(_key(x) == key, -at, -size)

    ties = _bracket(zeros.astype(k.dtype), 1 - size, 0, found.reached - found.beyond)
    ties = ties._replace(span=jnp.where(found.reached == target, 0, ties.span))
    ties = _search(_counter(views, read_tie, found.low), ties, target - found.beyond, 0)
    key = jnp.where(k == 0, _key_range(views[0].array.dtype)[1], found.low)
    return key, jnp.where(k == 0, -1, -ties.low)


def _read_key(x: Array, at: Array) -> Array:
    return _key(x)


def _total(views: Sequence[_View]) -> int:
    return sum(_size(view.array, view.axes) for view in views)


def _guess(views: Sequence[_View], whole: _Bracket, k: Array) -> _Bracket:
    """Aims the first pass at where a sample has the ranks k -+ two standard deviations."""
    samples, size = [_sample(view) for view in views], _total(views)
    if views[0].groups or 8 * _total(samples) > size:
        return whole
    weights = [view.array.size / max(sample.array.size, 1) for view, sample in zip(views, samples, strict=True)]
    count = _counter(samples, _read_key, weights=weights)
    rank = k.astype(jnp.float32)
    margin = 2 * jnp.sqrt(max(weights) * jnp.minimum(rank, size - rank) + max(weights) ** 2)
    rough = whole._replace(reached=jnp.full_like(rank, size), beyond=jnp.zeros_like(rank))
    first, last = (
        _search(count, rough, jnp.clip(end, 1, size), margin / 2).low for end in (rank + margin, rank - margin)
    )
    offset, width = (x.astype(whole.span.dtype) for x in (first - whole.low, jnp.maximum(last - first, 0)))
    shift = jnp.minimum(_bits(width // (_PLACES - 1)), whole.shift)
    return whole._replace(offset=jnp.maximum(offset, 1), shift=shift)


def _sample(view: _View) -> _View:
    """About 2^16 entries, taken at regular distances and from no part of an axis that may be sharded."""
    inner = view.inner if view.pack < 0 else (*view.inner, view.pack)
    shape, strides = view.array.shape, [1] * view.array.ndim
    length = {a: shape[a] for a in inner}
    if view.pack >= 0:
        strides[view.pack], length[view.pack] = shape[view.pack], 1
    while math.prod(-(-n // s) for n, s in zip(shape, strides, strict=True)) > 2 * _SAMPLE:
        longest = max(inner, key=lambda a: shape[a] / strides[a])
        if shape[longest] <= strides[longest]:
            break
        strides[longest] *= 2
    array = lax.optimization_barrier(lax.slice(view.array, [0] * len(shape), shape, strides))
    return view._replace(array=array, inner=inner, pack=-1)


@functools.partial(jax.jit, static_argnames="axes")
def _cut(worth: Array, k: Array, axes: tuple[int, ...]) -> Cut:
    shape = tuple(1 if a in axes else n for a, n in enumerate(worth.shape))
    k = jnp.broadcast_to(k, shape)
    if _size(worth, axes) == 0:
        return _constant_cut(worth, axes, 0, -1)
    if _is_short(worth, axes):
        return _compare_pairs(worth, k, axes[0])
    view = _view(worth, axes)
    zeros = _fill(worth, axes, 0, _key(worth).dtype).reshape(view.groups)
    key, last = _find_cut([view], zeros, k.reshape(view.groups))
    return Cut(_number(key, worth.dtype).reshape(shape), last.reshape(shape))


@jax.jit
def _cut_jointly(worths: tuple[Array, ...], k: Array) -> list[Cut]:
    views = [_view(worth, _axes(worth, None)) for worth in worths]
    if _total(views) == 0:
        return [_constant_cut(worth, _axes(worth, None), 0, -1) for worth in worths]
    key, last = _find_cut(views, jnp.zeros((), _key(worths[0]).dtype), k)
    cuts, first = [], 0
    for worth in worths:
        shape = (1,) * worth.ndim
        value = _number(key, worth.dtype).reshape(shape)
        cuts.append(Cut(value, jnp.clip(last - first, -1, worth.size - 1).reshape(shape)))
        first += worth.size
    return cuts


@functools.partial(jax.jit, static_argnames="axes")
def _kth_largest(x: Array, k: Array, axes: tuple[int, ...]) -> Array:
    k = jnp.maximum(jnp.broadcast_to(k, tuple(1 if a in axes else n for a, n in enumerate(x.shape))), 1)
    if _is_short(x, axes):
        return jnp.squeeze(_compare_pairs(x, k, axes[0]).value, axes)
    view = _view(x, axes)
    zeros = _fill(x, axes, 0, _key(x).dtype).reshape(view.groups)
    key = _find([view], zeros, k.reshape(view.groups), -1).low
    return _number(key, x.dtype).reshape([n for a, n in enumerate(x.shape) if a not in axes])


@jax.jit
def _count_at_least(worth: Array, value: Array) -> Array:
    view = _view(worth, _axes(worth, None))
    return _counter([view], _read_key)(_key(value), jnp.zeros((), f"uint{8 * _key(value).dtype.itemsize}"))[0]
