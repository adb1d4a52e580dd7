"""What does a recogniser see? The logarithm of the energy in mel bands, 25 ms every 10 ms, by NumPy or by JAX.

A band's energy is floored at 2e-5 of its frame's: below that it is rounding, not sound. So both agree to 1e-5, whatever
the recording.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from csp.speech.errors import DataError

FLOOR = 2e-5
SILENCE = 1e-9
_EMPHASIS = 0.97


@dataclasses.dataclass(frozen=True)
class LogMel:
    """`bins` bands of a recording at `rate`; x_..xS -> y_..xTxF with T = frames(S).

    Every frame lies within the recording; the signal is pre-emphasised within each frame, so that a frame depends on
    its own samples only and a stream gives the same frames as a file.
    """

    rate: int = 16_000
    bins: int = 80
    window: float = 0.025
    hop: float = 0.010

    @property
    def size(self) -> int:
        return round(self.window * self.rate)

    @property
    def step(self) -> int:
        return round(self.hop * self.rate)

    @property
    def length(self) -> int:
        """Of the Fourier transform."""
        return 1 << (self.size - 1).bit_length()

    def frames(self, samples: Any) -> Any:
        """How many frames so many samples give."""
        count = 1 + (samples - self.size) // self.step
        return count * (count > 0)

    def __call__(self, x: Any, xp: Any = np, energies: Callable[[Any], Any] | None = None) -> Any:
        """The features; `xp` is numpy or jax.numpy. `energies` may replace the product of powers and bands."""
        steps = self.size // self.step + 1
        count = int(self.frames(x.shape[-1]))
        if not count:
            return xp.zeros((*x.shape[:-1], 0, self.bins), np.float32)
        frames = self._cut(xp.asarray(x, dtype=np.float32), count, steps, xp)
        first = frames[..., :1] * (1 - _EMPHASIS)
        frames = xp.concatenate([first, frames[..., 1:] - np.float32(_EMPHASIS) * frames[..., :-1]], axis=-1)
        spectrum = xp.fft.rfft(frames * _hann(self.size), self.length)
        power = spectrum.real**2 + spectrum.imag**2
        floor = FLOOR * power.sum(axis=-1, keepdims=True)
        times_bands = energies or (lambda power: power @ xp.asarray(bands(self.rate, self.bins, self.length)))
        return xp.log(times_bands(power) + floor + SILENCE).astype(np.float32)

    def _cut(self, x: Any, count: int, steps: int, xp: Any) -> Any:
        """x_..xS as overlapping frames_..xTxW: a few shifted copies, no gather."""
        hops = count + steps - 1
        missing = hops * self.step - x.shape[-1]
        x = x[..., : hops * self.step] if missing <= 0 else xp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
        x = x.reshape(*x.shape[:-1], hops, self.step)
        return xp.concatenate([x[..., i : i + count, :] for i in range(steps)], axis=-1)[..., : self.size]


@dataclasses.dataclass(frozen=True)
class Given:
    """Features that somebody else computed, `rate` frames a second: what LogMel is for a recording."""

    rate: int = 100
    bins: int = 80
    size: int = 1
    step: int = 1

    def frames(self, samples: Any) -> Any:
        return samples

    def __call__(self, x: Any, xp: Any = np) -> Any:
        return x


def of(said: Any) -> LogMel | Given:
    """What a config's `features` describe."""
    return Given(said.rate, said.bins) if said.given else LogMel(said.rate, said.bins, said.window, said.hop)


def read(path: str | Path, bins: int | None = None, first: int = 0, count: int | None = None) -> np.ndarray:
    """Frames of an .npy file, [frames, bins], of so many bins if any number is right."""
    try:
        y_TxF = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise DataError(f"{path} is no .npy file of features") from None
    if y_TxF.ndim != 2 or y_TxF.shape[1] != (bins or y_TxF.shape[1]) or y_TxF.dtype.kind != "f":
        wanted = f"floats of [frames, {bins or 'bins'}] are expected"
        raise DataError(f"{path} has {y_TxF.dtype} of shape {y_TxF.shape}, where {wanted}")
    last = len(y_TxF) if count is None else first + count
    if last > len(y_TxF):
        raise DataError(f"{path} ends {last - len(y_TxF)} frames before those that are asked of it")
    y_TxF = np.asarray(y_TxF[first:last], np.float32)
    if not np.isfinite(y_TxF).all():
        raise DataError(f"{path} has features that are NaN or infinite")
    return y_TxF


class Stream:
    """The same frames from pieces of a recording, as soon as each is complete; it keeps less than a window."""

    def __init__(self, mel: LogMel, energies: Callable[[np.ndarray], np.ndarray] | None = None):
        self.mel, self._energies, self._rest = mel, energies, np.zeros(0, np.float32)

    def push(self, x: np.ndarray) -> np.ndarray:
        """The frames that these samples complete."""
        x = np.concatenate([self._rest, np.asarray(x, np.float32)])
        frames = self.mel(x, energies=self._energies)
        self._rest = x[len(frames) * self.mel.step :].copy()
        return frames


def stack(y: Any, width: int, xp: Any = np) -> Any:
    """y_..xTxF -> y_..x(T // width)x(width F): neighbours side by side; what does not fill a stack is dropped."""
    count = y.shape[-2] // width
    return y[..., : count * width, :].reshape(*y.shape[:-2], count, width * y.shape[-1])


def _hann(size: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


def bands(rate: int, bins: int, length: int, lowest: float = 20.0) -> np.ndarray:
    """Triangles on the mel scale, [length // 2 + 1, bins]."""
    edges = _hertz(np.linspace(_mel(lowest), _mel(rate / 2), bins + 2))
    at = np.arange(length // 2 + 1)[:, None] * rate / length
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def _mel(hertz: Any) -> Any:
    return 2595 * np.log10(1 + hertz / 700)


def _hertz(mel: Any) -> Any:
    return 700 * (10 ** (mel / 2595) - 1)
