"""Recordings, in memory as far as there is room, and batches of them in an order that a step's number decides.

A batch is a function of the seed and of its position: a resumed run asks for the position it had reached, and no state
of an iterator has to be kept. Recordings of like length share a bucket, and a batch is as long as its bucket: little is
padding, and few shapes are compiled.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csp.speech import features, manifest
from csp.speech.errors import DataError
from csp.speech.features import Given, LogMel
from csp.speech.manifest import Utterance
from csp.speech.tokens import Tokens
from csp.train import recordings
from csp.train.config import Config
from csp.train.recordings import OnDisk, Spoiled

log = logging.getLogger("csp")
AHEAD = 4
_READERS = ThreadPoolExecutor(min(16, os.cpu_count() or 1), "csp reader")


class Batch(NamedTuple):
    """x_BxS samples, how many count, labels_BxU, and how many count; an utterance that counts for nothing has 0."""

    x: Any  # of NumPy, or of JAX once it is placed
    samples: Any
    labels: Any
    counts: Any


class Corpus(NamedTuple):
    """Utterances that can be used, their samples at the model's rate as int16 or their features, and their labels."""

    utterances: list[Utterance]
    audio: list[np.ndarray | OnDisk]
    labels: list[list[int]]
    dropped: dict[str, int]

    @property
    def hours(self) -> float:
        return sum(u.duration or 0 for u in self.utterances) / 3600

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(x) for x in self.audio])

    @property
    def counts(self) -> np.ndarray:
        """Of labels."""
        return np.array([len(row) for row in self.labels])

    def sound(self, row: int) -> np.ndarray:
        """Of one utterance; nothing of one that can no longer be read."""
        x = self.audio[row]
        return x.read() if isinstance(x, OnDisk) else x

    @property
    def nothing(self) -> np.ndarray:
        """A recording of no length, which says what the others are made of."""
        x = self.audio[0]
        return x.nothing if isinstance(x, OnDisk) else x[:0]

    def digest(self) -> str:
        """Of what is trained on: names, texts and lengths."""
        said = "\n".join(f"{u.id}\t{u.text}\t{len(x)}" for u, x in zip(self.utterances, self.audio, strict=True))
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def load(
    where: str,
    split: str,
    config: Config,
    tokens: Tokens,
    training: bool,
    check: Callable[[], None] = lambda: None,
) -> Corpus:
    """Reads the recordings of a manifest; what cannot be used is left out, named, and counted.

    Those behind the first `data.memory` bytes are only looked at, and read again for each batch that has them. `check`
    is called after each, and may raise.
    """
    data, rate = config.data, config.features.rate
    read = partial(recordings.given, config.features) if config.features.given else partial(recordings.sound, rate)
    width = 4 * config.features.bins if config.features.given else 2  # bytes of a frame, or of a sample
    found = manifest.read(where, split or None)
    mel = features.of(config.features)
    dropped, spoiled = dict[str, int](), Spoiled(int(data.broken * len(found)))
    corpus, cached = Corpus([], [], [], dropped), data.cache and training and not config.features.given
    with ThreadPoolExecutor(4) as pool:
        size = partial(recordings.size, config.features)
        nothing = np.zeros((0, config.features.bins), np.float32) if config.features.given else np.zeros(0, np.int16)
        sizes = [round(u.duration * rate) if u.duration is not None else size(u) for u in found]
        fits = width * np.cumsum([0, *sizes[1:]]) <= data.memory  # the first one always

        def look(u: Utterance, here: bool) -> np.ndarray | OnDisk | DataError:
            return read(u) if here or not size(u) else OnDisk(read, u, size(u), nothing, spoiled)

        for u, x in zip(found, pool.map(look, found, fits.tolist()), strict=True):
            check()
            why = _unusable(u, x, config, mel, tokens, training)
            if why is not None:
                dropped[why] = dropped.get(why, 0) + 1
                log.warning("%s: %s", u.path, x if isinstance(x, DataError) else why)
                continue
            assert not isinstance(x, DataError)
            if cached and isinstance(x, OnDisk):
                raise DataError(
                    f"{where} takes more than data.memory {data.memory} bytes: raise it, or data.cache = false"
                )
            corpus.utterances.append(u._replace(duration=len(x) / rate))
            corpus.audio.append(mel(as_floats(x)) if cached and isinstance(x, np.ndarray) else x)
            corpus.labels.append(tokens.encode(u.text) if training else _known(tokens, u.text))
    broken = dropped.get("unreadable", 0)
    if broken > data.broken * len(found):
        raise DataError(
            f"{where}: {broken} of {len(found)} recordings are unreadable, data.broken allows {data.broken:.0%}"
        )
    if not corpus.audio:
        raise DataError(f"{where}: no recording can be used: {dropped}")
    return corpus


def _unusable(u: Utterance, x, config: Config, mel: LogMel | Given, tokens: Tokens, training: bool) -> str | None:
    if isinstance(x, DataError):
        return "unreadable"
    if not training:
        return None
    seconds, frames = len(x) / config.features.rate, mel.frames(len(x)) // config.model.stack
    if config.model.reduce_after:
        frames //= 2
    if not config.data.shortest <= seconds <= config.data.longest:
        return "shorter than data.shortest" if seconds < config.data.shortest else "longer than data.longest"
    if tokens.unknown(u.text):
        return "characters out of the vocabulary"
    count = len(tokens.encode(u.text))
    if not count:
        return "nothing is said after normalisation"
    if frames < 1 or (config.model.head == "ctc" and frames < count):
        return "more labels than frames"
    return None


def _known(tokens: Tokens, text: str) -> list[int]:
    return [] if tokens.unknown(text) else tokens.encode(text)


class Ahead:
    """Batches by position: `at` makes one."""

    def at(self, position: int) -> Any:
        raise NotImplementedError

    def from_(self, position: int) -> Generator[Any, None, None]:
        """Batch after batch, made ahead by a thread of its own."""
        with ThreadPoolExecutor(1) as pool:
            waiting = [pool.submit(self.at, position + i) for i in range(AHEAD)]
            try:
                while True:
                    position += 1
                    yield waiting.pop(0).result()
                    waiting.append(pool.submit(self.at, position + AHEAD - 1))
            finally:
                for future in waiting:
                    future.cancel()


class Batches(Ahead):
    """The batches of a corpus, by position. `shapes` lists the (samples, labels) that they can have.

    `share` is (i, n) of a process that reads the i-th of n parts of each batch's recordings, and no other.
    """

    def __init__(self, corpus: Corpus, size: int, buckets: int, seed: int, share: tuple[int, int] = (0, 1)):
        if len(corpus.audio) < size:
            raise DataError(f"{len(corpus.audio)} utterances fill no batch of {size}: lower train.batch, or add data")
        self.corpus, self.size, self.seed = corpus, size, seed
        self.mine = range(share[0] * size // share[1], (share[0] + 1) * size // share[1])
        lengths = corpus.lengths
        order = np.argsort(lengths, kind="stable")
        parts = max(1, min(buckets, len(order) // size))
        self.buckets = [np.sort(part) for part in np.array_split(order, parts)]
        counts = corpus.counts
        self.shapes = [(int(lengths[bucket].max()), int(counts[bucket].max())) for bucket in self.buckets]
        self.per_epoch = sum(len(bucket) // size for bucket in self.buckets)
        self._plan: tuple[int, list[tuple[int, np.ndarray]]] = (-1, [])

    def at(self, position: int) -> Batch:
        bucket, rows = self._epoch(position // self.per_epoch)[position % self.per_epoch]
        samples, labels = self.shapes[bucket]
        return pad(self.corpus, rows, samples, labels, self.size, self.mine)

    def _epoch(self, epoch: int) -> list[tuple[int, np.ndarray]]:
        """Every bucket shuffled and cut into batches, all batches shuffled; what fills no batch waits an epoch."""
        if self._plan[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            batches = []
            for number, bucket in enumerate(self.buckets):
                rows = rng.permutation(bucket)[: len(bucket) // self.size * self.size]
                batches += [(number, part) for part in rows.reshape(-1, self.size)]
            self._plan = (epoch, [batches[i] for i in rng.permutation(len(batches))])
        return self._plan[1]


def in_order(corpus: Corpus, size: int, buckets: int = 4) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every utterance once, (rows, batch): the shortest first, the last batches padded with nothing."""
    lengths = corpus.lengths
    order = np.argsort(lengths, kind="stable")
    counts = corpus.counts
    for part in np.array_split(order, max(1, min(buckets, len(order) // size))):
        longest, most = max(int(lengths[part].max()), 1), max(int(counts[part].max()), 1)
        for first in range(0, len(part), size):
            rows = part[first : first + size]
            yield rows, pad(corpus, rows, longest, most, size)


def pad(
    corpus: Corpus, rows: Sequence[int] | np.ndarray, samples: int, labels: int, size: int, mine: range | None = None
) -> Batch:
    """These utterances, of which those outside `mine` are not read."""
    like = corpus.nothing
    x, y = np.zeros((size, samples, *like.shape[1:]), like.dtype), np.zeros((size, labels), np.int32)
    lengths, counts = np.zeros(size, np.int32), np.zeros(size, np.int32)
    for i, row in enumerate(rows):
        counts[i] = len(corpus.labels[row])
        y[i, : counts[i]] = corpus.labels[row]
    read = [i for i in range(len(rows)) if mine is None or i in mine]
    for i, sound in zip(read, _sounds(corpus, [int(rows[i]) for i in read]), strict=True):
        lengths[i], x[i, : len(sound)] = len(sound), sound
    return Batch(x, lengths, y, counts)


def _sounds(corpus: Corpus, rows: Sequence[int]) -> Iterator[np.ndarray]:
    """Decoders let other threads run, so that those that are read again are read side by side."""
    on_disk = any(isinstance(corpus.audio[row], OnDisk) for row in rows)
    return (_READERS.map if on_disk else map)(corpus.sound, rows)


def shared(a: Corpus, b: Corpus) -> list[Utterance]:
    """Utterances of `b` that are in `a` too, by whatever path."""
    known = {(os.path.abspath(u.path), u.offset) for u in a.utterances}
    return [u for u in b.utterances if (os.path.abspath(u.path), u.offset) in known]


def statistics(corpus: Corpus, mel: LogMel | Given, most: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each bin over some of the corpus, evenly chosen."""
    chosen = np.linspace(0, len(corpus.audio) - 1, min(most, len(corpus.audio))).astype(int)
    sounds = [as_floats(corpus.sound(i)) for i in chosen]
    frames = np.concatenate([mel(x) if x.ndim == 1 else x for x in sounds])
    if not len(frames):
        raise DataError("no recording is as long as a window of features")
    return frames.mean(0, dtype=np.float64).astype(np.float32), frames.std(0, dtype=np.float64).astype(
        np.float32
    ) + 1e-3


def as_floats(x: np.ndarray) -> np.ndarray:
    """Of a recording that is kept as int16; features are floats already."""
    return x.astype(np.float32) / np.float32(32767) if x.dtype == np.int16 else x


def texts(where: str | Path, split: str) -> list[str]:
    return [u.text for u in manifest.read(where, split or None)]
