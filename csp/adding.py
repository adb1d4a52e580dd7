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

_BITS = 30  # bits of the largest number that count


def total(x: jax.Array, axis: int | Sequence[int]) -> jax.Array:
    """The sums along these axes, whatever the order: within 2^-30 of each one's largest number, and a rounding."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    count = math.prod(x.shape[a] for a in axes)
    carry = max(count - 1, 1).bit_length() + 1  # bits that the sum needs beyond those of a piece
    bits = max(jnp.finfo(x.dtype).nmant - carry, 1)
    largest = jnp.max(jnp.abs(x), axes, keepdims=True, initial=0)
    _, exponent = jnp.frexp(largest)
    unknown = jnp.where(exponent > 2**20, 1, 0)  # zero, but a compiler that knew the grid would cancel it
    sums, left = jnp.zeros((), x.dtype), jnp.ldexp(x, -exponent)  # of at most 1
    for piece in range(-(-_BITS // bits)):
        grid = jnp.ldexp(jnp.asarray(1.5, x.dtype), carry - piece * bits + unknown)
        part = (left + grid) - grid  # the multiple of the grid's last bit that is nearest
        sums, left = sums + jnp.sum(part, axis=axes), left - part
    largest, exponent = jnp.squeeze(largest, axes), jnp.squeeze(exponent, axes)
    return jnp.where(jnp.isfinite(largest), jnp.ldexp(sums, exponent), jnp.sum(x, axis=axes))


def euclidean(x: jax.Array, axis) -> jax.Array:
    """The norm of each unit: what projecting it to zero costs; in units of its largest entry, lest squares vanish."""
    _, exponent = jnp.frexp(jnp.max(jnp.abs(x), axis, keepdims=True, initial=0))
    norm = jnp.sqrt(total(jnp.square(jnp.ldexp(x, -exponent)), axis))
    return jnp.ldexp(norm, jnp.squeeze(exponent, axis))
