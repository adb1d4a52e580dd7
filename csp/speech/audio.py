"""How does a recording become numbers? One channel of float32 at the rate that was asked for, or a clear error.

Only formats that are widely written and well tested are opened: PCM and float WAV, FLAC, Ogg (Vorbis, Opus) and MP3. A
header is believed in nothing: samples are read block by block until the file ends.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csp.speech.errors import DataError

RATES = (4_000, 192_000)
CHANNELS = 16
LOUDEST = 100.0  # a float file may exceed 1 a little
_BLOCK = 1 << 16
_DENSEST = 100  # samples of a byte; Opus has 64 where it is at its worst
_ALLOWED = {
    "WAV": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
    "WAVEX": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
    "FLAC": ("PCM_S8", "PCM_16", "PCM_24"),
    "OGG": ("VORBIS", "OPUS"),
    "MP3": ("MPEG_LAYER_III",),
    "MPEG": ("MPEG_LAYER_III",),
}


class Info(NamedTuple):
    """What a file's header claims."""

    rate: int
    channels: int
    frames: int

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def describe(path: str | Path) -> Info:
    """The header of a recording, checked; samples that so few bytes can hardly hold are counted."""
    path = Path(path)
    with _open(path) as file:
        said = Info(file.samplerate, file.channels, max(file.frames, 0))
        if said.frames > _DENSEST * path.stat().st_size:
            return said._replace(frames=sum(map(len, _pieces(file, path, 0.0, None))))
    return said


def read(path: str | Path, rate: int | None = None, offset: float = 0.0, duration: float | None = None) -> np.ndarray:
    """The samples of a recording, its channels averaged, resampled to `rate`.

    Args:
      path: of the recording.
      rate: samples a second; the recording's own by default.
      offset: seconds from the start.
      duration: seconds to read; to the end by default. A recording that ends before is an error.
    """
    with _open(Path(path)) as file:
        own, pieces = file.samplerate, list(_pieces(file, Path(path), offset, duration))
    x = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    return x if rate is None or rate == own else resample(x, own, rate)


def blocks(path: str | Path) -> Iterator[tuple[np.ndarray, int]]:
    """The samples of a recording piece by piece, however long it is, and their rate; its channels averaged."""
    with _open(Path(path)) as file:
        for x in _pieces(file, Path(path), 0.0, None):
            yield x, file.samplerate


def _pieces(file, path: Path, offset: float, duration: float | None) -> Iterator[np.ndarray]:
    own, wanted, have = file.samplerate, None if duration is None else round(duration * file.samplerate), 0
    if offset:
        _seek(file, path, round(offset * own))
    while wanted is None or have < wanted:
        try:
            block = file.read(_BLOCK if wanted is None else min(_BLOCK, wanted - have), dtype="float32", always_2d=True)
        except RuntimeError:
            why = "it is damaged, or does not say how long it is"
            raise DataError(f"{path} cannot be read behind its first {have} samples: {why}") from None
        if not len(block):
            break
        x = block.mean(axis=1, dtype=np.float32) if block.shape[1] > 1 else block[:, 0]
        if not np.isfinite(x).all() or np.abs(x).max(initial=0) > LOUDEST:
            raise DataError(f"{path} has samples that are NaN, infinite or beyond {LOUDEST:g}: it is no sound")
        have += len(x)
        yield x
    if wanted is not None and have < wanted - own // 50:
        raise DataError(f"{path} ends {(wanted - have) / own:.2f} s before the {duration} s that are asked of it")


def resample(x: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    import soxr

    return np.asarray(soxr.resample(x, rate, wanted), np.float32)


def write(path: str | Path, x: np.ndarray, rate: int) -> None:
    """16-bit samples; the format is that of the name."""
    import soundfile

    soundfile.write(str(path), (np.clip(x, -1, 1) * 32767).astype(np.int16), rate)


def _open(path: Path):
    try:
        import soundfile
    except ImportError:
        raise DataError("reading audio needs soundfile and soxr: pip install 'csp-jax[speech]'") from None
    if not path.is_file():
        raise DataError(f"{path} is no file")
    try:
        file = soundfile.SoundFile(str(path))
    except soundfile.LibsndfileError:
        raise DataError(f"{path} is no recording that csp reads: convert it to WAV, FLAC, Ogg or MP3") from None
    try:
        _check(file, path)
    except DataError:
        file.close()
        raise
    return file


def _check(file, path: Path) -> None:
    if file.subtype not in _ALLOWED.get(file.format, ()):
        raise DataError(f"{path} is {file.format} {file.subtype}: convert it to PCM WAV, FLAC, Ogg or MP3")
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise DataError(f"{path} has {file.samplerate} samples a second: csp reads {RATES[0]} to {RATES[1]}")
    if not 1 <= file.channels <= CHANNELS:
        raise DataError(f"{path} has {file.channels} channels: csp reads 1 to {CHANNELS}")


def _seek(file, path: Path, start: int) -> None:
    if not 0 <= start < max(file.frames, 1):
        raise DataError(f"{path} has no sample {start}: its offset lies behind its end")
    try:
        file.seek(start)
    except RuntimeError:
        raise DataError(f"{path} cannot be read from sample {start}: it is damaged") from None
