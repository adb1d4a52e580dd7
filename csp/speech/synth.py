"""How does a machine without a corpus learn to listen? It speaks one: sentences of a small grammar in many voices.

The voices are espeak-ng's where `espeakng-loader` is installed, else a few formants of our own, which nobody would call
speech and every test can rely on. The same seed gives the same corpus, to the sample, if one fresh process speaks it:
`speak` does.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csp.speech import audio, formants, manifest, orders
from csp.speech.errors import DataError
from csp.speech.manifest import Utterance

DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
_NOISE = 1e-3  # a floor under digital silence


class Order(NamedTuple):
    """What shall be spoken: by how many voices, how often, in which split."""

    split: str
    count: int
    voices: tuple[str, ...]


def digits(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(DIGITS, rng.integers(1, 7)))


def commands(rng: np.random.Generator) -> str:
    def pick(*words: str) -> str:
        return str(rng.choice(words))

    thing, place = pick("LIGHT", "RADIO", "HEATING", "FAN"), pick("KITCHEN", "BEDROOM", "GARDEN", "OFFICE")
    number = pick(*DIGITS[1:])
    return pick(
        f"TURN THE {thing} {pick('ON', 'OFF')} IN THE {place}",
        f"SET A TIMER FOR {number} MINUTES",
        f"CALL {' '.join(rng.choice(DIGITS, 4))}",
        f"MAKE THE {place} {pick('WARMER', 'COLDER', 'DARKER', 'BRIGHTER')}",
        f"{pick('PLAY', 'STOP')} CHANNEL {number}",
    )


GRAMMARS: dict[str, Callable[[np.random.Generator], str]] = {"digits": digits, "commands": commands}


def speak(
    out: Path,
    grammar: str = "digits",
    count: int = 2000,
    rate: int = 8000,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Speaks a corpus in a fresh process and returns its manifest; one that is there already is kept.

    `check` is called now and then, and may raise.
    """
    wanted, order = out / "manifest.tsv", {"grammar": grammar, "count": count, "rate": rate, "seed": seed}
    if orders.there(out, order):
        return wanted
    command = [sys.executable, "-m", "csp.speech.synth", out, *order.values()]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        try:
            complaint = _ended(child, check)
        except BaseException:  # a signal is for us, and we end the child
            child.kill()
            raise
    if child.returncode:
        raise DataError(f"{out}: the corpus could not be spoken: {complaint.strip().splitlines()[-1:]}")
    return wanted


def _ended(child: subprocess.Popen[str], check: Callable[[], None]) -> str:
    while True:
        check()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.communicate(timeout=0.2)[1]


def sentences(grammar: str, count: int, seed: int = 0, part: int = 0) -> list[str]:
    """What `speak` would say in its training (part 0), validation (1) or test split (2), for a language model."""
    return [GRAMMARS[grammar](_generator(seed, part, number)) for number in range(count)]


def _generator(seed: int, part: int, number: int) -> np.random.Generator:
    return np.random.default_rng((seed, part, number))


def main(out: Path, grammar: str, count: int, rate: int, seed: int) -> None:
    voice_of, voices = _engine()
    asked_by = os.getppid()
    out.mkdir(parents=True, exist_ok=True)
    found = []
    for part, order in enumerate(_orders(count, voices)):
        (out / order.split).mkdir(exist_ok=True)
        for number in range(order.count):
            if os.getppid() != asked_by:
                raise SystemExit("nobody waits any more")
            voice = order.voices[number % len(order.voices)]
            rng = _generator(seed, part, number)  # whatever a voice does, the next sentence is the same
            text, style = GRAMMARS[grammar](rng), Style.draw(rng)
            x, own = voice_of(text, voice, style)
            x = audio.resample(_trim(x), own, rate) if own != rate else _trim(x)
            x = np.pad(x, (int(rate * style.before), int(rate * style.after)))
            x = x * (style.gain / max(np.abs(x).max(), 1e-6)) + rng.normal(scale=_NOISE, size=len(x))
            path = out / order.split / f"{number:05d}.flac"
            audio.write(path, x, rate)
            name = f"{order.split}-{number:05d}"
            found.append(Utterance(path, text, name, voice, order.split, duration=len(x) / rate))
    manifest.write(out / "manifest.tsv", found)


class Style(NamedTuple):
    """How one sentence is spoken; each value between 0 and 1 but the last three."""

    accent: float
    speed: float
    pitch: float
    range: float
    gain: float
    before: float
    after: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Style":
        accent, speed, pitch, width = rng.uniform(0, 1, 4)
        before, after = rng.uniform(0.02, 0.2, 2)
        return cls(accent, speed, pitch, width, rng.uniform(0.2, 0.9), before, after)


def _orders(count: int, voices: tuple[str, ...]) -> list[Order]:
    """Every sixth voice is never heard in training: half of those are for validation, half for the test."""
    unseen = voices[::6]
    known = tuple(v for v in voices if v not in unseen)
    small = max(count // 10, 1)
    return [Order("train", count, known), Order("valid", small, unseen[::2]), Order("test", 2 * small, unseen[1::2])]


def _trim(x: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(x) > 0.005)
    return x[loud[0] : loud[-1] + 1] if len(loud) else x


def _engine() -> tuple[Callable[[str, str, Style], tuple[np.ndarray, int]], tuple[str, ...]]:
    try:
        from csp.speech import espeak

        return espeak.open_(), espeak.VOICES
    except ImportError:
        return formants.say, formants.VOICES


def has_voices() -> bool:
    """Is espeak-ng there, or are formants all we have?"""
    import importlib.util

    return importlib.util.find_spec("espeakng_loader") is not None


if __name__ == "__main__":
    arguments: list[Any] = sys.argv[1:]
    main(Path(arguments[0]), arguments[1], *map(int, arguments[2:]))
