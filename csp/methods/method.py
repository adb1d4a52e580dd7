"""What is a method? When it looks, what it decides then, and what it does on every step.

The optimizer wrapper (`csp.sparsify`) drives any method through the same few moves. On a *refresh* (`clock`) it hands
every parameter's `View` to `decide`, which names the units that may live until the next refresh. On every step it hands
the inner optimizer's update to `step`, which is elementwise and says where the weights go; the wrapper then sets what
may not live to exactly +0.0. Between refreshes the support is `params != 0` and nothing else: that is why a frozen
method needs no mask.

A method of your own is `Method(name, clock, ramp, ...)` with the functions that differ from the defaults below.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csp import metrics, select, shrinkage
from csp.schedules import Schedule
from csp.structures import Structure

FEW = 16  # units: two numbers for each competition of fewer are no less than a mask


class Clock(NamedTuple):
    """The steps of the refreshes, ascending; after the last one the support is frozen."""

    times: tuple[int, ...]

    @property
    def begin(self) -> int:
        return self.times[0]

    @property
    def end(self) -> int:
        return self.times[-1]

    def latest(self, count: jax.Array) -> jax.Array:
        """The last refresh at or before this step; -1 before the first."""
        times = jnp.asarray(self.times, jnp.int32)
        return jnp.max(jnp.where(times <= count, times, -1))


class Memory(NamedTuple):
    """What a method keeps of one parameter, in arrays: `fast` is renewed on every step, `slow` on refreshes."""

    fast: Any = ()
    slow: Any = ()


class View(NamedTuple):
    """One parameter as a method sees it; arrays are float32 whatever the parameter's dtype."""

    w: jax.Array  # the weights: the point where the gradient was taken
    gradient: jax.Array
    memory: Memory
    structure: Structure
    progress: jax.Array  # of the sparsity: 0 is dense, 1 the final budget
    budget: jax.Array  # how many units each competition keeps at this progress
    final: Callable[[], Any]  # how many it keeps in the end
    count: jax.Array
    last: jax.Array  # is this the last refresh, the freeze?
    number: int  # of the parameter, to tell random numbers apart
    sight: metrics.Sight
    metric: metrics.Metric

    @property
    def worth(self) -> jax.Array:
        """The worth of every unit, in the structure's layout."""
        return self.layout(self.metric.worth(self.sight), self.metric.pool)

    def layout(self, x: jax.Array, pool=None) -> jax.Array:
        return self.structure.layout(x, pool or self.metric.pool)

    def spread(self, units: jax.Array) -> jax.Array:
        return self.structure.spread(units, self.w.shape)

    @property
    def real(self) -> jax.Array:
        """Which units of the layout there are; the others fill up a partial group and never live."""
        return self.layout(jnp.ones_like(self.w)) > 0

    @property
    def excess(self) -> jax.Array:
        """log(living units / budget) over all competitions."""
        living = self.layout(jnp.abs(self.w)) > 0
        competitions = jnp.any(living, self.structure.axes, keepdims=True).shape
        budget = jnp.sum(jnp.broadcast_to(self.budget, competitions))
        return jnp.log(jnp.maximum(jnp.sum(living), 1) / jnp.maximum(budget, 1))

    def best(self, worth: jax.Array, k: jax.Array | int | None = None) -> jax.Array:
        """The k units of each competition that are worth most, by this worth; the budget's by default."""
        k = self.budget if k is None else k
        return select.above(worth, select.cut(worth, k, self.structure.axes), self.structure.axes)

    def worthiest(self, k: jax.Array | int | None = None) -> jax.Array:
        """`best(worth, k)`; units that need no array of worths are ranked without one."""
        if not self.in_place:
            return self.best(self.worth, k)
        return select.larger(self.structure.layout(self.sight.point), self.cut(k), self.structure.axes)

    def cut(self, k: jax.Array | int | None = None) -> select.Cut:
        """Where the ranking of units by their worth is cut by the budget, or by k."""
        x = self.structure.layout(self.sight.point) if self.in_place else self.worth
        return select.cut(x, self.budget if k is None else k, self.structure.axes, of_size=self.in_place)

    @property
    def in_place(self) -> bool:
        """Can units be ranked without an array of worths? A layout in groups may have padding, of infinite size."""
        return self.by_size and self.structure.axes is None

    @property
    def by_size(self) -> bool:
        """Is a unit's worth the magnitude of its entry, the same to the bit whenever it is computed?"""
        return self.metric == metrics.magnitude() and not self.structure.pooled

    def entries(self, keep: "Keep") -> jax.Array:
        """Which entries live, from which units do."""
        if isinstance(keep, select.Cut):
            keep = select.larger(self.structure.layout(self.sight.point), keep, self.structure.axes)
        return self.spread(keep)

    def tail(self, alive: jax.Array) -> jax.Array:
        """|W|_1 of what does not live, over |W|_1: the compression error before the projection."""
        size = jnp.abs(self.w)
        lost, total = select.sums(jnp.where(alive, 0, size), size)
        return lost / jnp.maximum(total, 1e-30)


Keep = jax.Array | select.Cut  # the units that may live, one by one; or how large the entries are that may


class Decision(NamedTuple):
    """What may live until the next refresh, the slow memory until then, and the fast one if it changes."""

    keep: Keep
    slow: Any = ()
    fast: Any = None


def keep_worthiest(view: View) -> Decision:
    """Project on the budget: the most worthy units live.

    Entries in large competitions are kept by a cut, a few numbers where a mask would be written on every step.
    """
    if not cuts(view):
        return Decision(view.worthiest(), view.memory.slow)
    return Decision(view.cut(), view.memory.slow)


def cuts(view: View) -> bool:
    """May the support be said by a cut?"""
    return view.by_size and bool(np.min(view.structure.sizes(view.w.shape)) >= FEW)


def nothing(w: jax.Array, structure: Structure) -> Memory:
    return Memory()


def weights(w: jax.Array, memory: Memory) -> jax.Array:
    """The iterate is the weights themselves."""
    return w


def never(count: jax.Array) -> jax.Array:
    return jnp.zeros((), bool)


def truncate(w: jax.Array, rank: jax.Array, final: int, progress: jax.Array) -> jax.Array:
    """The nearest matrix of this rank."""
    return shrinkage.truncate(w, rank)


Iterate = Callable[["Method"], "Method"]  # where the iterate lives: changes how weights move, not when or how much


@dataclasses.dataclass(frozen=True)
class Method:
    """A way for the weights to get from dense to their budget.

    Attributes:
      name: for reports and errors.
      steps: the length of training.
      clock: when it looks.
      ramp: progress of the sparsity, a schedule from 0 (dense) to 1 (the final budget), for rules with a plain number.
      start: `(w, structure)` -> the first memory of a parameter.
      decide: on refreshes, `View -> Decision`.
      step: on every step, `(View, update, alive) -> (weights, fast memory)`, elementwise; None: the weights follow the
        optimizer.
      iterate: `(w, memory)` -> the array that the optimizer moves and the metric judges, the weights by default.
      support: `View` -> which weights may live, where the method's memory says it; where it is None, what the last
        refresh kept and `params != 0` remembers.
      free: steps on which the support is not fixed: a zero may come back whenever `step` says so.
      project_rank: on refreshes of `structures.rank()`; None refuses that structure.
      pools: can it move units of more than one entry?
      metric: overrides the rules' metric where the method is defined by one.
      prefers: the metric of rules that name none; magnitude, where it is None or the optimizer lacks what it needs.
      forget_momentum: the optimizer's momentum of weights that are pruned or revived.
    """

    name: str
    steps: int
    clock: Clock
    ramp: Schedule
    start: Callable[[jax.Array, Structure], Memory] = nothing
    decide: Callable[[View], Decision] = keep_worthiest
    step: Callable[[View, jax.Array, jax.Array], tuple[jax.Array, Any]] | None = None
    iterate: Callable[[jax.Array, Memory], jax.Array] = weights
    support: Callable[[View], jax.Array] | None = None
    free: Callable[[jax.Array], jax.Array] = never
    project_rank: Callable[..., jax.Array] | None = None
    pools: bool = True
    metric: metrics.Metric | None = None
    prefers: metrics.Metric | None = None
    forget_momentum: bool = True

    def __post_init__(self):
        object.__setattr__(self, "steps", int(self.steps))  # 1e4, say

    def judged_by(self, named: metrics.Metric | None, is_rank: bool, adaptive: bool) -> metrics.Metric:
        """Its own metric, or the one that a rule names, or else the one that it prefers, where that can be had.

        `adaptive`: the optimizer keeps second moments.
        """
        preferred = self.prefers or metrics.magnitude()
        lacks = is_rank or (preferred.needs_second and not adaptive)
        return self.metric or named or (metrics.magnitude() if lacks else preferred)


def clock_for(steps: int, begin: float, end: float, every: int | None = None, most: int = 100) -> Clock:
    """A refresh every `every` steps from `begin` to `end` (fractions of the training), and one at `end`.

    `every` defaults to a hundredth of the training, at most `most` steps. The last refresh is never later than the last
    step.
    """
    if not isinstance(steps, int | float | np.number) or not 1 <= steps < 2**31 or steps != int(steps):
        raise ValueError(f"a method needs the length of training, a whole number of steps in [1, 2^31), got {steps!r}")
    if not 0 <= begin <= end <= 1:
        raise ValueError(f"begin and end are fractions of the training, 0 <= begin <= end <= 1, got {begin} and {end}")
    if every is not None and (every != int(every) or every < 1):
        raise ValueError(f"every counts the steps between two refreshes, a whole number of at least 1, got {every}")
    steps, every = int(steps), int(every or max(1, min(most, steps // 100)))
    last = min(round(end * steps), steps - 1)
    first = min(round(begin * steps), last)
    return Clock((*range(first, last, every), last))
