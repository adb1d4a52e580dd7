"""How are small numbers packed into bytes? The first number in the lowest bits, without gaps."""

import numpy as np

from csp.formats.errors import FormatError


def pack(numbers: np.ndarray, width: int) -> np.ndarray:
    """Numbers below 2^width (at most 8 bits), `width` bits each."""
    if width == 0:
        return np.zeros(0, np.uint8)
    if width == 8:
        return numbers.astype(np.uint8)
    bits = np.unpackbits(numbers.astype(np.uint8)[:, None], axis=1, count=width, bitorder="little")
    return np.packbits(bits, bitorder="little")


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
    bits = np.unpackbits(packed, count=count * width, bitorder="little").reshape(count, width)
    return np.packbits(bits, axis=1, bitorder="little")[:, 0]
