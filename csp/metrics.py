"""What is a unit worth?

A metric is the diagonal D of a quadratic form: pruning entry i of v costs D_i v_i^2 / 2, so its worth is sqrt(D_i)
|v_i|, and a unit's worth is the norm of its entries' worths. Every data-driven criterion is a choice of D:

| metric     | D                                             | memory, beside the optimizer's |
|------------|-----------------------------------------------|--------------------------------|
| magnitude  | 1                                             | none                           |
| adam       | sqrt(nu): the metric that Adam steps in       | none                           |
| fisher     | nu, or the mean squared gradient              | none, or one array             |
| taylor     | mean |g v| / v^2                              | one array                      |
| activation | mean squared input                            | one number an input            |

Movement alone is signed: its worth is the accumulated -g v, and units add up.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from csp.adding import euclidean, total
from csp.structures import Pool

DECAY = 0.99


class Sight(NamedTuple):
    """What a metric sees of one parameter: `point` is the iterate that the method judges, float32."""

    path: str
    point: jax.Array
    gradient: jax.Array | None = None
    second: jax.Array | None = None  # the optimizer's second moment, where it keeps one
    memory: Any = ()
    activations: jax.Array | None = None  # mean squared input of this step, where the caller gives it


def _unit_diagonal(sight: Sight) -> jax.Array:
    return jnp.ones((), sight.point.dtype)


def _no_memory(sight: Sight) -> Any:
    return ()


def _same_memory(sight: Sight) -> Any:
    return sight.memory


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of your own needs a name and a `diagonal`; `start` and `observe` where it has to remember something."""

    name: str
    diagonal: Callable[[Sight], jax.Array] = _unit_diagonal  # broadcasts to the parameter, not negative
    start: Callable[[Sight], Any] = _no_memory  # the first memory
    observe: Callable[[Sight], Any] = _same_memory  # the next memory, on every step
    signed: Callable[[Sight], jax.Array] | None = None  # a worth that is no diagonal form
    needs_second: bool = False
    needs_activations: bool = False

    def __str__(self) -> str:
        return self.name

    def worth(self, sight: Sight) -> jax.Array:
        """One value an entry, float32: the magnitude for as long as nothing has been seen."""
        size = jnp.abs(sight.point)
        if self.signed is not None:
            score = self.signed(sight)
            return jnp.where(jnp.any(score != 0), score, size)
        if self.diagonal is _unit_diagonal:
            return size
        return jnp.where(self.has_seen(sight), self.root(sight), 1) * size

    def finite(self, sight: Sight) -> jax.Array:
        """D, or the largest number where a gradient was so large that D is infinite."""
        return jnp.minimum(self.diagonal(sight), jnp.finfo(jnp.float32).max)

    def root(self, sight: Sight) -> jax.Array:
        return jnp.sqrt(self.finite(sight))

    def largest_root(self, sight: Sight) -> jax.Array:
        return jnp.sqrt(jnp.minimum(jnp.max(self.diagonal(sight), initial=0), jnp.finfo(jnp.float32).max))

    def has_seen(self, sight: Sight) -> jax.Array:
        """Is worth what it is going to be, or still the magnitude?"""
        return self.largest_root(sight) > 0

    @property
    def pool(self) -> Pool:
        """How the worths of a unit's entries become the unit's."""
        return euclidean if self.signed is None else total


def magnitude() -> Metric:
    """|w|: D = 1."""
    return Metric("magnitude")


def adam() -> Metric:
    """D = sqrt(nu): the diagonal metric in which Adam and its relatives take their steps.

    With adamax, whose nu is no mean square but the largest |g|, it is sqrt(|g|) all the same.
    """
    return Metric("adam", diagonal=lambda sight: jnp.sqrt(_second(sight)), needs_second=True)


def fisher() -> Metric:
    """D = E[g^2], the diagonal of the empirical Fisher matrix: the optimizer's second moment or else our own."""

    def start(sight):
        return () if sight.second is not None else jnp.zeros_like(sight.point)

    def observe(sight):
        return () if sight.second is not None else _mean(sight.memory, jnp.square(sight.gradient))

    def diagonal(sight):
        return sight.memory if sight.second is None else _second(sight)

    return Metric("fisher", diagonal, start, observe)


def taylor() -> Metric:
    """D = E|g v| / v^2, so that the worth is sqrt(E|g v|): the first-order change of the loss."""

    def observe(sight):
        return _mean(sight.memory, jnp.abs(sight.gradient * sight.point))

    def diagonal(sight):
        info = jnp.finfo(jnp.float32)
        return jnp.minimum(sight.memory / jnp.maximum(jnp.square(sight.point), info.tiny), info.max)

    return Metric("taylor", diagonal, lambda sight: jnp.zeros_like(sight.point), observe)


def activation() -> Metric:
    """D_i = E[x_i^2], the mean squared input of row i (Wanda's criterion, averaged over the steps).

    The caller passes `tx.update(..., activations={path: mean_squared_input})`, a vector of length `in` for each path.
    """

    def start(sight):
        return jnp.zeros(sight.point.shape[-2], jnp.float32)

    def observe(sight):
        return _mean(sight.memory, sight.activations.astype(jnp.float32))

    return Metric("activation", lambda sight: sight.memory[:, None], start, observe, needs_activations=True)


def movement() -> Metric:
    """The accumulated -g v: positive where training moves the weight away from zero. It keeps one array."""

    def observe(sight):
        return sight.memory - sight.gradient * sight.point

    return Metric(
        "movement",
        start=lambda sight: jnp.zeros_like(sight.point),
        observe=observe,
        signed=lambda sight: sight.memory,
    )


def _second(sight: Sight) -> jax.Array:
    assert sight.second is not None  # the driver refuses an optimizer without one
    return sight.second.astype(jnp.float32)


def _mean(memory: jax.Array, value: jax.Array) -> jax.Array:
    return DECAY * memory + (1 - DECAY) * value
