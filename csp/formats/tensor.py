"""One tensor, to its parts and back."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from csp.formats import archive, codecs, values
from csp.formats.errors import FormatError
from csp.formats.manifest import Entry
from csp.formats.values import FLOATS, Parts

NAMES = {np.dtype(np.float64): "F64", np.dtype(np.float32): "F32", np.dtype(np.float16): "F16"}
NAMES |= {np.dtype(FLOATS["bf16"]): "BF16", np.dtype(np.int8): "I8", np.dtype(np.uint8): "U8"}
NAMES |= {np.dtype(np.uint32): "U32", np.dtype(np.uint64): "U64"}
DTYPE_OF = {name: dtype for dtype, name in NAMES.items()}
AUTO = ("dense", "bitmask", "n_of_m", "indices")


def encode(
    w: np.ndarray, codec: str = "auto", kind: str | None = None, hint: Any = None, archived: bool = False
) -> tuple[Entry, Parts]:
    """The smallest of AUTO, or the codec that is asked for; `kind` is the type of the values, its own by default."""
    own = values.natural(w.dtype)
    matrix = w.reshape(math.prod(w.shape[:-1]), w.shape[-1]) if w.ndim else w.reshape(1, 1)
    keep = matrix != 0  # of NaN too
    flat = np.where(keep, matrix, np.zeros((), w.dtype)).reshape(-1)  # no -0.0
    names = AUTO if codec == "auto" else (codec,)
    choices = [_encode(name, keep, flat, kind or own, hint, archived) for name in names]
    name, fields, stored, parts, shapes = min(choices, key=lambda c: sum(p.nbytes for p in c[3].values()))
    entry = Entry(
        codec=name,
        values=kind or own,
        dtype=own,
        shape=w.shape,
        stored=stored,
        nonzero=int(np.count_nonzero(keep)),
        sha256=digest(parts),
        parts=shapes,
        fields=fields,
        notes={},
    )
    return entry, parts


def _encode(name: str, keep: np.ndarray, flat: np.ndarray, kind: str, hint: Any, archived: bool) -> tuple:
    if name not in codecs.CODECS:
        raise ValueError(f"codec {name!r} is none of {', '.join(map(repr, ('auto', *codecs.CODECS)))}")
    parts, fields, order = codecs.CODECS[name].write(keep, _hint(name, hint, archived))
    stored = flat if name == "dense" else flat[order]
    parts = parts | values.encode(stored, order % keep.shape[1], keep.shape[1], kind)
    shapes: dict[str, dict[str, Any]] = {part: {} for part in parts}
    if archived:
        shapes = {part: {"dtype": NAMES[x.dtype], "shape": list(x.shape)} for part, x in parts.items()}
        parts = {part: archive.shrink(x) for part, x in parts.items()}
    return name, fields, len(order), parts, shapes


def _hint(name: str, hint: Any, archived: bool) -> Any:
    """(n, m) of `n_of_m`; in an archive gaps are whole bytes, whose Huffman code is shorter than any fixed width."""
    if name == "indices":
        return 8 if archived else None
    return hint if name == "n_of_m" else None


def decode(entry: Entry, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """The dense tensor, bit for bit if its values are floats of its own type."""
    plain, order = unpack(entry, parts)
    cols, dtype = entry.matrix[1], np.dtype(FLOATS[entry.dtype])
    channels = order % cols if entry.values in values.TOP else None
    numbers = values.decode(plain, entry.stored, channels, cols, entry.values, dtype)
    if np.count_nonzero(numbers != 0) > entry.nonzero:
        raise FormatError(f"it has more than the {entry.nonzero} non-zeros of its manifest")
    if entry.codec == "dense":
        return numbers.reshape(entry.shape)
    w = np.zeros(entry.size, dtype)
    w[order] = numbers
    return w.reshape(entry.shape)


def unpack(entry: Entry, parts: Mapping[str, np.ndarray]) -> tuple[Parts, np.ndarray]:
    """The parts as they were before an archive, and the flat position of every stored value: all checked."""
    if digest(parts) != entry.sha256:
        raise FormatError("its digest is not that of its bytes: damaged, or mixed from two files")
    plain = {part: _plain(part, x, entry) for part, x in parts.items()}
    rows, cols = entry.matrix
    if not entry.size:  # whose other axes may be of any length
        return plain, np.zeros(0, np.int64)
    order = codecs.CODECS[entry.codec].read(plain, entry.fields, rows, cols, entry.stored)
    return plain, order


def _plain(part: str, x: np.ndarray, entry: Entry) -> np.ndarray:
    archived = entry.parts[part]
    if not archived:
        return x
    if x.dtype != np.uint8 or x.ndim != 1:
        raise FormatError(f"its archived part {part} is no line of bytes")
    dtype = DTYPE_OF[archived["dtype"]]
    if np.prod(archived["shape"], dtype=object) * dtype.itemsize > 16 * (entry.size + entry.matrix[1] + 64):
        raise FormatError(f"its archived part {part} claims more than the tensor can need")
    return archive.grow(x, dtype, archived["shape"])


def digest(parts: Mapping[str, np.ndarray]) -> str:
    hashed = hashlib.sha256()
    for part in sorted(parts):
        x = np.ascontiguousarray(parts[part])
        hashed.update(f"{part}:{NAMES[x.dtype]}:{x.shape};".encode())
        hashed.update(x.reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()
