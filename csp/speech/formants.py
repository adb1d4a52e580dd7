"""A voice of our own, for machines without espeak-ng: each letter a short sound of two resonances, or a hiss.

It is to speech what a child's drawing is to a face, but it has what a recogniser needs: voices that differ in pitch and
length of the vocal tract, sounds that differ in formants, and words that run into each other.
"""

import numpy as np

RATE = 8000
VOICES = tuple(f"formants{i}" for i in range(24))
_VOWELS = {"A": (730, 1090), "E": (530, 1840), "I": (270, 2290), "O": (570, 840), "U": (300, 870), "Y": (400, 2000)}
_HISSES = {"S": 3200, "Z": 3000, "F": 2400, "X": 2700, "H": 1500, "T": 2900, "C": 2000, "K": 1800, "P": 900, "V": 1200}


def say(text: str, voice: str, style) -> tuple[np.ndarray, int]:
    """Samples and their rate."""
    number = int(voice.removeprefix("formants"))
    tract, pitch = 0.85 + 0.3 * (number * 7 % 24) / 24, 90 + 130 * (number * 5 % 24) / 24
    seconds = 0.09 - 0.03 * style.speed
    letters = [letter for letter in text.upper() if letter.isalpha() or letter == " "]
    rng = np.random.default_rng(number)
    sounds = [_sound(letter, tract, pitch * (0.9 + 0.2 * style.pitch), seconds, rng) for letter in letters]
    return np.concatenate(sounds or [np.zeros(1)]).astype(np.float32), RATE


def _sound(letter: str, tract: float, pitch: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    count = int(RATE * seconds)
    time = np.arange(count) / RATE
    edges = np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.15 * count))
    if letter == " ":
        return 0.002 * rng.normal(size=count)
    if letter in _HISSES:
        carrier = np.cos(2 * np.pi * _HISSES[letter] * tract * time + rng.uniform(0, 6))
        return 0.3 * edges * carrier * rng.normal(size=count)
    first, second = _VOWELS.get(letter, (250 + 37 * (ord(letter) % 11), 1000 + 131 * (ord(letter) % 13)))
    tones = np.arange(1, int(3800 / pitch)) * pitch
    formants = tract * np.array([[first], [second]])
    gains = (1 / (1 + ((tones - formants) / 90) ** 2)).sum(axis=0)
    return 0.5 * edges * (gains[:, None] * np.sin(2 * np.pi * tones[:, None] * time)).sum(axis=0) / gains.sum()
