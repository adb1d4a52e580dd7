"""How is a batch of recordings made harder? Speed, noise, and masks over time and frequency, all under jit."""

import math

import jax
import jax.numpy as jnp
from jax import Array


def speed(key: Array, x_BxS: Array, samples_B: Array, low: float = 0.9, high: float = 1.1) -> tuple[Array, Array]:
    """Each recording faster or slower by its own factor, pitch and all; y_BxT has room for the slowest."""
    B, S = x_BxS.shape
    T = math.ceil(S / min(low, 1))
    factor_B = jax.random.uniform(key, (B,), minval=low, maxval=high)
    at_BxT = jnp.arange(T) * factor_B[:, None]
    left_BxT = jnp.minimum(at_BxT.astype(jnp.int32), S - 1)
    share_BxT = at_BxT - left_BxT
    right_BxT = jnp.minimum(left_BxT + 1, S - 1)
    y_BxT = (
        jnp.take_along_axis(x_BxS, left_BxT, 1) * (1 - share_BxT) + jnp.take_along_axis(x_BxS, right_BxT, 1) * share_BxT
    )
    length_B = (samples_B / factor_B).astype(jnp.int32)
    return jnp.where(jnp.arange(T) < length_B[:, None], y_BxT, 0), length_B


def noise(key: Array, x_BxS: Array, samples_B: Array, low: float = 5.0, high: float = 20.0) -> Array:
    """White to brownish noise at a signal-to-noise ratio between `low` and `high` decibels, within each recording."""
    B, S = x_BxS.shape
    ratio_key, colour_key, noise_key = jax.random.split(key, 3)
    white_BxS = jax.random.normal(noise_key, (B, S))
    colour_B = jax.random.uniform(colour_key, (B, 1), maxval=0.9)
    coloured_BxS = white_BxS + colour_B * jnp.pad(white_BxS, ((0, 0), (1, 0)))[:, :-1]
    within_BxS = jnp.arange(S) < samples_B[:, None]

    def power(y_BxS: Array) -> Array:
        return jnp.sum(jnp.where(within_BxS, y_BxS, 0) ** 2, 1) / jnp.maximum(samples_B, 1)

    decibel_B = jax.random.uniform(ratio_key, (B,), minval=low, maxval=high)
    gain_B = jnp.sqrt(power(x_BxS) / jnp.maximum(power(coloured_BxS), 1e-12) * 10 ** (-decibel_B / 10))
    return x_BxS + jnp.where(within_BxS, gain_B[:, None] * coloured_BxS, 0)


def mask(key: Array, y_BxTxF: Array, frames_B: Array, times: int, width: int, bands: int, height: int) -> Array:
    """SpecAugment: up to `times` stretches of up to `width` frames and `bands` of up to `height` bins are set to zero.

    Features are normalised, so that zero is their mean. No stretch covers more than a fifth of a recording.
    """
    B, T, F = y_BxTxF.shape
    time_key, band_key = jax.random.split(key)
    hidden_BxT = _stretches(time_key, times, jnp.minimum(width, frames_B // 5), frames_B, T)
    hidden_BxF = _stretches(band_key, bands, jnp.full((B,), height), jnp.full((B,), F), F)
    return jnp.where(hidden_BxT[:, :, None] | hidden_BxF[:, None, :], 0, y_BxTxF)


def _stretches(key: Array, count: int, most_B: Array, length_B: Array, size: int) -> Array:
    """True within `count` random stretches of at most `most_B` of `length_B` places."""
    B = len(most_B)
    width_key, start_key = jax.random.split(key)
    width_NxB = jnp.floor(jax.random.uniform(width_key, (count, B)) * (most_B + 1))
    start_NxB = jnp.floor(jax.random.uniform(start_key, (count, B)) * jnp.maximum(length_B - width_NxB + 1, 1))
    at = jnp.arange(size)
    return jnp.any((at >= start_NxB[..., None]) & (at < (start_NxB + width_NxB)[..., None]), axis=0)
