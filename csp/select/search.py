"""Where is the threshold that k units reach, in as few passes as can be?

A bracket of keys is narrowed by counting at seven places inside it. The first places come from a sample, the next ones
from the counts; when that does not pay, the bracket is cut in eight equal parts, three bits a pass.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from csp.select.counting import PLACES, Counter, View, counter
from csp.select.keys import key, key_range

Key = Callable[[Array], Array]

_SAMPLE = 2**16


class Bracket(NamedTuple):
    """The key sought, the greatest that k units reach, lies in [low, low + span].

    `reached` units have keys of at least low and `beyond` units have keys above low + span. The next pass counts at the
    places low + offset + j 2^shift.
    """

    low: Array
    span: Array
    reached: Array
    beyond: Array
    offset: Array
    shift: Array


def find_cut(views: Sequence[View], zeros: Array, k: Array, of: Key = key) -> tuple[Array, Array]:
    """The key of the threshold that keeps k units and the position of the last tie, counted through all views."""
    target, size = jnp.maximum(k, 1), _total(views)
    found = find(views, zeros, target, tolerance=0, of=of)

    def read_tie(x: Array, at: Array, threshold: Array) -> Array:
        return jnp.where(of(x) == threshold, -at, -size)

    ties = _bracket(zeros.astype(k.dtype), 1 - size, 0, found.reached - found.beyond)
    ties = ties._replace(span=jnp.where(found.reached == target, 0, ties.span))
    ties = _search(counter(views, read_tie, found.low), ties, target - found.beyond, tolerance=0)
    threshold = jnp.where(k == 0, key_range(views[0].array.dtype)[1], found.low)
    return threshold, jnp.where(k == 0, -1, -ties.low)


def find(views: Sequence[View], zeros: Array, k: Array, tolerance: int, of: Key = key) -> Bracket:
    """The bracket of the key that k units reach. Its span is 0, or no more than k + tolerance units reach its low end.

    `of` is the key of a unit, where the array does not hold what units are ranked by. `zeros` has the dtype of the keys
    and the shape of the groups, or () where there is one group.
    """
    dtype = views[0].array.dtype
    bracket = _bracket(zeros, *key_range(dtype), jnp.asarray(_total(views), k.dtype))
    if jnp.issubdtype(dtype, jnp.floating):
        bracket = _aim_at_one(bracket, dtype)
    return _search(counter(views, lambda x, at: of(x)), _aim_by_sample(bracket, views, k, of), k, tolerance)


def _total(views: Sequence[View]) -> int:
    return sum(view.size for view in views)


def _bracket(zeros: Array, low: int, high: int, reached: ArrayLike) -> Bracket:
    """[low, high] for every group, to be cut in eight."""
    span = jnp.full_like(zeros, high - low, dtype=f"uint{8 * zeros.dtype.itemsize}")
    shift = jnp.full_like(span, max((high - low).bit_length() - 3, 0))
    reached = jnp.zeros_like(zeros, dtype=jnp.asarray(reached).dtype) + reached
    return Bracket(zeros + low, span, reached, jnp.zeros_like(reached), jnp.ones_like(shift) << shift, shift)


def _search(count: Counter, bracket: Bracket, k: Array, tolerance: ArrayLike) -> Bracket:
    def is_open(b: Bracket) -> Array:
        return jnp.any((b.span > 0) & (b.reached > k + tolerance))

    def narrow(b: Bracket) -> Bracket:
        counts = count(b.low + b.offset.astype(b.low.dtype), b.shift)
        return _aim(_narrow(b, counts, k), k, before=b.reached - b.beyond)

    return lax.while_loop(is_open, narrow, bracket)


def _narrow(b: Bracket, counts: Array, k: Array) -> Bracket:
    """The part of the bracket between the last place that k units reach and the first that they do not."""
    steps = jnp.arange(PLACES, dtype=b.shift.dtype).reshape((PLACES,) + (1,) * b.shift.ndim)
    old, k = jax.tree.map(lambda x: x[None], (b, k))
    offsets = old.offset + (steps << old.shift)
    inside = (offsets >= old.offset) & (offsets <= old.span)
    below, above = inside & (counts >= k), inside & (counts < k)
    low = jnp.max(jnp.where(below, offsets, 0), 0)
    top = jnp.min(jnp.where(above, offsets - 1, old.span), 0)
    reached = jnp.min(jnp.where(below, counts, old.reached), 0)
    beyond = jnp.max(jnp.where(above, counts, old.beyond), 0)
    return b._replace(low=b.low + low.astype(b.low.dtype), span=top - low, reached=reached, beyond=beyond)


def _aim(b: Bracket, k: Array, before: Array) -> Bracket:
    """Aims where the counts point to, as long as each pass leaves an eighth of the units; else cuts in eight.

    Among m units spread evenly over the span, the one sought is within a few span / sqrt(m) of its expected place.
    """
    even = jnp.maximum(_bits(b.span), 3) - 3
    m, span = jnp.maximum(b.reached - b.beyond, 1).astype(jnp.float32), b.span.astype(jnp.float32)
    shift = jnp.minimum(even, _bits((0.25 * span / jnp.sqrt(m)).astype(b.span.dtype)))
    shift = jnp.where(8 * m <= before.astype(jnp.float32), shift, even)
    centre = span * ((b.reached - k).astype(jnp.float32) / m)
    offset = jnp.clip(centre - 3 * jnp.exp2(shift.astype(jnp.float32)), 1, jnp.maximum(0.999 * span, 1))
    offset = jnp.where(shift < even, offset.astype(b.span.dtype), jnp.ones_like(even) << even)
    return b._replace(offset=offset, shift=shift)


def _bits(x: Array) -> Array:
    """The length of x in binary."""
    return 8 * x.dtype.itemsize - lax.clz(x)


def _aim_at_one(b: Bracket, dtype: np.dtype) -> Bracket:
    """Aims at what most numbers are: in float32, between 2^-24 and 2^24 in magnitude."""
    shift = b.shift - 3
    one = (key(jnp.ones((), dtype)) - key_range(dtype)[0]).astype(b.span.dtype)
    return b._replace(offset=one - (3 << shift), shift=shift)


def _aim_by_sample(b: Bracket, views: Sequence[View], k: Array, of: Key) -> Bracket:
    """Aims at the keys that have the ranks k -+ two standard deviations in a sample, where the array is large."""
    samples, size = [_sample(view) for view in views], _total(views)
    if b.low.ndim or 8 * max(_SAMPLE, _total(samples)) > size:
        return b
    weights = [view.size / max(sample.size, 1) for view, sample in zip(views, samples, strict=True)]
    count = counter(samples, lambda x, at: of(x), weights=weights)
    rough = b._replace(reached=b.reached.astype(jnp.float32), beyond=b.beyond.astype(jnp.float32))
    rank = k.astype(jnp.float32)
    margin = 2 * jnp.sqrt(max(weights) * jnp.minimum(rank, size - rank) + max(weights) ** 2)
    ends = jnp.clip(jnp.stack([rank + margin, rank - margin]), 1, size)
    first, last = jax.vmap(lambda end: _search(count, rough, end, margin / 2).low)(ends)
    width = jnp.maximum(last - first, 0).astype(b.span.dtype)
    shift = jnp.minimum(_bits(width // (PLACES - 1)), _bits(b.span) - 3)
    return b._replace(offset=jnp.maximum((first - b.low).astype(b.span.dtype), 1), shift=shift)


def _sample(view: View) -> View:
    """About 2^16 units at regular distances, which stay on their device."""
    inner = view.inner + view.pack
    shape, strides = view.array.shape, [1] * view.array.ndim
    for a in view.pack:
        strides[a] = shape[a]
    while inner and math.prod(-(-n // s) for n, s in zip(shape, strides, strict=True)) > 2 * _SAMPLE:
        longest = max(inner, key=lambda a: shape[a] / strides[a])
        if strides[longest] >= shape[longest]:
            break
        strides[longest] *= 2
    array = lax.optimization_barrier(lax.slice(view.array, [0] * len(shape), shape, strides))
    return view._replace(array=array, inner=inner, pack=())
