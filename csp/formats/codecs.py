"""Where are the numbers that are not zero? Four ways to write it down, for a matrix of `rows` inputs by `cols` outputs.

A codec turns a support (one boolean an entry) into parts, arrays that are stored, and fields, numbers for the manifest,
and back into `order`: the flat position of every stored value. Reading checks everything before an index is used.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from csp.formats import bits
from csp.formats.errors import FormatError
from csp.formats.values import Parts

STRIDE = 16  # rows between two offsets of a bitmask
GROUPS = (4, 8, 16, 32, 64, 128, 256)  # the M that `n_of_m` tries where it is told none
Fields = dict[str, int]


class Codec(NamedTuple):
    """`write(keep, hint)` and `read(parts, fields, rows, cols, count)`, where count is that of the stored values."""

    write: Callable[[np.ndarray, Any], tuple[Parts, Fields, np.ndarray]]
    read: Callable[[Parts, Fields, int, int, int], np.ndarray]
    parts: tuple[str, ...]
    fields: tuple[str, ...]


def _write_dense(keep: np.ndarray, hint: Any) -> tuple[Parts, Fields, np.ndarray]:
    return {}, {}, np.arange(keep.size)


def _read_dense(parts: Parts, fields: Fields, rows: int, cols: int, count: int) -> np.ndarray:
    if count != rows * cols:
        raise FormatError(f"{count} values do not fill {rows} x {cols}")
    return np.arange(count)


def _write_bitmask(keep: np.ndarray, hint: Any) -> tuple[Parts, Fields, np.ndarray]:
    """One bit an entry, row by row, the first in the lowest bit; how many values precede every 16th row."""
    return (
        {"mask": np.packbits(keep, bitorder="little"), "offsets": _offsets(keep)},
        {},
        np.flatnonzero(keep),
    )


def _offsets(keep: np.ndarray) -> np.ndarray:
    living = np.count_nonzero(keep, axis=1)
    return np.concatenate([[0], np.cumsum(living)])[:-1:STRIDE].astype(np.uint64 if keep.size >= 2**32 else np.uint32)


def _read_bitmask(parts: Parts, fields: Fields, rows: int, cols: int, count: int) -> np.ndarray:
    keep = bits.unpack(parts["mask"], rows * cols, 1)
    order = np.flatnonzero(keep)
    if len(order) != count:
        raise FormatError(f"its mask has {len(order)} bits set, for {count} values")
    right = _offsets(keep.reshape(rows, cols))
    if parts["offsets"].dtype != right.dtype or not np.array_equal(parts["offsets"], right):
        raise FormatError("its row offsets do not count its mask")
    return order


def _write_n_of_m(keep: np.ndarray, hint: Any) -> tuple[Parts, Fields, np.ndarray]:
    """The positions within each group of m inputs, in ceil(log2 m) bits: slot after slot, each for all outputs.

    Groups with fewer than n living entries store zeros at free positions.
    """
    n, m = hint or _smallest(keep)
    places, valid = [], []
    for first in range(0, len(keep), m):
        group = keep[first : first + m]
        slots = -(-n * len(group) // m)
        if np.count_nonzero(group, axis=0).max(initial=0) > slots:
            raise ValueError(f"more than {n} of {m} inputs live in the group from row {first}")
        place = np.sort(np.argsort(~group, axis=0, kind="stable")[:slots], axis=0)
        places.append(place)
        valid.append(place + first)
    place = np.concatenate(places) if places else np.zeros((0, keep.shape[1]), int)
    rows = np.concatenate(valid) if valid else place
    order = (rows * keep.shape[1] + np.arange(keep.shape[1])).reshape(-1)
    return {"places": bits.pack(place.reshape(-1), _width(m))}, {"n": int(n), "m": int(m)}, order


def _read_n_of_m(parts: Parts, fields: Fields, rows: int, cols: int, count: int) -> np.ndarray:
    n, m = fields["n"], fields["m"]
    if not 0 <= n <= m <= 256 or m < 1:
        raise FormatError(f"{n}:{m} is no structure with m up to 256")
    starts = np.arange(0, rows, m)
    sizes = np.minimum(m, rows - starts)
    slots = -(-n * sizes // m)
    if int(slots.sum()) * cols != count:
        raise FormatError(f"{n}:{m} of {rows} x {cols} are {int(slots.sum()) * cols} values, not {count}")
    place = bits.unpack(parts["places"], count, _width(m)).reshape(int(slots.sum()), cols)
    group = np.repeat(np.arange(len(starts)), slots)
    if (place >= sizes[group][:, None]).any():
        raise FormatError("a position lies beyond its group")
    same = group[1:] == group[:-1]
    if (place[1:][same] <= place[:-1][same]).any():
        raise FormatError("the positions of a group are not ascending")
    return ((place + starts[group][:, None]) * cols + np.arange(cols)).reshape(-1)


def _width(m: int) -> int:
    return (m - 1).bit_length()


def _smallest(keep: np.ndarray) -> tuple[int, int]:
    """The n and m that take the fewest bits, a value counted as eight."""

    def cost(m: int) -> tuple[int, int, int]:
        starts = np.arange(0, len(keep), m)
        living = np.add.reduceat(keep, starts, axis=0, dtype=np.int64).max(axis=1, initial=0) if len(keep) else starts
        sizes = np.minimum(m, len(keep) - starts)
        n = max((-(-int(k) * m // int(s)) for k, s in zip(living, sizes, strict=True)), default=0)
        n = min(n, m)
        return int((-(-n * sizes // m)).sum()) * (_width(m) + 8), n, m

    _, n, m = min(cost(m) for m in GROUPS)
    return n, m


def _write_indices(keep: np.ndarray, hint: Any) -> tuple[Parts, Fields, np.ndarray]:
    """The gaps between living entries, row by row, in `bits` bits; all ones skip that many entries and name none."""
    order = np.flatnonzero(keep)
    gaps = np.diff(order, prepend=-1) - 1
    width = hint or min(range(2, 9), key=lambda b: b * (len(gaps) + int((gaps // (2**b - 1)).sum())))
    skip = 2**width - 1
    skips = gaps // skip
    codes = np.full(len(gaps) + int(skips.sum()), skip, np.uint8)
    codes[np.cumsum(skips + 1) - 1] = gaps % skip
    return {"gaps": bits.pack(codes, width)}, {"bits": width, "gaps": len(codes)}, order


def _read_indices(parts: Parts, fields: Fields, rows: int, cols: int, count: int) -> np.ndarray:
    width, total = fields["bits"], fields["gaps"]
    if not 2 <= width <= 8 or not count <= total <= count + rows * cols:
        raise FormatError(f"{total} gaps of {width} bits cannot place {count} of {rows} x {cols}")
    codes = bits.unpack(parts["gaps"], total, width)
    named = codes != 2**width - 1
    order = (np.cumsum(codes.astype(np.int64) + named) - 1)[named]
    if len(order) != count or (total and not named[-1]):
        raise FormatError(f"its gaps name {len(order)} entries, for {count} values")
    if count and order[-1] >= rows * cols:
        raise FormatError(f"its gaps lead to entry {order[-1]} of {rows * cols}")
    return order


CODECS = {
    "dense": Codec(_write_dense, _read_dense, (), ()),
    "bitmask": Codec(_write_bitmask, _read_bitmask, ("mask", "offsets"), ()),
    "n_of_m": Codec(_write_n_of_m, _read_n_of_m, ("places",), ("n", "m")),
    "indices": Codec(_write_indices, _read_indices, ("gaps",), ("bits", "gaps")),
}
