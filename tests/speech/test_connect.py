"""Sentences of single words: the right words, one speaker, and no recording in two splits."""

import numpy as np
import pytest

from csp.speech import audio, connect, manifest
from csp.speech.errors import DataError

RATE = 8000


@pytest.fixture
def words(tmp_path):
    """Each recording is a constant of its own, so that it can be told in a sentence."""
    rows = ["path\ttext\tspeaker\tsplit"]
    for number in range(96):
        split, speaker, text = ("test" if number < 8 else "train"), "ab"[number % 2], ["ONE", "TWO"][number // 2 % 2]
        audio.write(tmp_path / f"{number}.wav", np.full(800, 0.1 + number / 200, np.float32), RATE)
        rows.append(f"{number}.wav\t{text}\t{speaker}\t{split}")
    (tmp_path / "m.tsv").write_text("\n".join(rows) + "\n")
    return tmp_path / "m.tsv"


def levels(x: np.ndarray) -> list[float]:
    """The ratio of each word to the first, from the middle of the stretches that are loud."""
    loud = np.abs(x) > 0.02
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
    return [float(np.median(x[a:b])) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 400]


def test_sentences_are_whole_and_of_one_speaker(words, tmp_path):
    path = connect.connect(words, tmp_path / "out", {"train": 12, "valid": 3, "test": 6})
    found = manifest.read(path)
    assert [sum(u.split == s for u in found) for s in ("train", "valid", "test")] == [12, 3, 6]
    for u in found:
        x = audio.read(u.path)
        assert 3 <= len(u.text.split()) <= 7
        assert len(levels(x)) == len(u.text.split())
        assert u.duration == pytest.approx(len(x) / RATE, abs=1e-3)
    made = [line.split("\t") for line in (path.parent / connect.RECORDINGS).read_text().splitlines()[1:]]
    said = {u.id: u.text for u in manifest.read(words)}
    assert [(name, " ".join(said[clip] for clip in clips.split())) for name, clips in made] == [
        (u.id, u.text) for u in found
    ]


def test_a_recording_is_in_one_split_only(words):
    pools = connect._pools(manifest.read(words), {"train": 1, "valid": 1, "test": 1}, "")
    names = {split: {u.id for many in of.values() for u in many} for split, of in pools.items()}
    assert names["valid"]
    assert not names["train"] & names["valid"]
    assert not names["train"] & names["test"]
    held = connect._pools(manifest.read(words), {"train": 1, "test": 1}, "a")
    assert set(held["test"]) == {"a"}
    assert set(held["train"]) == {"b"}


def test_the_same_seed_says_the_same_and_noise_is_as_loud_as_asked(words, tmp_path):
    a, b = (connect.connect(words, tmp_path / name, {"train": 3}) for name in "ab")
    noisy = connect.connect(words, tmp_path / "c", {"train": 3}, noise=(10.0, 10.0))
    for x, y in zip(manifest.read(a), manifest.read(b), strict=True):
        assert x.path.read_bytes() == y.path.read_bytes()
    u = manifest.read(noisy)[0]
    x = audio.read(u.path)
    clean = audio.read(manifest.read(a)[0].path)
    assert manifest.read(a)[0].text == u.text
    assert 10 * np.log10(np.mean(clean**2) / np.mean((x - clean) ** 2)) == pytest.approx(10, abs=0.5)


def test_a_split_without_recordings_is_named(words, tmp_path):
    with pytest.raises(DataError, match="has no recordings for split 'dev'"):
        connect.connect(words, tmp_path / "out", {"dev": 3})
