"""How are the numbers stored that are not zero?

As they are (float64, float32, bfloat16, float16), or as int8 or int4 codes with one float32 scale for each output
channel (the last axis): symmetric, rounded to nearest, half to even, so that |w - scale code| <= scale / 2 with scale =
max |w| / 127, or / 7. Codes are -127..127 and -7..7; two int4 codes share a byte, the first in its low half.
"""

import ml_dtypes
import numpy as np

from csp.formats.errors import FormatError

FLOATS = {"f64": np.float64, "f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}
TOP = {"int8": 127, "int4": 7}
TYPES = (*FLOATS, *TOP)
BITS = {"f64": 64, "f32": 32, "bf16": 16, "f16": 16, "int8": 8, "int4": 4}
Parts = dict[str, np.ndarray]


def natural(dtype: np.dtype) -> str:
    """The value type that stores this dtype exactly."""
    for name, known in FLOATS.items():
        if np.dtype(known) == dtype:
            return name
    raise ValueError(f"dtype {dtype} is no real float that csp stores")


def encode(values: np.ndarray, channels: np.ndarray | None, width: int, kind: str) -> Parts:
    """The stored parts of these values; a code needs the output channel of each, `width` in all."""
    if kind in FLOATS:
        return {"values": _rounded(values, kind)}
    assert channels is not None
    top = TOP[kind]
    highest = np.zeros(width, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        np.maximum.at(highest, channels, np.abs(values).astype(np.float32))
    if not np.isfinite(highest).all():
        raise ValueError(f"it has weights that {kind} and a float32 scale cannot hold: store it as {_wide(values)}")
    scale = np.maximum(highest / np.float32(top), np.finfo(np.float32).tiny)
    codes = np.clip(np.rint(values.astype(np.float32) / scale[channels]), -top, top).astype(np.int8)
    return {"values": codes if kind == "int8" else _pack(codes), "scale": scale}


def _rounded(values: np.ndarray, kind: str) -> np.ndarray:
    """As numbers of this type; what becomes zero is +0.0."""
    if values.dtype == FLOATS[kind]:
        return values
    with np.errstate(over="ignore"):
        found = values.astype(FLOATS[kind])
    if (np.isinf(found) & np.isfinite(values)).any():
        raise ValueError(f"it has weights that {kind} cannot hold: store it as {_wide(values)}")
    return positive_zero(found)


def _wide(values: np.ndarray) -> str:
    return "f64" if values.dtype == np.float64 else "bf16 or f32"


def positive_zero(w: np.ndarray) -> np.ndarray:
    negative = np.signbit(w) & (w == 0)
    return np.where(negative, np.zeros((), w.dtype), w) if negative.any() else w


def decode(parts: Parts, count: int, channels: np.ndarray | None, width: int, kind: str, dtype: np.dtype) -> np.ndarray:
    """`count` values; `channels` is needed for the types that have a scale."""
    numbers, scale = stored(parts, count, width, kind)
    if scale is None:
        return numbers.astype(dtype, copy=False)
    assert channels is not None
    return (numbers * scale[channels]).astype(dtype)


def stored(parts: Parts, count: int, width: int, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """`count` floats; or int8 codes, and the scale of each of `width` channels: checked."""
    numbers = parts["values"]
    if kind in FLOATS:
        _expect(numbers.dtype == FLOATS[kind] and numbers.shape == (count,), "values", count)
        return numbers, None
    codes, scale = codes_of(numbers, count, kind), parts["scale"]
    _expect(scale.dtype == np.float32 and scale.shape == (width,), "scale", width)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise FormatError("a scale is zero, negative or not finite")
    return codes, scale


def codes_of(stored: np.ndarray, count: int, kind: str) -> np.ndarray:
    """The int8 codes, one a value, checked."""
    if kind == "int8":
        _expect(stored.dtype == np.int8 and stored.shape == (count,), "values", count)
        codes = stored
    else:
        _expect(stored.dtype == np.uint8 and stored.shape == (-(-count // 2),), "values", count)
        if count % 2 and stored[-1] >> 4:
            raise FormatError("the padding behind the last int4 code is not zero")
        halves = np.stack([stored & 15, stored >> 4], axis=1).reshape(-1)[:count]
        codes = ((halves ^ 8).astype(np.int8) - 8).astype(np.int8)
    if (codes < -TOP[kind]).any():
        raise FormatError(f"a code lies below -{TOP[kind]}")
    return codes


def _pack(codes: np.ndarray) -> np.ndarray:
    halves = np.zeros(len(codes) + len(codes) % 2, np.uint8)
    halves[: len(codes)] = codes.view(np.uint8) & 15
    return halves[::2] | halves[1::2] << 4


def _expect(holds: bool, part: str, count: int) -> None:
    if not holds:
        raise FormatError(f"its {part} are not {count} of the type that the manifest names")
