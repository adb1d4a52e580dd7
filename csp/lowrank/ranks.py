"""How many directions may each matrix keep?

Rank r costs r (in + out) numbers instead of in * out. All counts are Python integers: budgets are exact.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from csp.structures import exact


class Option(NamedTuple):
    """One way to store a tensor. The full rank means: as it is, dense."""

    rank: int
    bytes: int
    energy: float


def worthwhile(shape: Sequence[int], rank: int) -> bool:
    """Whether factors of this rank are smaller than the matrix: rank < in * out / (in + out)."""
    return rank <= _largest_worthwhile(shape)


def ranks_for_budget(spectra: Mapping[str, Any], tensors: Mapping[str, Any], budget: int) -> dict[str, int]:
    """One rank for each tensor from one global budget: the most energy per byte first (water-filling).

    Every tensor begins at rank 1. The next rank always goes where it adds the most energy s_r^2 for its (in + out)
    numbers, among the tensors where it fits. After the last worthwhile rank comes the dense tensor with all its
    energy: no tensor stays dense at the price of ranks that are worth more elsewhere.

    Singular values of different tensors are comparable only when each spectrum has been divided by the norm of its
    own tensor, `s / |s|`: then the energy is a fraction of the tensor's.

    Args:
        spectra: the singular values of each tensor by path, [..., k], plain or whitened (`spectrum`). A spectrum
            shorter than min(in, out) is that of a tensor already factored and bounds its rank by k.
        tensors: what has the shape [..., in, out] and the dtype of each dense tensor, by the same paths.
        budget: the bytes of all tensors together.

    Returns:
        A rank by path; min(in, out) says that the tensor stays dense. The bytes are at most the budget and no
        single further rank fits. While no tensor is dense, no other choice of worthwhile ranks in the budget keeps
        more energy than this one and the first rank that did not fit together.
    """
    if set(spectra) != set(tensors):
        raise ValueError(f"spectra and tensors differ in the paths {sorted(set(spectra) ^ set(tensors))}: give both")
    check_budget(tensors, budget)
    options = {path: _options(path, np.asarray(spectra[path], np.float64), tensors[path]) for path in spectra}
    taken = dict.fromkeys(options, 0)
    left = budget - sum(steps[0].bytes for steps in options.values())
    queue = [_offer(path, steps, 0) for path, steps in options.items() if len(steps) > 1]
    heapq.heapify(queue)
    while queue:
        _, path, cost = heapq.heappop(queue)
        if cost <= left:
            left -= cost
            taken[path] += 1
            if taken[path] + 1 < len(options[path]):
                heapq.heappush(queue, _offer(path, options[path], taken[path]))
    return {path: options[path][step].rank for path, step in taken.items()}


def check_budget(tensors: Mapping[str, Any], budget: int) -> None:
    """Raises a ValueError that names the smallest possible budget when this one is smaller."""
    floor = sum(_smallest_bytes(tensor) for tensor in tensors.values())
    total = sum(dense_bytes(tensor) for tensor in tensors.values())
    if budget < floor:
        fraction = math.ceil(10_000 * floor / total) / 10_000
        raise ValueError(
            f"{budget} bytes cannot hold rank 1 of every tensor, which takes {floor} bytes: "
            f"the smallest possible fraction of the dense bytes is {fraction}"
        )


def dense_bytes(tensor: Any) -> int:
    """The bytes of the tensor when it is stored as it is."""
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def share(fraction: float, total: int) -> int:
    """The largest integer that is at most this fraction of the total."""
    return math.floor(exact(fraction) * total)


def _options(path: str, spectrum: np.ndarray, tensor: Any) -> list[Option]:
    full = min(tensor.shape[-2:])
    if not 1 <= spectrum.shape[-1] <= full:
        raise ValueError(f"{path} of shape {tensor.shape} has 1 to {full} singular values, not {spectrum.shape[-1]}")
    if not np.all(np.isfinite(spectrum)):
        raise ValueError(f"{path} has no finite singular values: mend the NaN or inf in it or in its Gram matrix")
    energy = np.cumsum(np.square(spectrum).reshape(-1, spectrum.shape[-1]).sum(0))
    unit = _rank_bytes(tensor)
    ranks = range(1, min(len(energy), _largest_worthwhile(tensor.shape)) + 1)
    options = [Option(rank, rank * unit, energy[rank - 1]) for rank in ranks]
    if len(energy) == full:
        options.append(Option(full, dense_bytes(tensor), energy[-1]))
    return options


def _offer(path: str, options: list[Option], step: int) -> tuple[float, str, int]:
    here, there = options[step : step + 2]
    cost = there.bytes - here.bytes
    return (here.energy - there.energy) / cost, path, cost


def _largest_worthwhile(shape: Sequence[int]) -> int:
    n_in, n_out = shape[-2:]
    return (n_in * n_out - 1) // (n_in + n_out)


def _rank_bytes(tensor: Any) -> int:
    *lead, n_in, n_out = tensor.shape
    return math.prod(lead) * (n_in + n_out) * tensor.dtype.itemsize


def _smallest_bytes(tensor: Any) -> int:
    return _rank_bytes(tensor) if worthwhile(tensor.shape, 1) else dense_bytes(tensor)
