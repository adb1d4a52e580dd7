"""What does a safetensors header declare, and may it be believed?

The file is eight bytes of length, that many bytes of JSON, and the data. Everything is checked before any memory is
allocated for it: the official reader accepts repeated keys, and this one must not.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from csp.formats.errors import FormatError

METADATA = "__metadata__"
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1}
SIZES |= {"U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1}
LONGEST = 64 * 2**20  # bytes of header; a model of a thousand tensors has less than one
LARGEST = 2**48  # entries along all axes that are not empty
LONGEST_NUMBER = 1000  # digits of an integer, whose cost grows with their square
_UNSAFE = re.compile(r"(^|/)\.\.?(/|$)|^/|\\|[\x00-\x1f\x7f]|^$")


class Piece(NamedTuple):
    """One array of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int  # in bytes, from the start of the data
    end: int


class Header(NamedTuple):
    pieces: dict[str, Piece]
    metadata: dict[str, str]
    start: int  # of the data, in the file


def parse(head: bytes, size: int) -> Header:
    """The header of a file of `size` bytes, from its first bytes: eight, and as many as they say."""
    length = header_length(head, size)
    declared = strict_json(head[8 : 8 + length], "header")
    if not isinstance(declared, dict):
        raise FormatError("the header is no JSON object")
    metadata = declared.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"{METADATA} is no object of strings")
    pieces = {name: _piece(name, fields) for name, fields in declared.items()}
    _check_layout(pieces, size - 8 - length)
    return Header(pieces, metadata, 8 + length)


def header_length(head: bytes, size: int) -> int:
    if size < 8 or len(head) < 8:
        raise FormatError(f"{size} bytes are too few for a safetensors file")
    length = int.from_bytes(head[:8], "little")
    if length > min(size - 8, LONGEST):
        raise FormatError(f"the header claims {length} bytes, the file has {size}: truncated, or no safetensors file")
    return length


def strict_json(text: bytes, what: str) -> Any:
    """JSON without repeated keys, NaN, numbers that are too long, or depth that exhausts the stack."""
    hooks: dict[str, Any] = {"object_pairs_hook": _once, "parse_constant": _no_constant}
    try:
        return json.loads(text.decode("utf-8"), parse_int=_integer, parse_float=_finite, **hooks)
    except UnicodeDecodeError as error:
        raise FormatError(f"the {what} is no UTF-8, from byte {error.start}") from None
    except RecursionError:
        raise FormatError(f"the {what} is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise FormatError(f"the {what} is no JSON: {error.msg} at character {error.pos}") from None


def write_header(pieces: Mapping[str, Piece], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, padded with spaces so that the data begins at a multiple of eight."""
    declared: dict[str, Any] = {METADATA: dict(metadata)}
    for name, piece in pieces.items():
        check_name(name)
        fields = {"dtype": piece.dtype, "shape": list(piece.shape), "data_offsets": [piece.begin, piece.end]}
        declared[name] = fields
    text = json.dumps(declared, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def check_name(name: str) -> None:
    if _UNSAFE.search(name):
        raise FormatError(f"{name!r} is no name of a tensor: it is empty, or could be taken for a path outside")


def entries(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


def check_shape(name: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
        raise FormatError(f"{name!r}: shape {str(shape)[:60]} is no list of sizes")
    if math.prod(n or 1 for n in shape) > LARGEST:
        raise FormatError(f"{name!r}: shape {str(shape)[:60]} is larger than any memory")
    return tuple(shape)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise FormatError(f"the key {twice!r} stands twice in one object")
    return found


def _no_constant(name: str) -> None:
    raise FormatError(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise FormatError(f"an integer of {len(digits)} digits is beyond all reason")
    return int(digits)


def _finite(digits: str) -> float:
    if math.isinf(found := float(digits)):
        raise FormatError(f"{digits[:20]} is beyond all numbers")
    return found


def _piece(name: str, fields: Any) -> Piece:
    check_name(name)
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{name!r} has other fields than dtype, shape and data_offsets")
    dtype, offsets = fields["dtype"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise FormatError(f"{name!r} has dtype {str(dtype)[:20]!r}, which csp does not read")
    shape = check_shape(name, fields["shape"])
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in offsets):
        raise FormatError(f"{name!r}: data_offsets {str(offsets)[:60]} are no two positions")
    begin, end = offsets
    if end - begin != entries(shape) * SIZES[dtype]:
        raise FormatError(f"{name!r} takes {end - begin} bytes, and its shape {entries(shape) * SIZES[dtype]}")
    return Piece(dtype, shape, begin, end)


def _check_layout(pieces: dict[str, Piece], size: int) -> None:
    """One piece begins where another ends: no holes, no overlaps, nothing behind the last."""
    at = 0
    for name, piece in sorted(pieces.items(), key=lambda item: (item[1].begin, item[1].end)):
        if piece.begin != at:
            raise FormatError(f"{name!r} begins at byte {piece.begin}, where {at} was expected: a hole or an overlap")
        at = piece.end
    if at != size:
        raise FormatError(f"the tensors take {at} bytes, the file has {size}: truncated, or more is hidden in it")
