"""Where is a ranking cut, and what does the cut keep?"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

from csp.select.counting import count_dtype, counter, fenced, group_size, position, shards, view
from csp.select.keys import key, key_range, number, size_key
from csp.select.search import find, find_cut

Axes = int | Sequence[int] | None

_SHORT = 32
_TINY = 4


class Cut(NamedTuple):
    """Where a ranking is cut: every unit with `worth > value` is kept, and of those with `worth == value` the first.

    Attributes:
        value: the threshold of every group, of the dtype of the worth, with length 1 along the axes that compete.
        last: the position of the last tie that is kept, an integer of the same shape. Positions count row-major
            inside the group from 0; -1 keeps no tie.
    """

    value: Array
    last: Array


def cut(worth: Array, k: ArrayLike, axes: Axes = None, of_size: bool = False) -> Cut:
    """Finds the cut that keeps exactly the `k` units of greatest worth in every group.

    Equal units are kept in the order of their index. NaN is worth less than -inf, and -inf less than any number.

    Args:
        worth: floating or integer array.
        k: how many units to keep, clipped to [0, group size]; an integer, or an array of integers that broadcasts
            to the shape of `worth` with length 1 along `axes`.
        axes: the axes along which units compete, None for all. A single axis of up to 32 units is compared pair by
            pair where it lies: leave it whole and shard another one.
        of_size: rank `abs(worth)`, of which no array is made.

    Returns:
        The cut, to be given to `above`. Its value lies between the last unit kept and the first one dropped.
    """
    axes = _axes(worth, axes)
    return _cut(worth, _whole(k, group_size(worth, axes)), axes, of_size)


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
        raise ValueError(f"worths of dtypes {dtypes} cannot be ranked together: cast them to one dtype")
    if not worths:
        return []
    return _cut_jointly(tuple(worths), _whole(k, sum(worth.size for worth in worths)))


def above(worth: Array, cut: Cut, axes: Axes = None) -> Array:
    """What a cut keeps: exactly k True in every group, for the `worth` and the `axes` that `cut` was given."""
    return _above(worth, cut, _axes(worth, axes))


def larger(x: Array, cut: Cut, axes: Axes = None) -> Array:
    """`above(abs(x), cut, axes)` of floats in half as many instructions; NaN is kept."""
    axes = _axes(x, axes)
    bits = lax.bitcast_convert_type(jnp.abs(x), f"int{8 * x.dtype.itemsize}")
    return bits > key(cut.value) - (position(x, axes) <= cut.last)


def kth_largest(x: ArrayLike, k: ArrayLike, axis: Axes = None) -> Array:
    """The exact k-th largest value, without sorting.

    Args:
        x: floating or integer array. Signed values compare as numbers; NaN ranks below -inf.
        k: 1 for the maximum, the group size for the minimum; an integer, or an array of them as in `cut`.
        axis: the axes to reduce, None for all.

    Returns:
        Array of the dtype of x without the reduced axes. It is a constant to `jax.grad`, as thresholds are.

    >>> float(kth_largest(jnp.array([3.0, -5.0, 1.0, 4.0]), 2))
    3.0
    """
    x = lax.stop_gradient(jnp.asarray(x))
    axes = _axes(x, axis)
    _check(k, group_size(x, axes), least=1)
    return _kth_largest(x, _whole(k, group_size(x, axes)), axes)


def keep_largest(x: ArrayLike, k: ArrayLike, axis: Axes = None) -> Array:
    """Keeps the k largest: exactly k True in every group, and of equal values those of lower index.

    >>> keep_largest(jnp.array([3.0, -5.0, 3.0, 4.0]), 2).tolist()
    [True, False, False, True]
    """
    x = jnp.asarray(x)
    _check(k, group_size(x, _axes(x, axis)), least=0)
    return above(x, cut(x, k, axis), axis)


def count_at_least(worth: Array, value: ArrayLike) -> Array:
    """How many units are worth `value` or more: an exact integer. NaN is worth less than any value."""
    return _count_at_least(worth, jnp.asarray(value, worth.dtype))


def _check(k: ArrayLike, size: int, least: int) -> None:
    if isinstance(k, (int, np.integer)) and not least <= k <= size:
        raise ValueError(f"k = {k}, but {size} units compete: choose k from {least} to {size}")


def _whole(k: ArrayLike, size: int) -> Array:
    """k clipped to [0, size], in an integer that holds the size."""
    if isinstance(k, (int, np.integer, np.ndarray)):
        k = np.clip(k, 0, size)
    k = jnp.asarray(k)
    if not jnp.issubdtype(k.dtype, jnp.integer):
        raise ValueError(f"k has dtype {k.dtype}, but units are counted in integers: round it and cast it to int32")
    return jnp.clip(k.astype(count_dtype(size)), 0, size)


def _axes(x: Array, axes: Axes) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(x.ndim))
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    for axis in axes:
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(f"axis {axis} of an array of shape {x.shape}: choose from {-x.ndim} to {x.ndim - 1}")
    return tuple(sorted({axis % x.ndim for axis in axes}))


def _fill(x: Array, axes: tuple[int, ...], value: ArrayLike, dtype: DTypeLike) -> Array:
    """`value` for every group, sharded as the groups are."""
    return jnp.full_like(jnp.sum(x, axes, keepdims=True), value, dtype=dtype)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _constant_cut(worth: Array, axes: tuple[int, ...], value: float, last: int) -> Cut:
    dtype = count_dtype(group_size(worth, axes))
    return Cut(_fill(worth, axes, value, worth.dtype), _fill(worth, axes, last, dtype))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _cut(worth: Array, k: Array, axes: tuple[int, ...], of_size: bool) -> Cut:
    k = _fill(worth, axes, 0, k.dtype) + k
    if group_size(worth, axes) == 0:
        return _constant_cut(worth, axes, 0, -1)
    if _is_short(worth, axes):
        return _compare_short(jnp.abs(worth) if of_size else worth, k, axes[0])
    cutting = view(worth, axes)
    zeros = jnp.zeros_like(k, dtype=key(worth).dtype).reshape(cutting.groups)
    threshold, last = find_cut([cutting], zeros, k.reshape(cutting.groups), size_key if of_size else key)
    return Cut(number(threshold, worth.dtype).reshape(k.shape), last.reshape(k.shape))


@jax.jit
def _cut_jointly(worths: tuple[Array, ...], k: Array) -> list[Cut]:
    if not sum(worth.size for worth in worths):
        return [_constant_cut(worth, _axes(worth, None), 0, -1) for worth in worths]
    views = [view(worth, _axes(worth, None)) for worth in worths]
    threshold, last = find_cut(views, jnp.zeros((), key(worths[0]).dtype), k)
    cuts, first = [], 0
    for worth in worths:
        value, own_last = number(threshold, worth.dtype), jnp.clip(last - first, -1, worth.size - 1)
        cuts.append(Cut(*(x.reshape((1,) * worth.ndim) for x in (value, own_last))))
        first += worth.size
    return cuts


@functools.partial(jax.jit, static_argnums=2)
def _above(worth: Array, cut: Cut, axes: tuple[int, ...]) -> Array:
    unit, threshold = key(worth), key(cut.value)
    return (unit > threshold) | ((unit == threshold) & (position(worth, axes) <= cut.last))


@functools.partial(jax.jit, static_argnums=2)
def _kth_largest(x: Array, k: Array, axes: tuple[int, ...]) -> Array:
    k = jnp.maximum(_fill(x, axes, 0, k.dtype) + k, 1)
    if _is_short(x, axes):
        return jnp.squeeze(_compare_short(x, k, axes[0]).value, axes)
    cutting = view(x, axes)
    zeros = jnp.zeros_like(k, dtype=key(x).dtype).reshape(cutting.groups)
    threshold = find([cutting], zeros, k.reshape(cutting.groups), tolerance=-1).low
    return jnp.squeeze(number(threshold, x.dtype).reshape(k.shape), axes)


@jax.jit
def _count_at_least(worth: Array, value: Array) -> Array:
    threshold = key(value)
    count = counter([view(worth, _axes(worth, None))], lambda x, at: key(x))
    return count(threshold, jnp.zeros((), f"uint{8 * threshold.dtype.itemsize}"))[0]


def _is_short(x: Array, axes: tuple[int, ...]) -> bool:
    return len(axes) == 1 and x.shape[axes[0]] <= _SHORT and shards(x, axes[0]) == 1


def _compare_short(worth: Array, k: Array, axis: int) -> Cut:
    """Comparing up to six pairs is faster than reading the result of it, so XLA may repeat it where it is used."""
    compare = functools.partial(_compare_pairs, axis=axis)
    return compare(worth, k) if worth.shape[axis] <= _TINY else fenced(compare, worth, k)


def _compare_pairs(worth: Array, k: Array, axis: int) -> Cut:
    """The last unit kept is the one before which k - 1 others come, counted over all pairs."""
    units = [lax.slice_in_dim(worth, i, i + 1, axis=axis) for i in range(worth.shape[axis])]
    keys = [key(unit) for unit in units]
    last = jnp.full_like(k, -1)
    for i, own in enumerate(keys):
        before = [(other >= own) if j < i else (other > own) for j, other in enumerate(keys) if j != i]
        last = jnp.where(sum(b.astype(k.dtype) for b in before) == k - 1, i, last)
    last = lax.optimization_barrier(last)
    value = number(jnp.full_like(keys[0], key_range(worth.dtype)[1]), worth.dtype)
    for i, unit in enumerate(units):
        value = jnp.where(last == i, unit, value)
    return Cut(value, last)
