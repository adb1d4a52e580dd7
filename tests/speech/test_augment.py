"""What augmentation may change, and what it must leave alone."""

import jax
import jax.numpy as jnp
import numpy as np

from csp.speech import augment

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (4, 4000))
SAMPLES = jnp.array([4000, 3000, 2000, 0])


def within(lengths, size):
    return np.arange(size) < np.asarray(lengths)[:, None]


def test_speed_one_changes_nothing():
    y, lengths = augment.speed(KEY, X, SAMPLES, 1.0, 1.0)
    keep = within(SAMPLES, 4000)
    assert np.allclose(np.asarray(y)[keep], np.asarray(X)[keep], atol=1e-5)
    assert lengths.tolist() == SAMPLES.tolist()


def test_speed_moves_pitch_and_length_together():
    time = jnp.arange(8000) / 8000
    x = jnp.sin(2 * jnp.pi * 200 * time)[None]
    y, length = augment.speed(KEY, x, jnp.array([4000]), 1.25, 1.25)
    assert length.tolist() == [3200]
    spectrum = np.abs(np.fft.rfft(np.asarray(y[0, :3200])))
    assert abs(spectrum.argmax() * 8000 / 3200 - 250) < 3
    assert not np.asarray(y[0, 3200:]).any()


def test_what_is_slower_is_longer_and_loses_nothing():
    """The transcript says all of it."""
    x = jnp.zeros((1, 8000)).at[0, 7990].set(1.0)
    y, length = augment.speed(KEY, x, jnp.array([8000]), 0.8, 0.8)
    assert length.tolist() == [10000]
    assert y.shape == (1, 10000)
    assert abs(int(jnp.argmax(y[0])) - 9987) <= 1


def test_noise_has_the_ratio_that_was_asked_for():
    y = augment.noise(KEY, X, SAMPLES, 10.0, 10.0)
    for row, length in enumerate(SAMPLES.tolist()[:3]):
        signal, added = X[row, :length], (y - X)[row, :length]
        assert abs(10 * np.log10(float(jnp.mean(signal**2) / jnp.mean(added**2))) - 10) < 0.1
    assert np.array_equal(np.asarray(y)[~within(SAMPLES, 4000)], np.asarray(X)[~within(SAMPLES, 4000)])
    assert np.isfinite(np.asarray(y)).all()


def test_masks_are_bounded_and_zero():
    y = jnp.ones((64, 100, 40))
    frames = jnp.full(64, 50)
    hidden = np.asarray(augment.mask(KEY, y, frames, 2, 30, 2, 6)) == 0
    times = hidden.all(axis=2).sum(axis=1)
    assert times.max() <= 2 * 10  # a fifth of 50 frames each
    assert times.max() > 5
    assert hidden.all(axis=1).sum(axis=1).max() <= 12
    assert np.array_equal(hidden, hidden.all(axis=2)[:, :, None] | hidden.all(axis=1)[:, None, :])


def test_the_same_key_gives_the_same():
    a, b = (jax.jit(augment.noise)(KEY, X, SAMPLES) for _ in range(2))
    assert np.array_equal(a, b)
