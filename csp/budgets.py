"""Which tensor gives how much?

A budget shares one sparsity out over the parameters of a rule. Static budgets (uniform, erk, given) are settled before
training, in exact integers. Data-driven ones (global_, lamp) keep the *total* exact and let the weights decide, again
at every refresh, how much of it each tensor keeps.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csp import select
from csp.select import keys
from csp.structures import Structure, keep_count

_GRID = np.exp2(-np.arange(0, 20, 0.125)).astype(
    np.float32
)  # a fraction of the largest worth: 20 octaves, 8 steps in each

_FLOAT = np.dtype(np.float32)
Shares = dict[str, tuple[float, Any]]  # path -> (sparsity, kept units)


class Budget:
    """The common part. `joint` budgets are shared out anew on every refresh by `allocate`."""

    joint = False
    signed = True  # does it know what to do with worths below zero?

    def share(self, structure: Structure, shapes: Mapping[str, tuple[int, ...]], sparsity: float) -> Shares:
        """The final budget of each parameter; for a joint budget, where it starts from."""
        return {path: (sparsity, structure.kept(shape, sparsity)) for path, shape in shapes.items()}

    def allocate(self, worths: Sequence[jax.Array], total: jax.typing.ArrayLike) -> list[jax.Array]:
        """How many units each tensor keeps, from the worths of their units; of joint budgets only."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Uniform(Budget):
    pass


@dataclasses.dataclass(frozen=True)
class Given(Budget):
    sparsities: tuple[tuple[str, float], ...]

    def share(self, structure, shapes, sparsity):
        for pattern, _ in self.sparsities:
            if not any(re.fullmatch(pattern, path) for path in shapes):
                nearest = ", ".join(map(repr, difflib.get_close_matches(pattern, shapes, cutoff=0.0)))
                raise ValueError(
                    f"budgets.given: {pattern!r} matches no parameter of its rule, but there are {nearest}"
                )
        shares = {}
        for path, shape in shapes.items():
            own = next((s for pattern, s in self.sparsities if re.fullmatch(pattern, path)), sparsity)
            shares[path] = (own, structure.kept(shape, own))
        return shares


@dataclasses.dataclass(frozen=True)
class ERK(Budget):
    def share(self, structure, shapes, sparsity):
        sizes = {path: int(structure.sizes(shape)) for path, shape in shapes.items()}
        total = keep_count(sum(sizes.values()), sparsity)
        weights = {path: sum(shape) / math.prod(shape) for path, shape in shapes.items()}
        kept = _proportional(sizes, weights, total)
        return {path: (1 - kept[path] / max(sizes[path], 1), kept[path]) for path in shapes}


@dataclasses.dataclass(frozen=True)
class Joint(Budget):
    """`count` makes of the worths of a tensor's units a function of s: how many of them have at least that score."""

    count: Callable[[jax.Array], Callable[[jax.Array], jax.Array]]
    floor: float
    joint = True

    def total(self, sizes: Sequence[int], sparsity: float) -> int:
        return keep_count(sum(sizes), sparsity)

    def allocate(self, worths, total):
        """How many units each tensor keeps: sums to `total` exactly.

        Bisection on the score s: kept_l(s) = max(floor_l, count_l(s)) falls as s rises; what is missing at the last s
        that keeps at most `total` goes to the tensors whose units tie there, in order.
        """
        total = jnp.asarray(total, jnp.int32)
        sizes = jnp.asarray([worth.size for worth in worths], jnp.int32)
        fair = jnp.floor(sizes * (total / jnp.maximum(jnp.sum(sizes), 1)) * self.floor).astype(jnp.int32)
        fair = jnp.maximum(
            fair - jnp.maximum(jnp.sum(fair, dtype=fair.dtype) - total, 0), 0
        )  # float32 rounds large sizes
        counts = [self.count(worth) for worth in worths]

        def kept(key):
            score = keys.number(key, _FLOAT)
            return jnp.maximum(jnp.stack([count(score) for count in counts]), fair)

        def halve(bracket):
            low, high, many, few = bracket
            middle = (low >> 1) + (high >> 1) + (low & high & 1)
            now = kept(middle)
            fits = jnp.sum(now) <= total
            low, high = jnp.where(fits, low, middle), jnp.where(fits, middle, high)
            return low, high, jnp.where(fits, many, now), jnp.where(fits, now, few)

        start = *map(jnp.int32, keys.key_range(_FLOAT)), sizes, fair
        *_, many, few = jax.lax.while_loop(lambda b: b[0] < b[1] - 1, halve, start)
        ties = jnp.maximum(many - few, 0)
        missing, before = total - jnp.sum(few, dtype=few.dtype), jnp.cumsum(ties, dtype=ties.dtype) - ties
        return list(few + jnp.clip(missing - before, 0, ties))


class LAMP(Joint):
    signed = False  # worths are squared


def uniform() -> Budget:
    """The same sparsity everywhere."""
    return Uniform()


def erk() -> Budget:
    """Erdos-Renyi-kernel: density proportional to sum(shape) / prod(shape), capped at dense; the total is exact."""
    return ERK()


def given(sparsities: Mapping[str, float]) -> Budget:
    """Path pattern -> sparsity; what matches none of them gets the rule's."""
    for pattern, sparsity in sparsities.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"budgets.given: {pattern!r} is not a regular expression: {error}") from None
        if not 0 <= sparsity <= 1:
            raise ValueError(f"budgets.given: {pattern!r} asks for sparsity {sparsity}, not between 0 and 1")
    return Given(tuple(sparsities.items()))


def global_(floor: float = 0.1) -> Budget:
    """One competition over all tensors of the rule, each tensor's worths divided by their root mean square.

    No tensor keeps less than `floor` of its uniform share.
    """
    return Joint(_normalised, _checked_floor(floor))


def lamp(floor: float = 0.0) -> Budget:
    """Layer-adaptive magnitude: worth^2 over the sum of worth^2 of the tensor's units that are worth as much or more.

    How much each tensor gives is read off its worths on a grid (within a few per cent of what sorting them all would
    give); the total is exact.
    """
    return LAMP(_layer_adaptive, _checked_floor(floor))


def _checked_floor(floor: float) -> float:
    if not 0 <= floor <= 1:
        raise ValueError(f"the floor is the fraction of its uniform share that every tensor keeps, got {floor}")
    return float(floor)


def _normalised(worth: jax.Array):
    scale = root_mean_square(jnp.abs(worth))
    return lambda score: select.count_at_least(worth, score * scale)


def _layer_adaptive(worth: jax.Array):
    """Of the worths t on the grid: the score t^2 / sum of the squares >= t^2; counts are interpolated between."""
    top, counts = _profile(worth)
    squares = jnp.square(jnp.where(top > 0, _GRID, 0))  # of the largest worth: no score depends on the unit
    new = jnp.diff(counts, prepend=0)
    above = jnp.cumsum(new * jnp.sqrt(squares * jnp.concatenate([squares[:1], squares[:-1]])))
    scores = jnp.minimum.accumulate(squares / jnp.maximum(above, jnp.finfo(jnp.float32).tiny))

    def count(score):
        return jnp.floor(jnp.interp(-score, -scores, counts, left=0)).astype(jnp.int32)

    return count


def root_mean_square(worth: jax.Array) -> jax.Array:
    """The root mean square of the positive worths, within a few per cent, from counts on the grid.

    Counts are integers, so the answer does not depend on how the array is sharded, as a float sum's does.
    """
    top, counts = _profile(worth)
    steps = -jnp.diff(jnp.square(_GRID), append=0)
    mean = jnp.sum(counts * steps) / jnp.maximum(counts[-1], 1)
    return jnp.maximum(top * jnp.sqrt(mean), jnp.finfo(jnp.float32).tiny)


def _profile(worth: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest worth, and how many units are worth at least each fraction of it on the grid."""
    top = jnp.max(worth, initial=0)
    _, counts = jax.lax.scan(lambda _, g: (None, select.count_at_least(worth, top * g)), None, jnp.asarray(_GRID))
    return top, counts.astype(jnp.float32)


def _proportional(sizes: dict[str, int], weights: dict[str, float], total: int) -> dict[str, int]:
    """Integers kept_p <= sizes_p in proportion to weights_p * sizes_p that sum to `total`: largest remainders."""
    exact, open_paths, left = {}, set(sizes), float(total)
    while open_paths:
        scale = left / max(sum(weights[p] * sizes[p] for p in open_paths), 1e-300)
        full = {p for p in open_paths if scale * weights[p] >= 1}
        if not full:
            exact |= {p: scale * weights[p] * sizes[p] for p in open_paths}
            break
        exact |= {p: float(sizes[p]) for p in full}
        left, open_paths = left - sum(sizes[p] for p in full), open_paths - full
    kept = {p: min(math.floor(x + 1e-9), sizes[p]) for p, x in exact.items()}
    by_remainder = sorted((p for p in kept if kept[p] < sizes[p]), key=lambda p: kept[p] - exact[p])
    for p in by_remainder[: total - sum(kept.values())]:
        kept[p] += 1
    return kept
