"""Log-mel features: one definition, in NumPy and in JAX, and what silence, clicks and streams make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csp.speech import features
from csp.speech.features import LogMel

MELS = [LogMel(), LogMel(8000, 40), LogMel(16_000, 40)]


def sounds(rate: int) -> dict[str, np.ndarray]:
    rng, time = np.random.default_rng(0), np.arange(rate) / rate
    return {
        "noise": rng.normal(size=rate).astype(np.float32) * 0.1,
        "tone": (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32),
        "loud": np.sign(np.sin(2 * np.pi * 200 * time)).astype(np.float32),
        "constant": np.full(rate, 0.3, np.float32),
        "silence": np.zeros(rate, np.float32),
        "click": np.eye(1, rate, rate // 2, dtype=np.float32)[0],
    }


@pytest.mark.parametrize("mel", MELS, ids=str)
@pytest.mark.parametrize("name", list(sounds(8000)))
def test_numpy_and_jax_agree_and_are_finite(mel, name):
    """FAULTS 46: silence, DC and clipping give finite features."""
    x = sounds(mel.rate)[name]
    ours, theirs = mel(x), np.asarray(jax.jit(lambda x: mel(x, jnp))(x))
    assert ours.shape == theirs.shape == (mel.frames(len(x)), mel.bins)
    assert np.isfinite(ours).all()
    assert np.abs(ours - theirs).max() <= 1e-5


@pytest.mark.parametrize("mel", MELS, ids=str)
def test_the_definition(mel):
    """Frame by frame in float64, as one would write it down."""
    x = sounds(mel.rate)["noise"].astype(np.float64)
    length = 1 << (mel.size - 1).bit_length()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(mel.size) / mel.size)
    for t in (0, 7, mel.frames(len(x)) - 1):
        frame = x[t * mel.step : t * mel.step + mel.size]
        frame = np.concatenate([[0.03 * frame[0]], frame[1:] - 0.97 * frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, length)) ** 2
        right = np.log(power @ features.bands(mel.rate, mel.bins, length) + 2e-5 * power.sum() + 1e-9)
        assert np.abs(mel(x.astype(np.float32))[t] - right).max() < 1e-4


def test_a_tone_is_loudest_in_its_band():
    mel = LogMel(16_000, 80)
    loudest = mel(sounds(16_000)["tone"])[50].argmax()
    centre = features.bands(16_000, 80, 512)[:, loudest].argmax() * 16_000 / 512
    assert abs(centre - 440) < 40


@pytest.mark.parametrize("samples", [0, 1, 199, 200, 201, 279, 280, 999])
def test_every_frame_lies_within_the_recording(samples):
    mel = LogMel(8000, 40)
    assert len(mel(np.ones(samples, np.float32))) == mel.frames(samples) == max(0, 1 + (samples - 200) // 80)


def test_a_frame_depends_on_its_own_samples_only():
    """And on how many frames there are by a rounding at most: some libraries add as the height of a product wants."""
    mel, x = LogMel(8000, 40), sounds(8000)["noise"]
    late = mel(x[40 * mel.step :])
    np.testing.assert_allclose(late, mel(x)[40:], atol=2e-6)


def test_stacks_drop_what_does_not_fill_one():
    y = np.arange(22.0).reshape(11, 2)
    assert features.stack(y, 4).tolist() == [list(range(8)), list(range(8, 16))]


@pytest.mark.parametrize("pieces", [[0, 1, 0], [1] * 700, [80] * 40, None])
def test_a_stream_gives_the_frames_of_the_file(pieces):
    """FAULTS 50: pieces of 0, 1 or any number of samples, and memory for less than a window."""
    mel, rng = LogMel(8000, 40), np.random.default_rng(0)
    sizes = pieces if pieces is not None else rng.integers(0, 999, 20).tolist()
    x = rng.normal(size=sum(sizes)).astype(np.float32)
    stream, at, found = features.Stream(mel), 0, []
    for size in sizes:
        found.append(stream.push(x[at : at + size]))
        at += size
        assert len(stream._rest) < mel.size
    assert np.abs(np.concatenate(found) - mel(x)).max(initial=0) <= 1e-5
