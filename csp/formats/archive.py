"""How close to its entropy can a part be stored? Huffman codes over bytes, by zlib, which every machine has.

Gaps and quantised values are independent draws from a skewed distribution: there are no repetitions for a dictionary to
find, and a Huffman code alone comes within a few per cent of the entropy. Arrays of wider numbers are stored byte plane
by byte plane, so that exponents meet exponents.
"""

import zlib

import numpy as np

from csp.formats.errors import FormatError


def shrink(x: np.ndarray) -> np.ndarray:
    """The bytes that `grow` understands."""
    planes = np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(-1, x.dtype.itemsize).T
    coder = zlib.compressobj(level=9, strategy=zlib.Z_HUFFMAN_ONLY)
    return np.frombuffer(coder.compress(planes.tobytes()) + coder.flush(), np.uint8)


def grow(packed: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The array, or an error: never more bytes than it has, and never fewer."""
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    coder = zlib.decompressobj()
    try:
        plain = coder.decompress(packed.tobytes(), size + 1)
        rest = coder.unconsumed_tail or coder.unused_data
    except zlib.error as error:
        raise FormatError(f"its archive is damaged: {error}") from None
    if len(plain) != size or not coder.eof or rest:
        raise FormatError(f"its archive does not hold the {size} bytes that the manifest names")
    planes = np.frombuffer(plain, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype).reshape(shape)
