"""Sentences from single words: recordings of one speaker, one after the other, with pauses of the room's own noise.

Recordings never change splits, so that what a test hears was never heard in training; where there is no validation
split, a tenth of the training recordings becomes one.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np

from csp.formats import writing
from csp.speech import audio, manifest, orders
from csp.speech.errors import DataError
from csp.speech.manifest import Utterance

RECORDINGS = "recordings.tsv"
FADE = 0.005  # seconds
PAUSE = (0.03, 0.35)
LEVEL = 4.0  # decibels up or down


def connect(
    source: Path,
    out: Path,
    counts: dict[str, int],
    words: tuple[int, int] = (3, 7),
    rate: int = 8000,
    seed: int = 0,
    held_out: str = "",
    noise: tuple[float, float] | None = None,
) -> Path:
    """Writes `counts[split]` sentences of `words` words each, their manifest, and recordings.tsv: of what each is made.

    Sentences that are there already are kept.

    Args:
      source: a manifest of single words with speakers and splits.
      out: a folder for the sentences.
      counts: of each split; a split of none is left out.
      words: fewest and most of a sentence.
      rate: samples a second.
      seed: of everything random.
      held_out: a speaker whose recordings are for the test, and nobody else's are.
      noise: lowest and highest signal-to-noise ratio, in decibels, of white noise that is added to every sentence.
    """
    counts = {split: count for split, count in counts.items() if count}
    if not counts or min(counts.values()) < 0:
        raise ValueError(f"{counts or 'no'} sentences: ask for some")
    if noise is not None and not noise[0] <= noise[1]:
        raise ValueError(f"noise of {noise[0]:g} to {noise[1]:g} decibels: the lowest stands first, such as 5,20")
    order = {"counts": counts, "words": words, "rate": rate, "seed": seed, "held_out": held_out, "noise": noise}
    if orders.there(out, order):
        return out / "manifest.tsv"
    pools = _pools(manifest.read(source), counts, held_out)
    rng, found, made = np.random.default_rng(seed), [], []
    for split, count in counts.items():
        if not pools[split]:
            raise DataError(f"{source} has no recordings for split {split!r}")
        (out / split).mkdir(parents=True, exist_ok=True)
        speakers = sorted(pools[split])
        for number in range(count):
            speaker = speakers[number % len(speakers)]
            pool = pools[split][speaker]
            chosen = [pool[i] for i in rng.integers(len(pool), size=rng.integers(words[0], words[1] + 1))]
            x = _joined([audio.read(u.path, rate) for u in chosen], rate, rng)
            x = x if noise is None else _noisy(x, rng, *noise)
            path = out / split / f"{number:05d}.flac"
            audio.write(path, x, rate)
            text = " ".join(u.text for u in chosen)
            found.append(Utterance(path, text, f"{split}-{number:05d}", speaker, split, duration=len(x) / rate))
            made.append(f"{found[-1].id}\t{' '.join(u.id for u in chosen)}\n")
    writing.atomically(out / RECORDINGS, ["".join(["id\trecordings\n", *made]).encode()], overwrite=True)
    manifest.write(out / "manifest.tsv", found)
    return out / "manifest.tsv"


def _pools(found: list[Utterance], counts: dict[str, int], held_out: str) -> dict[str, dict[str, list[Utterance]]]:
    """split -> speaker -> recordings."""
    pools: dict[str, dict[str, list[Utterance]]] = {split: defaultdict(list) for split in counts}
    carve = "valid" in counts and not any(u.split == "valid" for u in found)
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for u in found:
        split = u.split or "train"
        if held_out:
            split = "test" if u.speaker == held_out else "train"
        if carve and split == "train":
            seen[u.speaker, u.text] += 1
            split = "valid" if seen[u.speaker, u.text] % 10 == 0 else "train"
        if split in pools:
            pools[split][u.speaker].append(u)
    return pools


def _joined(parts: list[np.ndarray], rate: int, rng: np.random.Generator) -> np.ndarray:
    floor = float(np.median([_floor(x, rate) for x in parts]))
    pieces = []
    for x in parts:
        pieces += [rng.normal(0, floor, int(rate * rng.uniform(*PAUSE))), _faded(x, rate)]
    pieces.append(rng.normal(0, floor, int(rate * rng.uniform(*PAUSE))))
    return np.concatenate(pieces).astype(np.float32) * 10 ** (rng.uniform(-LEVEL, LEVEL) / 20)


def _noisy(x: np.ndarray, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    power = np.mean(x**2) * 10 ** (-rng.uniform(low, high) / 10)
    return x + rng.normal(0, np.sqrt(power), len(x)).astype(np.float32)


def _faded(x: np.ndarray, rate: int) -> np.ndarray:
    n = min(int(FADE * rate), len(x) // 2)
    ramp = np.ones(len(x), np.float32)
    ramp[:n], ramp[len(x) - n :] = np.linspace(0, 1, n), np.linspace(1, 0, n)
    return x * ramp


def _floor(x: np.ndarray, rate: int) -> float:
    """The loudness of the quietest hundredths of a second."""
    step = rate // 100
    frames = x[: len(x) // step * step].reshape(-1, step)
    quiet = np.quantile(np.sqrt((frames**2).mean(axis=1)), 0.05) if len(frames) else 0.0
    return float(np.clip(quiet, 1e-4, 3e-3))
