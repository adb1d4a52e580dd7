"""What does the library of kernels look like to ctypes? Its structures and its table of functions; see native/api.h."""

import ctypes
from typing import Any

pointer = ctypes.c_void_p


class Packed(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int32) for name in ("layout", "floats", "inputs", "outputs")]
    _fields_ += [(name, pointer) for name in ("data", "steps", "scale", "sums")]


class Values(ctypes.Structure):
    _fields_ = [("order", pointer), ("values", pointer), ("count", ctypes.c_int64)]
    _fields_ += [(name, ctypes.c_int32) for name in ("layout", "floats", "inputs", "outputs")]


class Layer(ctypes.Structure):
    _fields_ = [(name, pointer) for name in ("first", "last", "bias")]


_long = ctypes.c_int64
KERNELS: dict[str, tuple[Any, ...]] = {
    "linear": (ctypes.c_int, pointer, pointer, pointer, _long, pointer),
    "lstm": (ctypes.c_int, pointer, pointer, pointer, pointer, _long, pointer, pointer, pointer),
    "step": (None, pointer, _long, pointer, pointer),
    "norm": (None, pointer, _long, _long, pointer, pointer, pointer, pointer),
    "tanh_of_sum": (None, pointer, pointer, _long, pointer),
    "silu": (None, pointer, _long, pointer),
    "gate": (None, pointer, _long, _long, pointer),
    "depthwise": (None, pointer, _long, _long, pointer, _long, pointer),
    "attend": (ctypes.c_int, pointer, pointer, pointer, _long, _long, _long, _long, _long, pointer),
    "project": (ctypes.c_int, pointer, _long, _long, pointer, pointer, pointer, _long, pointer),
    "feed": (ctypes.c_int, pointer, _long, _long, pointer, pointer, pointer, ctypes.c_float, pointer),
    "rotate": (None, pointer, _long, _long, _long, pointer, pointer),
}


class Table(ctypes.Structure):
    _fields_ = [(name, ctypes.CFUNCTYPE(*types)) for name, types in KERNELS.items()]
