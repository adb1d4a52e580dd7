"""How can floats be added so that the order does not matter, to the bit?

On a mesh every device adds what it has, and the sums of devices are added: another order than that of one device, other
roundings, and where two units are worth nearly the same another mask. Numbers that are multiples of one power of two,
and not too many, are added without rounding at all; so each number is cut into pieces that are, and the exact sums of
the pieces are added in one order.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

_PIECES = 30  # bits of the largest number that count


def total(x: jax.Array, axis: int | Sequence[int]) -> jax.Array:
    """The sum along these axes, whatever the order: within 2^-30 of the largest number of all, each, and a rounding."""
    axes = [axis] if isinstance(axis, int) else list(axis)
    count = math.prod(x.shape[a] for a in axes)
    carry = max(count - 1, 1).bit_length() + 1  # bits that the sum needs beyond those of a piece
    bits = max(jnp.finfo(x.dtype).nmant - carry, 1)
    _, exponent = jnp.frexp(jnp.max(jnp.abs(x), initial=0))
    sums = jnp.zeros((), x.dtype)
    for piece in range(-(-_PIECES // bits)):
        grid = jnp.ldexp(jnp.asarray(1.5, x.dtype), exponent + carry - piece * bits)
        part = (x + grid) - grid  # the multiple of the grid's last bit that is nearest to x
        sums, x = sums + jnp.sum(part, axis=tuple(axes)), x - part
    return sums
