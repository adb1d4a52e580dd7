"""Which k units are the largest? Exact order statistics without sorting, on one device or sharded."""

import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike


class Cut(NamedTuple):
    """Where a ranking is cut: a unit is kept if `worth > value`, or if `worth == value` and its position <= `last`.

    Attributes:
        value: threshold of every group, of the dtype of the worth, with length 1 along the axes that compete.
        last: position (row-major inside the group, from 0) of the last tie that is kept; -1 keeps none.
    """

    value: Array
    last: Array


def cut(worth: Array, k: ArrayLike, axes: int | Sequence[int] | None = None) -> Cut:
    """The cut after which exactly `k` units are kept in every group."""
    axes = _axes(worth, axes)
    return _cuts([worth], [axes], k)[0]


def cut_jointly(worths: Sequence[Array], k: ArrayLike) -> list[Cut]:
    """One budget of `k` units over several arrays, as if they were one."""
    worths = list(worths)
    if not worths:
        return []
    return _cuts(worths, [tuple(range(w.ndim)) for w in worths], k)


def above(worth: Array, cut: Cut, axes: int | Sequence[int] | None = None) -> Array:
    """What a cut keeps: exactly k True per group."""
    key, value = _key(lax.stop_gradient(worth)), _key(cut.value)
    return (key > value) | ((key == value) & (_position(worth, _axes(worth, axes)) <= cut.last))


def keep_all(worth: Array, axes: int | Sequence[int] | None = None) -> Cut:
    """The cut that keeps every finite unit, also the negative ones and zeros."""
    if jnp.issubdtype(worth.dtype, jnp.floating):
        return _constant(worth, axes, -jnp.inf, -1)
    return _constant(worth, axes, jnp.iinfo(worth.dtype).min, worth.size)


def keep_nonzero(worth: Array, axes: int | Sequence[int] | None = None) -> Cut:
    """The cut that keeps every unit of positive worth."""
    return _constant(worth, axes, 0, -1)


def kth_largest(x: Array, k: ArrayLike, axis: int | Sequence[int] | None = None) -> Array:
    """The exact k-th largest value (k = 1: the maximum)."""
    x = jnp.asarray(x)
    axes = _axes(x, axis)
    _check(k, _group_size(x, axes), least=1)
    kept = above(x, cut(x, k, axes), axes)
    key = _key(x)
    return jnp.squeeze(_value(jnp.min(jnp.where(kept, key, _range(x.dtype)[1]), axes, keepdims=True), x.dtype), axes)


def keep_largest(x: Array, k: ArrayLike, axis: int | Sequence[int] | None = None) -> Array:
    """Keep the k largest: exactly k True (in every group); of equal values the first are kept."""
    x = jnp.asarray(x)
    _check(k, _group_size(x, _axes(x, axis)), least=0)
    return above(x, cut(x, k, axis), axis)


def _check(k: ArrayLike, size: int, least: int) -> None:
    try:
        k = operator.index(k)
    except TypeError:
        return
    if not least <= k <= size:
        raise ValueError(f"k = {k} of {size} units: choose k between {least} and {size}")


def _axes(x: Array, axes: int | Sequence[int] | None) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(x.ndim))
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    return tuple(sorted(a % x.ndim for a in axes))


def _group_size(x: Array, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[a] for a in axes)


def _group_shape(x: Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if a in axes else n for a, n in enumerate(x.shape))


def _constant(worth: Array, axes: int | Sequence[int] | None, value: float, last: int) -> Cut:
    shape = _group_shape(worth, _axes(worth, axes))
    return Cut(jnp.full(shape, value, worth.dtype), jnp.full(shape, last, jnp.int32))


def _range(dtype: jnp.dtype) -> tuple[int, int]:
    """The least and the greatest key."""
    if jnp.issubdtype(dtype, jnp.floating):
        info = jnp.finfo(dtype)
        infinity = (2**info.nexp - 1) << info.nmant
        return -infinity - 1, infinity
    info = jnp.iinfo(dtype)
    return int(info.min), int(info.max)


def _key(x: Array) -> Array:
    """An integer that orders as x does: -0.0 and +0.0 are one, NaN is just below -inf."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    bits = lax.bitcast_convert_type(x, f"int{8 * x.dtype.itemsize}")
    lowest, highest = _range(x.dtype)
    size = bits & jnp.iinfo(bits.dtype).max
    return jnp.where(size > highest, jnp.array(lowest, bits.dtype), jnp.where(bits < 0, -size, size))


def _value(key: Array, dtype: jnp.dtype) -> Array:
    """The number whose key is `key`."""
    if not jnp.issubdtype(dtype, jnp.floating):
        return key
    bits = jnp.where(key < 0, jnp.iinfo(key.dtype).min - key, key)
    return lax.bitcast_convert_type(bits, dtype)


def _position(x: Array, axes: tuple[int, ...]) -> Array:
    position, stride = jnp.zeros(x.shape, jnp.int32), 1
    for a in reversed(axes):
        position += stride * lax.broadcasted_iota(jnp.int32, x.shape, a)
        stride *= x.shape[a]
    return position


def _cuts(worths: list[Array], axes: list[tuple[int, ...]], k: ArrayLike) -> list[Cut]:
    keys = [_key(lax.stop_gradient(w)) for w in worths]
    size = sum(_group_size(w, a) for w, a in zip(worths, axes, strict=True))
    shape = _group_shape(worths[0], axes[0]) if len(worths) == 1 else ()
    k = jnp.broadcast_to(jnp.clip(jnp.asarray(k, jnp.int32), 0, size), shape)

    def count(tests: list[Array]) -> list[Array]:
        return [_count_true(t, a, shape) for t, a in zip(tests, axes, strict=True)]

    lowest, highest = _range(worths[0].dtype)
    value = _search(lambda t: sum(count([q >= t for q in keys])), k, lowest, highest, keys[0].dtype)
    left = k - sum(count([q > value for q in keys]))
    ties = count([q == value for q in keys])
    cuts = []
    for i, (w, a) in enumerate(zip(worths, axes, strict=True)):
        need = jnp.clip(left, 0, ties[i])
        left -= need
        at = jnp.where(keys[i] == value, _position(w, a), size)
        last = -_search(lambda t, at=at, a=a: _count_true(at <= -t, a, shape), need, 1 - size, 1, jnp.int32)
        full = _group_shape(w, a)
        cuts.append(Cut(jnp.broadcast_to(_value(value, w.dtype), full), jnp.broadcast_to(last, full)))
    return cuts


def _count_true(test: Array, axes: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    return jnp.sum(test.astype(jnp.int32), axes, keepdims=True).reshape(shape)


def _search(count: Callable[[Array], Array], k: Array, low: int, high: int, dtype: jnp.dtype) -> Array:
    """The greatest t of low <= t <= high with count(t) >= k, where count never rises and count(low) >= k."""

    def halve(state: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = state
        middle = (low | high) - ((low ^ high) >> 1)
        enough = count(middle) >= k
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

    start = jnp.full(k.shape, low, dtype), jnp.full(k.shape, high, dtype)
    return lax.while_loop(lambda s: jnp.any(s[0] < s[1]), halve, start)[0]
