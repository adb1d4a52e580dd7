"""How is one recording, or one file of features, read? What cannot be read is said, not raised."""

import logging
import threading
from collections.abc import Callable

import numpy as np

from csp.speech import audio, features
from csp.speech.errors import DataError
from csp.speech.manifest import Utterance
from csp.train.config import Features

log = logging.getLogger("csp")


class OnDisk:
    """A recording that is read each time it is needed, because the others fill the memory."""

    def __init__(
        self,
        read: Callable[[Utterance], np.ndarray | DataError],
        u: Utterance,
        length: int,
        nothing: np.ndarray,
        spoiled: "Spoiled",
    ):
        self._read, self._utterance, self._length, self.nothing = read, u, length, nothing
        self._spoiled = spoiled

    def __len__(self) -> int:
        return self._length

    def read(self) -> np.ndarray:
        """Nothing of one that was spoiled since it was looked at."""
        x = self._read(self._utterance)
        if isinstance(x, DataError):
            self._spoiled.add(self._utterance, x)
            return self.nothing
        return x[: self._length]


class Spoiled:
    """Recordings whose header can be read and whose sound cannot: each is named once, and more than `most` stop all."""

    def __init__(self, most: int):
        self.most, self.names, self._lock = most, set[str](), threading.Lock()

    def add(self, u: Utterance, why: DataError) -> None:
        with self._lock:
            if u.id not in self.names:
                self.names.add(u.id)
                log.warning("%s: %s", u.path, why)
        if len(self.names) > self.most:
            raise DataError(f"{u.path}: {why}; {len(self.names)} are unreadable now, data.broken allows {self.most}")


def size(said: Features, u: Utterance) -> int:
    """Samples, or frames, by the file's header; 0 of a file that has none, which shows when it is read."""
    try:
        own, whole = (said.rate, len(features.read(u.path))) if said.given else audio.describe(u.path)[::2]
    except DataError:
        return 0
    left = whole - round(u.offset * own)
    return round((left if u.duration is None else min(left, round(u.duration * own))) * said.rate / own)


def given(said: Features, u: Utterance) -> np.ndarray | DataError:
    """float32, [frames, bins]."""
    count = None if u.duration is None else round(u.duration * said.rate)
    try:
        return features.read(u.path, said.bins, round(u.offset * said.rate), count)
    except DataError as error:
        return error


def sound(rate: int, u: Utterance) -> np.ndarray | DataError:
    """int16, which is what recordings have, takes half the memory of float32."""
    try:
        x = audio.read(u.path, rate, u.offset, u.duration)
    except DataError as error:
        return error
    return (np.clip(x, -1, 1) * 32767).astype(np.int16)
