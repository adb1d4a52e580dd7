"""Where are the numbers that are not zero? Three ways to say it, for a matrix of `rows` inputs by `cols` outputs.

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
    """`cost(keep, order, hint)`: bits of the positions, and how many values are stored.

    `write(keep, order, hint)` -> parts, fields, flat positions of the stored values, where order is keep's; and its
    inverse `read(parts, fields, rows, cols, count)`, where count is that of the stored values.
    """

    cost: Callable[[np.ndarray, np.ndarray, Any], tuple[int, int]]
    write: Callable[[np.ndarray, np.ndarray, Any], tuple[Parts, Fields, np.ndarray]]
    read: Callable[[Parts, Fields, int, int, int], np.ndarray]
    parts: tuple[str, ...]
    fields: tuple[str, ...]


def _cost_bitmask(keep: np.ndarray, order: np.ndarray, hint: Any) -> tuple[int, int]:
    return keep.size + -(-len(keep) // STRIDE) * 32, len(order)


def _write_bitmask(keep: np.ndarray, order: np.ndarray, hint: Any) -> tuple[Parts, Fields, np.ndarray]:
    """One bit an entry, row by row, the first in the lowest bit; how many values precede every 16th row."""
    mask = np.packbits(keep, bitorder="little")
    return {"mask": mask, "offsets": _offsets(mask, *keep.shape)}, {}, order


def _offsets(mask: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Sixteen rows are 2 cols bytes, whatever cols is."""
    dtype, strides = np.uint64 if rows * cols >= 2**32 else np.uint32, -(-rows // STRIDE)
    living = np.zeros(strides * 2 * cols, np.uint8)
    living[: len(mask)] = np.bitwise_count(mask)
    ends = np.cumsum(living.reshape(strides, -1).sum(axis=1, dtype=dtype), dtype=dtype)
    return np.concatenate([np.zeros(1, dtype), ends])[:strides]


def _read_bitmask(parts: Parts, fields: Fields, rows: int, cols: int, count: int) -> np.ndarray:
    order = bits.positions(bits.unpack(parts["mask"], rows * cols, 1).view(bool))
    if len(order) != count:
        raise FormatError(f"its mask has {len(order)} bits set, for {count} values")
    right = _offsets(parts["mask"], rows, cols)
    if parts["offsets"].dtype != right.dtype or not np.array_equal(parts["offsets"], right):
        raise FormatError("its row offsets do not count its mask")
    return order


def _cost_n_of_m(keep: np.ndarray, order: np.ndarray, hint: Any) -> tuple[int, int]:
    n, m = hint or _smallest(keep)
    sizes = np.minimum(m, len(keep) - np.arange(0, len(keep), m))
    stored = int((-(-n * sizes // m)).sum()) * keep.shape[1]
    return _width(m) * stored, stored


def _write_n_of_m(keep: np.ndarray, order: np.ndarray, hint: Any) -> tuple[Parts, Fields, np.ndarray]:
    """The positions within each group of m inputs, in ceil(log2 m) bits: slot after slot, each for all outputs.

    Groups with fewer than n living entries store zeros at free positions.
    """
    n, m = hint or _smallest(keep)
    if (full := _overfull(keep, n, m)) is not None:
        raise ValueError(f"more than {n} of {m} inputs live in the group from row {full}")
    places, valid = [], []
    for first in range(0, len(keep), m):
        group = keep[first : first + m]
        slots = -(-n * len(group) // m)
        place = np.sort(np.argsort(~group, axis=0, kind="stable")[:slots], axis=0)
        places.append(place)
        valid.append(place + first)
    place = np.concatenate(places) if places else np.zeros((0, keep.shape[1]), int)
    rows = np.concatenate(valid) if valid else place
    stored = (rows * keep.shape[1] + np.arange(keep.shape[1])).reshape(-1)
    return {"places": bits.pack(place.reshape(-1), _width(m))}, {"n": int(n), "m": int(m)}, stored


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


def fitting(keep: np.ndarray, hint: tuple[int, int] | None) -> tuple[int, int] | None:
    """The n and m that a matrix shall have, unless a group has more: while it is being pruned it may."""
    return hint if hint and _overfull(keep, *hint) is None else None


def _overfull(keep: np.ndarray, n: int, m: int) -> int | None:
    """The first row of the first group with more living inputs than its share."""
    for first in range(0, len(keep), m):
        group = keep[first : first + m]
        if np.count_nonzero(group, axis=0).max(initial=0) > -(-n * len(group) // m):
            return first
    return None


def _width(m: int) -> int:
    return (m - 1).bit_length()


def _smallest(keep: np.ndarray) -> tuple[int, int]:
    """The n and m that take the fewest bits, a value counted as eight."""
    rows, cols = keep.shape
    padded = np.zeros((-(-rows // GROUPS[-1]) * GROUPS[-1], cols), np.uint8)
    padded[:rows] = keep
    living = padded.reshape(-1, 2, cols).sum(axis=1, dtype=np.uint16)
    costs = []
    for m in GROUPS:
        living = living.reshape(-1, 2, cols).sum(axis=1, dtype=np.uint16)
        sizes = np.minimum(m, rows - np.arange(0, rows, m))
        most = living[: len(sizes)].max(axis=1, initial=0).astype(np.int64)
        n = min(int((-(-most * m // sizes)).max(initial=0)), m)
        costs.append((int((-(-n * sizes // m)).sum()) * (_width(m) + 8), n, m))
    _, n, m = min(costs)
    return n, m


def _cost_indices(keep: np.ndarray, order: np.ndarray, hint: Any) -> tuple[int, int]:
    width, codes = _gap_width(_gaps(order), hint)
    return width * codes, len(order)


def _gaps(order: np.ndarray) -> np.ndarray:
    return np.diff(order, prepend=-1) - 1


def _gap_width(gaps: np.ndarray, hint: Any) -> tuple[int, int]:
    """The number of bits that stores these gaps in the fewest bits, and how many codes they take."""
    length, times = np.arange(1 << 16), np.bincount(np.minimum(gaps, (1 << 16) - 1), minlength=1 << 16)
    longest = gaps[gaps >= len(length)]

    def codes(width: int) -> int:
        skip = 2**width - 1
        return len(gaps) + int((length[:-1] // skip * times[:-1]).sum() + (longest // skip).sum())

    return min(((b, codes(b)) for b in ([hint] if hint else range(2, 9))), key=lambda found: found[0] * found[1])


def _write_indices(keep: np.ndarray, order: np.ndarray, hint: Any) -> tuple[Parts, Fields, np.ndarray]:
    """The gaps between living entries, row by row, in `bits` bits; all ones skip that many entries and name none."""
    gaps = _gaps(order)
    width, count = _gap_width(gaps, hint)
    skip = 2**width - 1
    skips = gaps // skip
    codes = np.full(count, skip, np.uint8)
    codes[np.cumsum(skips + 1) - 1] = gaps - skips * skip
    return {"gaps": bits.pack(codes, width)}, {"bits": width, "gaps": count}, order


def _read_indices(parts: Parts, fields: Fields, rows: int, cols: int, count: int) -> np.ndarray:
    width, total = fields["bits"], fields["gaps"]
    if not 2 <= width <= 8 or not count <= total <= count + rows * cols:
        raise FormatError(f"{total} gaps of {width} bits cannot place {count} of {rows} x {cols}")
    codes = bits.unpack(parts["gaps"], total, width)
    named = codes != 2**width - 1
    order = (np.cumsum(codes + named.view(np.uint8), dtype=np.int64) - 1)[named]
    if len(order) != count or (total and not named[-1]):
        raise FormatError(f"its gaps name {len(order)} entries, for {count} values")
    if count and order[-1] >= rows * cols:
        raise FormatError(f"its gaps lead to entry {order[-1]} of {rows * cols}")
    return order


SPARSE = {
    "bitmask": Codec(_cost_bitmask, _write_bitmask, _read_bitmask, ("mask", "offsets"), ()),
    "n_of_m": Codec(_cost_n_of_m, _write_n_of_m, _read_n_of_m, ("places",), ("n", "m")),
    "indices": Codec(_cost_indices, _write_indices, _read_indices, ("gaps",), ("bits", "gaps")),
}
NAMES = ("dense", *SPARSE, "factors")
PARTS = {"dense": (), "factors": ()} | {name: codec.parts for name, codec in SPARSE.items()}
FIELDS = {"dense": (), "factors": ("rank",)} | {name: codec.fields for name, codec in SPARSE.items()}
