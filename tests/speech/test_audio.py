"""FAULTS 42-48: recordings that are none, that lie about themselves, or that are of a kind nobody should send."""

import contextlib
import tracemalloc

import numpy as np
import pytest
import soundfile

from csp.speech import audio
from csp.speech.errors import DataError

RATE = 16_000


def tone(seconds=0.5, rate=RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "subtype", "close"),
    [("a.wav", "PCM_16", 1e-4), ("a.wav", "FLOAT", 1e-7), ("a.flac", "PCM_16", 1e-4), ("a.ogg", "VORBIS", 0.2)],
)
def test_common_formats_are_read(name, subtype, close, tmp_path):
    soundfile.write(tmp_path / name, tone(), RATE, subtype=subtype)
    x = audio.read(tmp_path / name)
    assert x.dtype == np.float32
    assert len(x) == len(tone())
    assert np.abs(x - tone()).max() < close
    assert audio.describe(tmp_path / name) == (RATE, 1, len(tone()))


@pytest.mark.parametrize(("name", "subtype"), [("a.ogg", "OPUS"), ("a.mp3", "MPEG_LAYER_III")])
def test_compressed_speech_keeps_its_pitch(name, subtype, tmp_path):
    format_ = "MP3" if name.endswith("mp3") else "OGG"
    soundfile.write(tmp_path / name, tone(1.0), RATE, subtype=subtype, format=format_)
    x = audio.read(tmp_path / name, RATE)
    assert abs(np.argmax(np.abs(np.fft.rfft(x))) * RATE / len(x) - 440) < 2


def test_channels_are_averaged_and_rates_converted(tmp_path):
    stereo = np.stack([tone(), -0.5 * tone()], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
    assert np.allclose(audio.read(tmp_path / "a.wav"), 0.25 * tone(), atol=1e-6)
    x = audio.read(tmp_path / "a.wav", 8000)
    assert abs(len(x) - len(tone()) // 2) <= 1
    assert abs(np.argmax(np.abs(np.fft.rfft(x))) * 8000 / len(x) - 440) < 3


def test_a_part_is_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE, subtype="FLOAT")
    assert np.array_equal(audio.read(tmp_path / "a.wav", offset=0.1, duration=0.2), tone()[1600:4800])
    with pytest.raises(DataError, match=r"a.wav ends 0.50 s before the 1.0 s"):  # FAULTS 44
        audio.read(tmp_path / "a.wav", duration=1.0)
    with pytest.raises(DataError, match="its offset lies behind its end"):
        audio.read(tmp_path / "a.wav", offset=3.0)


@pytest.mark.parametrize("raw", [b"", b"hello", b"<html></html>", b"RIFF\x24\x00\x00\x00WAVE", b"fLaC" + bytes(50)])
def test_what_is_no_recording_is_named(raw, tmp_path):
    """FAULTS 42."""
    (tmp_path / "bad.wav").write_bytes(raw)
    with pytest.raises(DataError, match=r"bad.wav (is no recording|has 0|is )"):
        audio.read(tmp_path / "bad.wav")
    with pytest.raises(DataError, match=r"missing\.wav is no file"):
        audio.read(tmp_path / "missing.wav")


def liar(path):
    """Half a second of sound, and a header of four gigabytes (WAV) or of two to the 36 samples (FLAC)."""
    soundfile.write(path, tone(), RATE, subtype="PCM_16")
    raw = bytearray(path.read_bytes())
    if path.suffix == ".wav":
        at = raw.index(b"data") + 4
        raw[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    else:
        raw[21:26] = bytes([raw[21] | 15, 255, 255, 255, 255])
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("name", ["liar.wav", "liar.flac"])
def test_a_header_is_not_believed(name, tmp_path):
    """FAULTS 43: what is allocated is that of a few blocks, whatever the header says."""
    path = liar(tmp_path / name)
    tracemalloc.start()
    try:
        with contextlib.suppress(DataError):
            assert len(audio.read(path)) <= len(tone()) + 1
        with contextlib.suppress(DataError):
            assert audio.describe(path).frames <= len(tone()) + 1
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def test_an_hour_is_read_in_pieces(tmp_path):
    """FAULTS 50: it takes the memory of a piece, not of the hour."""
    minute = np.tile(tone(1.0, 8000), 60)
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 8000, 1) as file:
        for _ in range(60):
            file.write(minute)
    count = 0
    tracemalloc.start()
    try:
        for x, rate in audio.blocks(tmp_path / "a.flac"):
            assert rate == 8000
            count += len(x)
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()
    assert count == 3600 * 8000


def test_few_bytes_of_much_silence_are_counted(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros(10**6, np.float32), RATE)
    assert (tmp_path / "a.flac").stat().st_size < 10**4
    assert audio.describe(tmp_path / "a.flac").frames == len(audio.read(tmp_path / "a.flac")) == 10**6


@pytest.mark.parametrize("spoil", ["cut", "turned"])
def test_a_recording_damaged_behind_its_header_is_named(spoil, tmp_path):
    """FAULTS 42."""
    soundfile.write(tmp_path / "a.flac", 0.1 * np.random.default_rng(0).normal(size=RATE), RATE)
    raw = bytearray((tmp_path / "a.flac").read_bytes())
    half = len(raw) // 2
    if spoil == "cut":
        raw = raw[:half]
    else:
        raw[half] ^= 255
    (tmp_path / "a.flac").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.flac cannot be read behind its first \d+ samples: it is damaged"):
        audio.read(tmp_path / "a.flac")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_is_no_sound_is_refused(bad, tmp_path):
    """FAULTS 46."""
    x = tone()
    x[100] = bad
    soundfile.write(tmp_path / "a.wav", x, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match="it is no sound"):
        audio.read(tmp_path / "a.wav")


def forged(path, at: int, value: int, size: int):
    """A recording whose header says another number there."""
    soundfile.write(path, tone(), RATE, subtype="PCM_16")
    raw = bytearray(path.read_bytes())
    raw[at : at + size] = value.to_bytes(size, "little")
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("channels", [0, 65535])
def test_channels_that_cannot_be_are_refused(channels, tmp_path):
    """FAULTS 47."""
    with pytest.raises(DataError, match=r"a\.wav"):
        audio.read(forged(tmp_path / "a.wav", 22, channels, 2), RATE)


@pytest.mark.parametrize("rate", [0, 1, 1000, 2**31 - 1])
def test_rates_are_checked_before_resampling(rate, tmp_path):
    """FAULTS 47."""
    with pytest.raises(DataError, match=r"samples a second: csp reads|is no recording"):
        audio.read(forged(tmp_path / "a.wav", 24, rate, 4), RATE)


@pytest.mark.parametrize(
    ("format_", "subtype"), [("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("AU", "PCM_16"), ("MAT4", "PCM_16")]
)
def test_rare_codecs_are_refused(format_, subtype, tmp_path):
    """FAULTS 48."""
    soundfile.write(tmp_path / "a.wav", tone(), RATE, format=format_, subtype=subtype)
    with pytest.raises(DataError, match=f"is {format_} {subtype}: convert it"):
        audio.read(tmp_path / "a.wav")


def test_no_samples_are_no_samples(tmp_path):
    """FAULTS 45."""
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), RATE)
    assert audio.read(tmp_path / "a.wav", 8000).shape == (0,)
