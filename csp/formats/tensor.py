"""One tensor, to its parts and back."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from csp.formats import archive, bits, codecs, values
from csp.formats.errors import FormatError
from csp.formats.manifest import Entry
from csp.formats.values import FLOATS, Parts, positive_zero

NAMES = {np.dtype(np.float64): "F64", np.dtype(np.float32): "F32", np.dtype(np.float16): "F16"}
NAMES |= {np.dtype(FLOATS["bf16"]): "BF16", np.dtype(np.int8): "I8", np.dtype(np.uint8): "U8"}
NAMES |= {np.dtype(np.uint32): "U32", np.dtype(np.uint64): "U64"}
DTYPE_OF = {name: dtype for dtype, name in NAMES.items()}


class Pair(NamedTuple):
    """A matrix u v by its factors, as `csp.lowrank` makes them."""

    u: np.ndarray
    v: np.ndarray


class Numbers(NamedTuple):
    """What is stored of a matrix, for whoever multiplies by it without making it dense.

    Of factors: u's values, then v's, and the scales of u's columns, then of v's.
    """

    values: np.ndarray  # floats, or int8 codes
    scale: np.ndarray | None  # of each output channel's codes
    order: np.ndarray | None  # where each value stands in the flat matrix; None: one value for every entry


class _Coded(NamedTuple):
    codec: str
    fields: dict[str, int]
    parts: Parts
    stored: int
    nonzero: int

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())


def encode(
    w: np.ndarray | Pair, codec: str = "auto", kind: str | None = None, hint: Any = None, archived: bool = False
) -> tuple[Entry, Parts]:
    """The smallest codec without loss, or the one that is asked for; `kind` is the values' type, its own by default."""
    if codec not in ("auto", *codecs.NAMES):
        raise ValueError(f"codec {codec!r} is none of {', '.join(map(repr, ('auto', *codecs.NAMES)))}")
    shape = (*w.u.shape[:-1], w.v.shape[-1]) if isinstance(w, Pair) else w.shape
    own = values.natural((w.u if isinstance(w, Pair) else w).dtype)
    if isinstance(w, Pair) or codec == "factors":
        coded, shapes = _archived(_factors(w, kind or own), archived)
    else:
        coded, shapes = _smallest(positive_zero(w), codec, kind or own, hint, archived)
    entry = Entry(
        codec=coded.codec,
        values=kind or own,
        dtype=own,
        shape=shape,
        stored=coded.stored,
        nonzero=coded.nonzero,
        digest=digest(coded.parts),
        parts=shapes,
        fields=coded.fields,
        notes={},
    )
    return entry, coded.parts


def sizes(w: np.ndarray, kind: str | None = None, hint: Any = None) -> dict[str, int]:
    """Bytes of the positions and values in each codec that has positions, and dense, to within a few bytes."""
    matrix = _matrix(w)
    keep = matrix != 0
    hint = codecs.fitting(keep, hint)
    costs = _bits(keep, bits.positions(keep), kind or values.natural(w.dtype), hint) if w.size else {"dense": 0}
    return {name: -(-cost // 8) for name, cost in costs.items()}


def _matrix(w: np.ndarray) -> np.ndarray:
    """[rows, outputs], of nothing too."""
    return w.reshape(math.prod(w.shape[:-1]), w.shape[-1]) if w.ndim else w.reshape(1, 1)


def _smallest(w: np.ndarray, codec: str, kind: str, hint: Any, archived: bool) -> tuple[_Coded, dict[str, Any]]:
    matrix = _matrix(w)
    if not matrix.size:  # nothing has no positions
        codec = "dense"
    keep = matrix != 0  # of NaN too
    order = bits.positions(keep)
    hint = codecs.fitting(keep, hint) if codec == "auto" else hint
    if archived:  # whose sizes nothing but the coder knows
        names = codecs.NAMES[:-1] if codec == "auto" else (codec,)
        coded = [_archived(_coded(name, matrix, keep, order, kind, _hint(name, hint, True)), True) for name in names]
        return min(coded, key=lambda found: found[0].nbytes)
    costs = _bits(keep, order, kind, hint) if codec == "auto" else {codec: 0}
    name = min(costs, key=lambda name: costs[name])
    return _archived(_coded(name, matrix, keep, order, kind, _hint(name, hint, False)), False)


def _bits(keep: np.ndarray, order: np.ndarray, kind: str, hint: Any) -> dict[str, int]:
    """What every codec without loss would take, before an archive; scales are the same for all."""
    costs = {"dense": (0, keep.size)}
    costs |= {name: codec.cost(keep, order, _hint(name, hint, False)) for name, codec in codecs.SPARSE.items()}
    return {name: places + values.BITS[kind] * stored for name, (places, stored) in costs.items()}


def _coded(name: str, matrix: np.ndarray, keep: np.ndarray, order: np.ndarray, kind: str, hint: Any) -> _Coded:
    flat, cols = matrix.reshape(-1), matrix.shape[1]
    if name == "dense":
        parts = values.encode(flat, np.tile(np.arange(cols), len(matrix)) if kind in values.TOP else None, cols, kind)
        return _Coded(name, {}, parts, flat.size, len(order))
    places, fields, stored = codecs.SPARSE[name].write(keep, order, hint)
    parts = places | values.encode(flat[stored], _channels(stored, cols) if kind in values.TOP else None, cols, kind)
    return _Coded(name, fields, parts, len(stored), len(order))


def _hint(name: str, hint: Any, archived: bool) -> Any:
    """(n, m) of `n_of_m`; in an archive gaps are whole bytes, whose Huffman code is shorter than any fixed width."""
    if name == "indices":
        return 8 if archived else None
    return hint if name == "n_of_m" else None


def _factors(w: np.ndarray | Pair, kind: str) -> _Coded:
    """u, then v, each row by row; a scale for each column of u and each of v."""
    pair = w if isinstance(w, Pair) else factorised(w)
    u, v = _matrix(pair.u), pair.v
    numbers = np.concatenate([positive_zero(u).reshape(-1), positive_zero(v).reshape(-1)])
    rows, rank, cols = len(u), *v.shape
    if rank > max(rows, cols):
        raise ValueError(f"factors of rank {rank} are larger than their product, {rows} x {cols}: multiply them out")
    channels = _factor_channels(rows, rank, cols) if kind in values.TOP else None
    parts = values.encode(numbers, channels, rank + cols, kind)
    return _Coded("factors", {"rank": rank}, parts, len(numbers), int(np.count_nonzero(numbers != 0)))


def _channels(order: np.ndarray, cols: int) -> np.ndarray:
    """order % cols, which NumPy computes more slowly than this."""
    return order - order // max(cols, 1) * cols


def _factor_channels(rows: int, rank: int, cols: int) -> np.ndarray:
    return np.concatenate([np.tile(np.arange(rank), rows), rank + np.tile(np.arange(cols), rank)])


def factorised(w: np.ndarray) -> Pair:
    """u v = w but for rounding, with as many columns as w has singular values above rounding."""
    if w.ndim < 2:
        raise ValueError("a vector has no factors: store it dense")
    matrix = _matrix(w)
    u, s, v = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    precision = max(np.finfo(np.float32).eps if w.dtype.itemsize < 8 else 0, np.finfo(np.float64).eps)
    rank = int(np.count_nonzero(s > s.max(initial=0) * precision * max(matrix.shape) ** 0.5))
    root = np.sqrt(s[:rank])
    return Pair(
        (u[:, :rank] * root).astype(w.dtype).reshape(*w.shape[:-1], rank), (root[:, None] * v[:rank]).astype(w.dtype)
    )


def _archived(coded: _Coded, archived: bool) -> tuple[_Coded, dict[str, dict[str, Any]]]:
    if not archived:
        return coded, {part: {} for part in coded.parts}
    shapes = {part: {"dtype": NAMES[x.dtype], "shape": list(x.shape)} for part, x in coded.parts.items()}
    return coded._replace(parts={part: archive.shrink(x) for part, x in coded.parts.items()}), shapes


def decode(entry: Entry, parts: Mapping[str, np.ndarray], allow_nonfinite: bool = False) -> np.ndarray | Pair:
    """The dense tensor, bit for bit if its values are floats of its own type; or its factors."""
    plain, order = unpack(entry, parts)
    (rows, cols), rank = entry.matrix, entry.fields.get("rank", 0)
    channels, width = None, cols + rank
    if entry.values in values.TOP:
        channels = _factor_channels(rows, rank, cols) if entry.codec == "factors" else _channels(order, cols)
    numbers = values.decode(plain, entry.stored, channels, width, entry.values, np.dtype(FLOATS[entry.dtype]))
    if np.count_nonzero(numbers) > entry.nonzero:
        raise FormatError(f"it has more than the {entry.nonzero} non-zeros of its manifest")
    if not allow_nonfinite and not finite(numbers):
        raise FormatError("it has NaN or infinite weights: allow_nonfinite=True reads them")
    if entry.codec == "factors":
        u, v = numbers[: rows * rank], numbers[rows * rank :]
        return Pair(u.reshape(*entry.shape[:-1], rank), v.reshape(rank, cols))
    if entry.codec == "dense":
        return (numbers if numbers.flags.writeable else numbers.copy()).reshape(entry.shape)
    w = np.zeros(entry.size, numbers.dtype)
    w[order] = numbers
    return w.reshape(entry.shape)


def numbers(entry: Entry, parts: Mapping[str, np.ndarray], allow_nonfinite: bool = False) -> Numbers:
    """The stored values and their places, checked."""
    plain, order = unpack(entry, parts)
    found, scale = values.stored(plain, entry.stored, entry.matrix[1] + entry.fields.get("rank", 0), entry.values)
    if not allow_nonfinite and scale is None and not finite(found):
        raise FormatError("it has NaN or infinite weights: allow_nonfinite=True reads them")
    return Numbers(found, scale, order if entry.codec in codecs.SPARSE else None)


def check(w: np.ndarray | Pair, entry: Entry, parts: Mapping[str, np.ndarray]) -> None:
    """What was encoded is what will be read: bit for bit, or to half a step of its scale."""
    back = decode(entry, parts, allow_nonfinite=True)
    for given, read in zip(_arrays(w, entry), back if isinstance(back, Pair) else (back,), strict=True):
        if entry.values in values.TOP:
            size = np.abs(_matrix(given).astype(np.float64))
            error, type_ = np.abs(_matrix(given).astype(np.float64) - _matrix(read)), ml_dtypes.finfo(given.dtype)
            step = size.max(axis=0, initial=0) / values.TOP[entry.values]
            rounding = size * float(type_.eps) + max(float(type_.smallest_subnormal), np.finfo(np.float32).tiny)
            right = (error <= 0.51 * step + rounding).all()
        else:
            with np.errstate(over="ignore"):
                expected = given.astype(FLOATS[entry.values], copy=False).astype(given.dtype, copy=False)
            right = np.array_equal(_words(positive_zero(expected)), _words(read))
        if not right:
            raise AssertionError("csp wrote something else than it was given: please report this file")


def _arrays(w: np.ndarray | Pair, entry: Entry) -> tuple[np.ndarray, ...]:
    if isinstance(w, Pair):
        return tuple(w)
    return tuple(factorised(w)) if entry.codec == "factors" else (w,)


def _words(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1).view(f"u{x.dtype.itemsize}")


def unpack(entry: Entry, parts: Mapping[str, np.ndarray]) -> tuple[Parts, np.ndarray]:
    """The parts as they were before an archive, and the flat position of every stored value: all checked."""
    if digest(parts) != entry.digest:
        raise FormatError("its digest is not that of its bytes: damaged, or mixed from two files")
    plain = {part: _plain(part, x, entry) for part, x in parts.items()}
    rows, cols = entry.matrix
    if entry.codec == "factors":
        rank = entry.fields["rank"]
        if entry.stored != rank * (rows + cols):
            raise FormatError(f"{entry.stored} values are no factors of rank {rank} of {rows} x {cols}")
        return plain, np.zeros(0, np.int64)
    if not entry.size:  # whose other axes may be of any length
        return plain, np.zeros(0, np.int64)
    if entry.codec == "dense":
        if entry.stored != entry.size:
            raise FormatError(f"{entry.stored} values do not fill {rows} x {cols}")
        return plain, np.arange(entry.size if entry.values in values.TOP else 0)
    return plain, codecs.SPARSE[entry.codec].read(plain, entry.fields, rows, cols, entry.stored)


def _plain(part: str, x: np.ndarray, entry: Entry) -> np.ndarray:
    archived = entry.parts[part]
    if not archived:
        return x
    if x.dtype != np.uint8 or x.ndim != 1:
        raise FormatError(f"its archived part {part} is no line of bytes")
    dtype = DTYPE_OF[archived["dtype"]]
    most = 16 * (entry.size + entry.matrix[1] + 64)
    if np.prod(archived["shape"], dtype=object) * dtype.itemsize > most:
        raise FormatError(f"its archived part {part} claims more than the tensor can need")
    return archive.grow(x, dtype, archived["shape"])


def finite(w: np.ndarray) -> bool:
    step = 2**22
    flat = w.reshape(-1)
    blocks = (flat[i : i + step] for i in range(0, len(flat), step))
    return all(np.isfinite(block if block.dtype.kind == "f" else block.astype(np.float32)).all() for block in blocks)


def digest(parts: Mapping[str, np.ndarray]) -> str:
    hashed = hashlib.blake2b(digest_size=32)
    for part in sorted(parts):
        x = np.ascontiguousarray(parts[part])
        hashed.update(f"{part}:{NAMES[x.dtype]}:{x.shape};".encode())
        hashed.update(x.reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()
