"""How are small numbers packed into bytes? The first number in the lowest bits, without gaps."""

import numpy as np

from csp.formats.errors import FormatError


def pack(numbers: np.ndarray, width: int) -> np.ndarray:
    """Numbers below 2^width (at most 8 bits), `width` bits each."""
    if width == 0:
        return np.zeros(0, np.uint8)
    if width == 8:
        return numbers.astype(np.uint8)
    eights = np.zeros((-(-len(numbers) // 8), 8), np.uint8)  # of which each fills `width` whole bytes
    eights.reshape(-1)[: len(numbers)] = numbers
    words = np.zeros(len(eights), np.uint64)
    for place in range(8):
        words |= eights[:, place].astype(np.uint64) << np.uint64(place * width)
    packed = words.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :width].reshape(-1)
    return packed[: -(-len(numbers) * width // 8)]


def positions(keep: np.ndarray) -> np.ndarray:
    """np.flatnonzero, without its slow path between 3 and 10 % of density: more than a tenth set takes the fast one."""
    flat = keep.reshape(-1)
    count = np.count_nonzero(flat)
    if not 0.03 < count / max(flat.size, 1) <= 0.1:
        return np.flatnonzero(flat)
    padded = np.ones(flat.size + flat.size // 9 + 1, bool)
    padded[: flat.size] = flat
    return np.flatnonzero(padded)[:count]


def unpack(packed: np.ndarray, count: int, width: int) -> np.ndarray:
    """The inverse of `pack`; refuses another length, and bits behind the last number."""
    if packed.dtype != np.uint8 or packed.shape != (-(-count * width // 8),):
        raise FormatError(f"{packed.size} bytes do not hold {count} numbers of {width} bits")
    if width == 0:
        return np.zeros(count, np.uint8)
    if (count * width) % 8 and packed[-1] >> (count * width) % 8:
        raise FormatError("the padding behind the last bit is not zero")
    if width == 8:
        return packed
    if width == 1:
        return np.unpackbits(packed, count=count, bitorder="little")
    eights = -(-count // 8)
    spread = np.zeros((eights, 8), np.uint8)
    whole = len(packed) // width
    spread[:whole, :width] = packed[: whole * width].reshape(-1, width)
    spread[whole:, : len(packed) - whole * width] = packed[whole * width :]
    words = spread.view("<u8")[:, 0]
    numbers = np.empty((eights, 8), np.uint8)
    for place in range(8):
        numbers[:, place] = words >> np.uint64(place * width) & np.uint64(2**width - 1)
    return numbers.reshape(-1)[:count]
