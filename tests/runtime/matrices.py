"""Matrices to multiply by, of every kind that csp stores."""

import numpy as np

from csp.runtime.matrix import Coded

SIZES = ((1, 1), (7, 11), (128, 16), (160, 512), (300, 37), (1024, 64))


def keep(kind: str, inputs: int, outputs: int, rng: np.random.Generator) -> np.ndarray:
    """Where the weights stand."""
    if kind == "entries":
        return rng.random((inputs, outputs)) < 0.1
    if kind == "half":
        return rng.random((inputs, outputs)) < 0.5
    if kind == "dense":
        return np.ones((inputs, outputs), bool)
    if kind == "nothing":
        return np.zeros((inputs, outputs), bool)
    if kind == "blocks":
        return np.repeat(rng.random((-(-inputs // 16), outputs)) < 0.1, 16, axis=0)[:inputs]
    found = np.zeros((inputs, outputs), bool)  # 12 of 128
    for first in range(0, inputs, 128):
        size = min(128, inputs - first)
        place = np.argsort(rng.random((size, outputs)), axis=0)[: -(-12 * size // 128)]
        found[first + place, np.arange(outputs)] = True
    return found


KINDS = ("entries", "half", "dense", "nothing", "blocks", "12:128")


def coded(kind: str, inputs: int, outputs: int, floats: bool, seed: int = 0) -> Coded:
    rng = np.random.default_rng(seed)
    order = np.flatnonzero(keep(kind, inputs, outputs, rng))
    if floats:
        return Coded(inputs, outputs, rng.normal(size=len(order)).astype(np.float32), None, order)
    codes = rng.integers(-127, 128, len(order)).astype(np.int8)
    return Coded(inputs, outputs, codes, rng.uniform(1e-3, 1e-2, outputs).astype(np.float32), order)
