"""The weights as an ONNX model, for tools that read nothing else; written by hand, which takes no library.

Every tensor is an initializer, sparse where that is smaller (an entry takes eight bytes of index), and an output of the
graph of the same name with "/value" behind it, so that any runtime can hand it out. What the network computes from them
is not in the file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from csp.formats import trees, values, writing

_TYPES = {"f32": 1, "f16": 10, "f64": 11, "bf16": 16}
_INT64, _INT8 = 7, 3
_IR, _OPSET = 8, 17


def save(path: str | Path, params: Any, about: Mapping[str, str] | None = None, *, overwrite: bool = False) -> Path:
    """Writes a tree of float arrays as an ONNX model, whole or not at all; factors are multiplied out."""
    flat = trees.flatten(params)
    graph = b"".join(_graph({name: trees.dense(leaf) for name, leaf in flat.items()}))
    model = _number(1, _IR) + _text(2, "csp") + _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, _OPSET))
    model += b"".join(_bytes(14, _text(1, key) + _text(2, value)) for key, value in (about or {}).items())
    writing.atomically(Path(path), [model], overwrite)
    return Path(path)


def quantised_product(codes: np.ndarray) -> bytes:
    """The model y = x W with x quantised as it comes, W of int8 codes without a scale: for comparisons of speed."""
    rows, cols = codes.shape
    nodes = [
        ("DynamicQuantizeLinear", ("x",), ("q", "scale", "zero")),
        ("MatMulInteger", ("q", "w", "zero"), ("sums",)),
        ("Cast", ("sums",), ("floats",)),
        ("Mul", ("floats", "scale"), ("y",)),
    ]
    to_float = _bytes(5, _text(1, "to") + _number(3, _TYPES["f32"]) + _number(20, 2))
    graph = b"".join(
        _bytes(
            1,
            b"".join([_text(1, x) for x in given] + [_text(2, y) for y in made] + [_text(4, name)])
            + (to_float if name == "Cast" else b""),
        )
        for name, given, made in nodes
    )
    graph += _text(2, "product") + _bytes(5, _tensor("w", _INT8, codes))
    graph += _bytes(11, _value("x", (1, rows))) + _bytes(12, _value("y", (1, cols)))
    return _number(1, _IR) + _text(2, "csp") + _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, _OPSET))


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(_bytes(1, _number(1, n)) for n in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, _TYPES["f32"]) + _bytes(2, sizes)))


def _graph(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    for name in arrays:
        yield _bytes(1, _text(1, name) + _text(2, f"{name}/value") + _text(3, name) + _text(4, "Identity"))
    yield _text(2, "weights")
    for name, w in arrays.items():
        kind, order = _TYPES[values.natural(w.dtype)], np.flatnonzero(w)
        if len(order) * (w.itemsize + 8) < w.nbytes:
            stored = _tensor(name, kind, w.reshape(-1)[order]), _tensor("", _INT64, order.astype("<i8"))
            yield _bytes(15, _bytes(1, stored[0]) + _bytes(2, stored[1]) + _dims(3, w.shape))
        else:
            yield _bytes(5, _tensor(name, kind, values.positive_zero(w)))
    for name, w in arrays.items():
        sizes = b"".join(_bytes(1, _number(1, n)) for n in w.shape)
        kind = _number(1, _TYPES[values.natural(w.dtype)])
        yield _bytes(12, _text(1, f"{name}/value") + _bytes(2, _bytes(1, kind + _bytes(2, sizes))))


def _tensor(name: str, kind: int, x: np.ndarray) -> bytes:
    said = _text(8, name) if name else b""
    return _dims(1, x.shape) + _number(2, kind) + said + _bytes(9, np.ascontiguousarray(x).tobytes())


def _dims(field: int, shape: tuple[int, ...]) -> bytes:
    return b"".join(_number(field, n) for n in shape)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
