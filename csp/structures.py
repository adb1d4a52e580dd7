"""What lives or dies together, and within what does it compete?

A structure cuts a parameter into *units* (an entry, a block, a row, ...) and says which units compete for places. It
offers the rest of the library:

- `layout(x, pool)`: one value a unit, from one value an entry; competing units lie along `axes` (None: all compete);
- `spread(units, shape)`: back from one value a unit to one value an entry, by broadcasting;
- `sizes(shape)`: how many units take part in each competition, and `kept(shape, sparsity)`: how many of them stay;
- `check(path, shape)`: refuses a parameter that it cannot cut.

Matrices are stored [in, out]; axes before the last two (the taps of a convolution, a stack of layers) are carried
along. Reshapes split or join *inside* one axis, never across axes, so that a sharded parameter keeps its sharding.
Where a group or block does not divide its axis the last one is partial: a partial block is a unit like any other, a
partial group of r entries in N:M keeps its share, ceil(N r / M).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from csp import tiling
from csp.adding import euclidean

Shape = tuple[int, ...]
Pool = Callable[..., jax.Array]


def exact(fraction: float) -> Fraction:
    """The decimal that was meant: 0.9 is nine tenths, not its binary neighbour."""
    return Fraction(repr(float(fraction)))


def keep_count(size: int, sparsity: float) -> int:
    """How many of `size` units stay: all but round(sparsity * size), half up, in exact arithmetic."""
    return size - math.floor(exact(sparsity) * size + Fraction(1, 2))


@dataclasses.dataclass(frozen=True)
class Structure:
    """The common part: units that all compete with each other within one tensor."""

    axes = None
    pooled = True  # a unit is more than one entry

    def __str__(self) -> str:
        return type(self).__name__.lower()

    @property
    def sparsity(self) -> float | None:
        """The sparsity that the structure itself fixes, if it does."""
        return None

    def check(self, path: str, shape: Shape) -> None:
        if len(shape) < 2:
            raise ValueError(
                f"structure {self} needs a matrix, but {path!r} has shape {shape}: use structures.entries()"
            )

    def layout(self, x: jax.Array, pool: Pool = euclidean) -> jax.Array:
        raise NotImplementedError

    def spread(self, units: jax.Array, shape: Shape) -> jax.Array:
        raise NotImplementedError

    def sizes(self, shape: Shape) -> int | np.ndarray:
        return math.prod(jax.eval_shape(self.layout, jax.ShapeDtypeStruct(shape, jnp.float32)).shape)

    def kept(self, shape: Shape, sparsity: float) -> int | np.ndarray:
        return keep_count(int(self.sizes(shape)), sparsity)

    def kept_at(self, shape: Shape, sparsity: jax.Array) -> jax.Array:
        """The traced count at a traced sparsity, on the way to the exact one."""
        sizes = self.sizes(shape)
        return jnp.clip(jnp.round(sizes * (1.0 - sparsity)), 0, sizes).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Entries(Structure):
    pooled = False

    def __str__(self) -> str:
        return "entries"

    def check(self, path: str, shape: Shape) -> None:
        if not shape:
            raise ValueError(f"{path!r} is a scalar and cannot be pruned: leave it alone with Rule({path!r}, None)")

    def layout(self, x: jax.Array, pool: Pool = euclidean) -> jax.Array:
        return x

    def spread(self, units: jax.Array, shape: Shape) -> jax.Array:
        return units

    def sizes(self, shape: Shape) -> int:
        return math.prod(shape)


@dataclasses.dataclass(frozen=True)
class NofM(Structure):
    n: int
    m: int
    axes = (-2,)
    pooled = False

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        return 1 - self.n / self.m

    def check(self, path: str, shape: Shape) -> None:
        Entries().check(path, shape)

    def layout(self, x: jax.Array, pool: Pool = euclidean) -> jax.Array:
        return tiling.split(x if x.ndim > 1 else x[:, None], -2, self.m, fill=-jnp.inf)

    def spread(self, units: jax.Array, shape: Shape) -> jax.Array:
        joined = tiling.join(units, -2, (shape if len(shape) > 1 else (*shape, 1))[-2])
        return joined if len(shape) > 1 else joined[:, 0]

    def sizes(self, shape: Shape) -> np.ndarray:
        length = shape[-2] if len(shape) > 1 else shape[0]
        sizes = np.minimum(self.m, length - self.m * np.arange(-(-length // self.m)))
        return sizes[:, None, None]

    def kept(self, shape: Shape, sparsity: float) -> np.ndarray:
        return -(-self.n * self.sizes(shape) // self.m)

    def kept_at(self, shape: Shape, sparsity: jax.Array) -> jax.Array:
        return jnp.maximum(super().kept_at(shape, sparsity), self.kept(shape, self.sparsity))


@dataclasses.dataclass(frozen=True)
class Blocks(Structure):
    p: int
    q: int

    def __str__(self) -> str:
        return f"blocks {self.p}x{self.q}"

    def layout(self, x: jax.Array, pool: Pool = euclidean) -> jax.Array:
        cut = tiling.split(tiling.split(x, -1, self.q), -3, self.p)  # [..., in / p, p, out / q, q]
        return pool(cut, axis=(-3, -1))

    def spread(self, units: jax.Array, shape: Shape) -> jax.Array:
        tall = tiling.repeat(units, -2, self.p, shape[-2])
        return tiling.repeat(tall, -1, self.q, shape[-1])

    def sizes(self, shape: Shape) -> int:
        return math.prod(shape[:-2]) * -(-shape[-2] // self.p) * -(-shape[-1] // self.q)


@dataclasses.dataclass(frozen=True)
class Slices(Structure):
    """Whole slices across one axis of the matrix: rows (an input each) or columns (an output each).

    `tied` says that the axis holds that many stacked copies of the same units, as the four gates of an LSTM: unit j
    owns the slices j, j + n / tied, j + 2 n / tied, ...
    """

    axis: int
    tied: int = 1

    def __str__(self) -> str:
        return {-2: "rows", -1: "columns"}[self.axis] + (f" tied {self.tied}" if self.tied > 1 else "")

    def check(self, path: str, shape: Shape) -> None:
        super().check(path, shape)
        if shape[self.axis] % self.tied:
            raise ValueError(
                f"{path!r} has {shape[self.axis]} {self}, which {self.tied} does not divide: "
                "give the number of gates that the axis really holds"
            )

    def layout(self, x: jax.Array, pool: Pool = euclidean) -> jax.Array:
        cut = tiling.split(x, self.axis, x.shape[self.axis] // self.tied)
        keep = cut.ndim + self.axis
        return pool(cut, axis=tuple(a for a in range(cut.ndim) if a != keep))

    def spread(self, units: jax.Array, shape: Shape) -> jax.Array:
        line = jnp.broadcast_to(units, (self.tied, *units.shape)).reshape(shape[self.axis])
        return jnp.broadcast_to(line if self.axis == -1 else line[:, None], shape)

    def sizes(self, shape: Shape) -> int:
        return shape[self.axis] // self.tied


@dataclasses.dataclass(frozen=True)
class Heads(Structure):
    """Attention heads: axis `axis` holds n equal, contiguous pieces."""

    n: int
    axis: int = -1

    def __str__(self) -> str:
        return f"{self.n} heads"

    def check(self, path: str, shape: Shape) -> None:
        super().check(path, shape)
        if -self.axis > len(shape) or shape[self.axis] % self.n:
            raise ValueError(
                f"axis {self.axis} of {path!r}, of shape {shape}, does not hold {self.n} equal heads: "
                "give heads(n, axis=...) the number of heads and the axis that they share"
            )

    def layout(self, x: jax.Array, pool: Pool = euclidean) -> jax.Array:
        cut = tiling.split(x, self.axis, x.shape[self.axis] // self.n)
        keep = cut.ndim + self.axis - 1
        return pool(cut, axis=tuple(a for a in range(cut.ndim) if a != keep))

    def spread(self, units: jax.Array, shape: Shape) -> jax.Array:
        line = tiling.repeat(units, -1, shape[self.axis] // self.n, shape[self.axis])
        return jnp.broadcast_to(line.reshape((-1,) + (1,) * (-self.axis - 1)), shape)

    def sizes(self, shape: Shape) -> int:
        return self.n


@dataclasses.dataclass(frozen=True)
class Rank(Structure):
    """The rank of each matrix. Its sparsity is the fraction of *bytes* saved by storing the two factors."""

    def __str__(self) -> str:
        return "rank"

    def sizes(self, shape: Shape) -> int:
        return min(shape[-2:])

    def kept(self, shape: Shape, sparsity: float) -> int:
        return min(shape[-2:]) if sparsity == 0 else rank_for(shape, sparsity)

    def kept_at(self, shape: Shape, sparsity: jax.Array) -> jax.Array:
        m, n = shape[-2:]
        factored = jnp.clip(jnp.floor((1.0 - sparsity) * (m * n / (m + n))), 1, min(m, n)).astype(jnp.int32)
        return jnp.where(sparsity <= 0, min(m, n), factored)


def rank_for(shape: Sequence[int], saving: float) -> int:
    """The largest rank that saves at least this fraction of the bytes: r (in + out) <= (1 - saving) in * out.

    Example:
        >>> rank_for((1024, 1024), saving=0.75)
        128
    """
    n_in, n_out = shape[-2:]
    if not 0 <= saving < 1:
        raise ValueError(f"saving {saving} is outside [0, 1): give the fraction of the bytes to save")
    rank = math.floor((1 - exact(saving)) * n_in * n_out) // (n_in + n_out)
    if rank < 1:
        most = max(0.0, 1 - (n_in + n_out) / (n_in * n_out))
        raise ValueError(
            f"no rank saves {saving} of a matrix of shape {(n_in, n_out)}: rank 1 saves {most:.4f}, "
            "ask for less or leave the matrix dense"
        )
    return rank


def _are_whole(*numbers: float) -> bool:
    return all(number == int(number) for number in numbers)


def entries() -> Structure:
    """Every entry for itself: unstructured sparsity."""
    return Entries()


def n_of_m(n: int, m: int) -> Structure:
    """At most n of every m consecutive entries along the input axis: 2:4, or bank-balanced as 12:128.

    Its sparsity is 1 - n / m.
    """
    if not 0 <= n <= m or m < 1 or not _are_whole(n, m):
        raise ValueError(
            f"n_of_m keeps n of every m entries, which needs whole numbers, 0 <= n <= m and m >= 1: got n={n}, m={m}"
        )
    return NofM(int(n), int(m))


def blocks(p: int, q: int) -> Structure:
    """Blocks of p inputs by q outputs."""
    if p < 1 or q < 1 or not _are_whole(p, q):
        raise ValueError(f"blocks needs whole p >= 1 and q >= 1, got p={p}, q={q}")
    return Blocks(int(p), int(q))


def rows() -> Structure:
    """All weights that leave one input."""
    return Slices(axis=-2)


def columns(tied: int = 1) -> Structure:
    """All weights that reach one output; `tied=4` for the stacked gates of an LSTM."""
    if tied < 1 or not _are_whole(tied):
        raise ValueError(f"columns(tied=...) needs a whole positive number of gates, got {tied}")
    return Slices(axis=-1, tied=int(tied))


def heads(n: int, axis: int = -1) -> Structure:
    """n attention heads that share an axis: -1 in the query, key and value projections, -2 in the output's."""
    if n < 1 or axis >= 0 or not _are_whole(n, axis):
        raise ValueError(f"heads needs a whole n >= 1 and a negative axis counted from the end, got n={n}, axis={axis}")
    return Heads(int(n), int(axis))


def rank() -> Structure:
    """The rank of the matrix; sparsity is the fraction of bytes saved by its factors."""
    return Rank()
