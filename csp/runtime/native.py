"""Which kernels run here? A library of C++ for this machine's instructions, called through ctypes; see native/api.h.

CSP_KERNELS=vbmi, avx512, avx2, portable or reference forces one. Python's lock is free while a kernel runs.
"""

import ctypes
import functools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from csp.runtime import abi, reference
from csp.runtime.matrix import Coded, Layer, Matrix, Several

LIBRARY = Path(__file__).with_name("_kernels.so")
SETS = ("portable", "avx2", "avx512", "vbmi")  # as library.cpp counts them
LAYOUTS = ("dense", "banks", "quads", "chunks", "masks")
LANES, BANK, CHUNK, BEHIND = 16, 128, 16, 64  # the last: bytes behind the data that a kernel may read
SPREADING = 0.7
_nothing = ctypes.c_char * 0


class Native:
    """The kernels of one instruction set."""

    def __init__(self, library: ctypes.CDLL, table: abi.Table, name: str):
        self.name, self._library = name, library
        self._table = SimpleNamespace(**{name: getattr(table, name) for name in abi.KERNELS})  # looked up once

    def pack(self, coded: Coded, layout: str | None = None) -> Matrix:
        """The layout that takes the fewest bytes, or the one that is asked for.

        Masks take as long as `SPREADING` bytes a weight at least, and where no instruction spreads them far longer.
        """
        if layout is None:
            costs: dict[str, float] = {"dense": _dense_bytes(coded)}
            if coded.order is not None:
                costs |= {name: self._count(coded, name)[0] for name in _sparse_layouts(coded)}
                if self.name == "vbmi" and not coded.floats:
                    costs["masks"] = max(self._count(coded, "masks")[0], SPREADING * coded.inputs * coded.outputs)
            layout = min(costs, key=lambda name: costs[name])
        return self._dense(coded) if layout == "dense" else self._sparse(coded, layout)

    def linear(self, w: Matrix, bias: np.ndarray | None, x_BxI: np.ndarray) -> np.ndarray:
        """x W + bias."""
        x_BxI = _ready(x_BxI, w.inputs)
        y = np.empty((len(x_BxI), w.outputs), np.float32)
        _done(self._table.linear(_held(w), _at(bias), _at(x_BxI), len(x_BxI), _at(y)))
        return y

    def lstm(
        self, w: Matrix, r: Matrix, bias: np.ndarray, x_TxI: np.ndarray, h_H: np.ndarray, c_H: np.ndarray
    ) -> np.ndarray:
        """Every h; h_H and c_H are brought up to date."""
        x_TxI = _ready(x_TxI, w.inputs)
        out = np.empty((len(x_TxI), r.inputs), np.float32)
        packed = _held(w), _held(r)
        _done(self._table.lstm(*packed, _at(bias), _at(x_TxI), len(x_TxI), _at(h_H), _at(c_H), _at(out)))
        return out

    def step(self, gates: np.ndarray, c_H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """h and c after a step with these gates."""
        gates, h_H, c_H = _ready(gates, 4 * len(c_H)), np.empty_like(c_H), c_H.copy()
        self._table.step(_at(gates), len(c_H), _at(h_H), _at(c_H))
        return h_H, c_H

    def norm(
        self, x_TxD: np.ndarray, scale: np.ndarray, bias: np.ndarray, added: np.ndarray | None = None
    ) -> np.ndarray:
        x_TxD = _ready(x_TxD, len(scale))
        added = None if added is None else _ready(added, len(scale))
        out = np.empty_like(x_TxD)
        self._table.norm(_at(x_TxD), *x_TxD.shape, _at(scale), _at(bias), _at(added), _at(out))
        return out

    def tanh_of_sum(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = _ready(a, a.shape[-1]), _ready(b, a.shape[-1])
        out = np.empty_like(a)
        self._table.tanh_of_sum(_at(a), _at(b), a.size, _at(out))
        return out

    def silu(self, x: np.ndarray) -> np.ndarray:
        x = _ready(x, x.shape[-1])
        out = np.empty_like(x)
        self._table.silu(_at(x), x.size, _at(out))
        return out

    def gate(self, x_TxD: np.ndarray) -> np.ndarray:
        x_TxD = _ready(x_TxD, x_TxD.shape[-1])
        out = np.empty((len(x_TxD), x_TxD.shape[1] // 2), np.float32)
        self._table.gate(_at(x_TxD), *out.shape, _at(out))
        return out

    def depthwise(self, x_TxD: np.ndarray, taps_KxD: np.ndarray) -> np.ndarray:
        """Sums of K rows in turn: K - 1 rows fewer than x has."""
        x_TxD = _ready(x_TxD, taps_KxD.shape[1])
        out = np.empty((len(x_TxD) - len(taps_KxD) + 1, x_TxD.shape[1]), np.float32)
        self._table.depthwise(_at(x_TxD), *out.shape, _at(taps_KxD), len(taps_KxD), _at(out))
        return out

    def attend(self, q_RxHxE: np.ndarray, memory: np.ndarray, counts_R: np.ndarray) -> np.ndarray:
        """Scaled dot products, [R, heads x size]: row r sees the first counts[r] places.

        The memory is [R, 2, places, heads, size], keys and values, or without the R if all rows share it.
        """
        (rows, heads, size), most = q_RxHxE.shape, memory.shape[-3]
        stride = 2 * most * heads * size if memory.ndim == 5 else 0
        right = memory.shape[-2:] == (heads, size) and memory.shape[:-3] in ((rows, 2), (2,)) and len(counts_R) == rows
        if not right or (rows and not 0 < counts_R.min() <= counts_R.max() <= most):
            raise ValueError(f"{rows} rows do not fit a memory of shape {memory.shape}")
        q_RxHxE, memory = np.ascontiguousarray(q_RxHxE, np.float32), np.ascontiguousarray(memory, np.float32)
        counts_R, out = np.ascontiguousarray(counts_R, np.int64), np.empty((rows, heads * size), np.float32)
        places = (_at(q_RxHxE), _at(memory), _at(counts_R))
        _done(self._table.attend(*places, rows, most, heads, size, stride, _at(out)))
        return out

    def several(self, *layers: Layer) -> Several:
        """Layers that `project` takes, equal in their sizes; or the two of `feed`."""
        for w, _ in layers:
            if len(w) > 2 or (len(w) == 2 and w[0].outputs != w[1].inputs):
                raise ValueError(f"{len(w)} matrices do not fit together as two factors")
        rows = [(_held(w[0]) if len(w) > 1 else None, _held(w[-1]), _address(bias)) for w, bias in layers]
        array = (abi.Layer * len(rows))(*rows)
        return Several(layers[0][0][0].inputs, layers[-1][0][-1].outputs, (array, layers))

    def project(self, x_TxD: np.ndarray, scale: np.ndarray, bias: np.ndarray, layers: Several) -> np.ndarray:
        """[layer, T, outputs] of the norm of x."""
        x_TxD, count = _ready(x_TxD, layers.inputs), len(layers.held[0])
        out = np.empty((count, len(x_TxD), layers.outputs), np.float32)
        places = _at(x_TxD), *x_TxD.shape, _at(scale), _at(bias), layers.held[0]
        _done(self._table.project(*places, count, _at(out)))
        return out

    def feed(
        self, x_TxD: np.ndarray, scale: np.ndarray, bias: np.ndarray, two: Several, share: float = 1.0
    ) -> np.ndarray:
        """x, and `share` of a feed-forward network of it: a norm, a layer, silu, a layer."""
        x_TxD = _ready(x_TxD, two.inputs)
        out = np.empty_like(x_TxD)
        places = _at(x_TxD), *x_TxD.shape, _at(scale), _at(bias), two.held[0]
        _done(self._table.feed(*places, share, _at(out)))
        return out

    def rotate(self, x_TxHxE: np.ndarray, cos_TxE: np.ndarray, sin_TxE: np.ndarray) -> np.ndarray:
        """Pairs (i, i + E / 2) turned."""
        x_TxHxE = np.array(x_TxHxE, np.float32)
        cos_TxE, sin_TxE = (_ready(x, x_TxHxE.shape[-1] // 2) for x in (cos_TxE, sin_TxE))
        if not len(x_TxHxE) == len(cos_TxE) == len(sin_TxE):
            raise ValueError(f"{len(cos_TxE)} angles for {len(x_TxHxE)} rows")
        self._table.rotate(_at(x_TxHxE), *x_TxHxE.shape, _at(cos_TxE), _at(sin_TxE))
        return x_TxHxE

    def _dense(self, coded: Coded) -> Matrix:
        data, sums = np.zeros(_dense_bytes(coded), np.uint8), np.zeros(_padded(coded.outputs), np.int32)
        values = np.ascontiguousarray(coded.dense().reshape(-1))
        said = self._values(coded, "dense", values)
        self._library.csp_fill_dense(ctypes.byref(said), abi.pointer(_address(data)), abi.pointer(_address(sums)))
        return self._matrix(coded, "dense", data, None, sums)

    def _sparse(self, coded: Coded, layout: str) -> Matrix:
        total, living, steps = self._count(coded, layout)
        data, sums = np.zeros(total + BEHIND, np.uint8), np.zeros(_padded(coded.outputs), np.int32)
        said = self._values(coded, layout, coded.values)
        pointers = [abi.pointer(_address(array)) for array in (living, steps, data, sums)]
        _done(self._library.csp_fill(ctypes.byref(said), *pointers))
        return self._matrix(coded, layout, data, None if layout == "masks" else steps, sums)

    def _count(self, coded: Coded, layout: str) -> tuple[int, np.ndarray, np.ndarray]:
        """Bytes of the data, what lives in each lane of each tile, and how many steps each tile takes."""
        tiles = _padded(coded.outputs) // LANES * -(-coded.inputs // BANK)
        counts = _padded(coded.outputs) if layout == "chunks" else tiles
        living, steps = np.empty(tiles * LANES * (4 if layout == "masks" else 1), np.uint32), np.empty(counts, np.uint8)
        said = self._values(coded, layout, coded.values)
        total = self._library.csp_count(ctypes.byref(said), abi.pointer(_address(living)), abi.pointer(_address(steps)))
        if total < 0:
            raise ValueError("a place lies beyond the matrix, or is taken twice")
        return total, living, steps

    def _values(self, coded: Coded, layout: str, values: np.ndarray) -> abi.Values:
        order = None if layout == "dense" else coded.order
        numbers = (LAYOUTS.index(layout), coded.floats, coded.inputs, coded.outputs)
        return abi.Values(_address(order), _address(values), len(values), *numbers)

    def _matrix(
        self, coded: Coded, layout: str, data: np.ndarray, steps: np.ndarray | None, sums: np.ndarray
    ) -> Matrix:
        scale = np.zeros(len(sums), np.float32)
        if coded.scale is not None:
            scale[: coded.outputs] = coded.scale
        numbers = (LAYOUTS.index(layout), coded.floats, coded.inputs, coded.outputs)
        packed = abi.Packed(*numbers, *map(_address, (data, steps, scale, sums)))
        arrays = tuple(array for array in (data, steps, scale, sums) if array is not None)
        nbytes = sum(array.nbytes for array in arrays)
        return Matrix(coded.inputs, coded.outputs, layout, nbytes, (packed, arrays))  # which it points into


Kernels = Native | reference.Reference


@functools.cache
def kernels(name: str | None = None) -> Kernels:
    """The fastest that this machine can run, or the one of this name; without the library, those of NumPy."""
    name = name or os.environ.get("CSP_KERNELS") or None
    if name is not None and name not in (*SETS, "reference"):
        raise ValueError(f"CSP_KERNELS={name} is none of {', '.join((*SETS, 'reference'))}")
    if name == "reference":
        return reference.Reference()
    found = {} if _library() is None else _found()
    if name is not None:
        if name not in found:
            raise ValueError(f"CSP_KERNELS={name} cannot run here: {why_not() or ', '.join(found) + ' can'}")
        return found[name]
    return found[SETS[max(map(SETS.index, found))]] if found else reference.Reference()


def why_not() -> str:
    """Why the library is not used, in a line; nothing if it is."""
    if not LIBRARY.exists():
        return "csp's kernels were not built (no C++ compiler at pip install): NumPy does their work, slowly"
    return (
        "" if _library() else "csp's kernels are older than their sources, pip install csp again: NumPy does their work"
    )


def _found() -> dict[str, Native]:
    library = _library()
    assert library is not None
    tables = {name: library.csp_kernels(number) for number, name in enumerate(SETS)}
    return {name: Native(library, abi.Table.from_address(at), name) for name, at in tables.items() if at}


@functools.cache
def _library() -> ctypes.CDLL | None:
    if not LIBRARY.exists():
        return None
    library = ctypes.CDLL(str(LIBRARY))
    library.csp_source.restype = ctypes.c_char_p
    if library.csp_source().decode() != source_digest(LIBRARY.parent / "native"):
        return None
    library.csp_kernels.restype = abi.pointer
    library.csp_count.restype = ctypes.c_int64
    return library


def source_digest(folder: Path) -> str:
    """As build.py computes it, which is imported without csp."""
    import hashlib

    hashed = hashlib.blake2b(digest_size=16)
    for path in sorted([*folder.glob("*.cpp"), *folder.glob("*.h")]):
        hashed.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return hashed.hexdigest()


def _held(w: Matrix) -> int:
    return ctypes.addressof(w.held[0])


def _padded(outputs: int) -> int:
    return -(-outputs // LANES) * LANES


def _sparse_layouts(coded: Coded) -> tuple[str, ...]:
    """Those that can hold it: floats have one, and a byte numbers a chunk and counts those of an output."""
    if coded.floats:
        return ("banks",)
    return ("banks", "quads", "chunks") if coded.inputs < 256 * CHUNK else ("banks", "quads")


def _dense_bytes(coded: Coded) -> int:
    inputs = 4 * coded.inputs if coded.floats else -(-coded.inputs // 4) * 4
    return inputs * _padded(coded.outputs)


def _ready(x: np.ndarray, width: int) -> np.ndarray:
    if x.shape[-1] != width:
        raise ValueError(f"rows of {x.shape[-1]} numbers, where {width} are expected")
    return np.ascontiguousarray(x, np.float32)


def _at(x: np.ndarray | None) -> Any:
    """What ctypes passes as a pointer to an array; thrice as fast as asking NumPy for the address."""
    if x is None or not x.flags.writeable:
        return _address(x)
    return _nothing.from_buffer(x)  # pyrefly: ignore[bad-argument-type]


def _address(x: np.ndarray | None) -> int | None:
    return None if x is None else x.__array_interface__["data"][0]


def _done(code: int) -> None:
    if code:
        raise MemoryError("not enough memory to run the model")
