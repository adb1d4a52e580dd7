"""Sentences of single words: the right words, one speaker, and no recording in two splits."""

import json

import numpy as np
import pytest

from csp.cli import main
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


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_command_line_connects_twice_the_same(words, tmp_path, capsys):
    said = ["--train", "3", "--valid", "0", "--test", "2", "--rate", "16000", "--seed", "7", "--noise", "5,20"]
    assert main(["data", "connect", str(words), str(tmp_path / "a"), *said]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a' / 'manifest.tsv'}\n"
    assert main(["data", "connect", str(words), str(tmp_path / "b"), *said, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"manifest": str(tmp_path / "b" / "manifest.tsv")}
    assert files(tmp_path / "a") == files(tmp_path / "b")
    found = manifest.read(tmp_path / "a" / "manifest.tsv")
    assert [u.id for u in found] == ["train-00000", "train-00001", "train-00002", "test-00000", "test-00001"]
    assert {audio.describe(u.path)[:2] for u in found} == {(16_000, 1)}
    assert {str(name) for name in files(tmp_path / "a")} == {
        "manifest.tsv",
        "order.json",
        "recordings.tsv",
        *(f"{u.split}/{u.id[-5:]}.flac" for u in found),
    }
    before = files(tmp_path / "a")
    assert main(["data", "connect", str(words), str(tmp_path / "a"), *said]) == 0  # it is there
    capsys.readouterr()
    assert main(["data", "connect", str(words), str(tmp_path / "a"), *said, "--seed", "8"]) == 2
    assert "holds another corpus" in capsys.readouterr().err
    assert files(tmp_path / "a") == before


@pytest.mark.parametrize(
    ("said", "code", "why"),
    [
        (["--noise", "loud"], 2, "--noise 'loud' is no LOW,HIGH, such as 5,20"),
        (["--noise", "20,5"], 2, "noise of 20 to 5 decibels: the lowest stands first"),
        (["--rate", "1"], 2, "1 samples a second: csp reads 4000 to 192000"),
        (["--seed", "-1"], 2, "seed -1 must not be negative"),
        (["--train", "-3"], 2, "'train': -3"),
        (["--train", "0", "--valid", "0", "--test", "0"], 2, "no sentences: ask for some"),
        (["--held-out", "zoe"], 4, "has no recordings for split 'test'"),
    ],
)
def test_what_cannot_be_connected_is_one_line(said, code, why, words, tmp_path, capsys):
    assert main(["data", "connect", str(words), str(tmp_path / "out"), "--train", "2", *said]) == code
    error = capsys.readouterr().err
    assert error.startswith("csp data: ")
    assert why in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "manifest.tsv").exists()


def test_a_split_without_recordings_is_named(words, tmp_path):
    with pytest.raises(DataError, match="has no recordings for split 'dev'"):
        connect.connect(words, tmp_path / "out", {"dev": 3})
