"""How do numbers compare as integers?

The bits of a float are a sign and, read as an integer, the order of its magnitude. Comparing integers is exact where
floating comparisons are not: the CPU's flush subnormal numbers to zero.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def key_range(dtype: np.dtype) -> tuple[int, int]:
    """The keys of NaN and of infinity; or of the least and of the greatest integer."""
    if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize > 1:
        infinity = int(np.array(np.inf, dtype).view(f"uint{8 * dtype.itemsize}"))
        return -infinity - 1, infinity
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"{dtype} values cannot be ranked: cast them to float32")
    info = jnp.iinfo(dtype if dtype.itemsize < 4 else f"int{8 * dtype.itemsize}")
    return int(info.min), int(info.max)


def key(x: Array) -> Array:
    """An int32 or int64 that orders as x does: -0.0 and +0.0 are one, and NaN is next below -inf."""
    lowest, highest = key_range(x.dtype)
    wide = jnp.int64 if x.dtype.itemsize == 8 else jnp.int32
    if jnp.issubdtype(x.dtype, jnp.floating):
        bits = lax.bitcast_convert_type(x, f"int{8 * x.dtype.itemsize}").astype(wide)
        magnitude = bits & (2 ** (8 * x.dtype.itemsize - 1) - 1)
        return jnp.where(magnitude > highest, lowest, jnp.where(bits < 0, -magnitude, magnitude))
    if jnp.issubdtype(x.dtype, jnp.unsignedinteger) and x.dtype.itemsize >= 4:
        return lax.bitcast_convert_type(x, wide) ^ lowest
    return x.astype(wide)


def size_key(x: Array) -> Array:
    """The key of abs(x)."""
    return key(jnp.abs(x))


def number(key: Array, dtype: np.dtype) -> Array:
    """The number that has this key."""
    if jnp.issubdtype(dtype, jnp.floating):
        bits = jnp.where(key < 0, -(2 ** (8 * dtype.itemsize - 1)) - key, key)
        return lax.bitcast_convert_type(bits.astype(f"int{8 * dtype.itemsize}"), dtype)
    if jnp.issubdtype(dtype, jnp.unsignedinteger) and dtype.itemsize >= 4:
        return lax.bitcast_convert_type(key ^ key_range(dtype)[0], dtype)
    return key.astype(dtype)
