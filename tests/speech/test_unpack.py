"""Corpora without sound: features in one file, unpacked, checked, read."""

import numpy as np
import pytest

from csp.cli import main
from csp.speech import check, features, manifest, unpack
from csp.speech.errors import DataError


@pytest.fixture
def packed(tmp_path):
    """(npz, its manifest): eleven speakers, two utterances each, of 1 to 22 frames."""
    rng = np.random.default_rng(0)
    lengths = np.arange(1, 23)
    feats = rng.normal(size=(lengths.sum(), 5)).astype(np.float16)
    names = [f"u{i:02d}" for i in range(22)]
    np.savez(tmp_path / "f.npz", feats=feats, offsets=np.concatenate([[0], np.cumsum(lengths)]), utts=np.array(names))
    lines = ["split\tutt\tspeaker\ttext"]
    lines += [f"{'test' if i > 19 else 'train'}\t{name}\ts{i // 2}\tWORD {i}" for i, name in enumerate(names)]
    (tmp_path / "m.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path / "f.npz", tmp_path / "m.tsv", feats


def test_every_utterance_is_there_and_speakers_stay_apart(packed, tmp_path):
    source, table, feats = packed
    path = unpack.unpack(source, table, tmp_path / "out")
    found = manifest.read(path)
    assert np.array_equal(np.concatenate([features.read(u.path, 5) for u in found]), feats.astype(np.float32))
    speakers = {split: {u.speaker for u in found if u.split == split} for split in ("train", "valid", "test")}
    assert len(speakers["valid"]) == 1
    assert not speakers["train"] & speakers["valid"]
    assert speakers["test"] == {"s10"}
    assert check.check(path)[1] == []
    assert unpack.unpack(source, table, tmp_path / "out") == path  # it is there
    table.write_text(table.read_text().replace("WORD 3", "WORD THREE"))
    with pytest.raises(ValueError, match="holds another corpus"):
        unpack.unpack(source, table, tmp_path / "out")


def test_a_damaged_archive_is_said(packed, tmp_path):
    source, table, _ = packed
    source.write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(DataError, match="no packed features"):
        unpack.unpack(source, table, tmp_path / "out")


def test_what_does_not_fit_is_said(packed, tmp_path, capsys):
    source, table, feats = packed
    with pytest.raises(DataError, match="no packed features"):
        unpack.unpack(table, table, tmp_path / "a")
    table.write_text("split\tutt\ttext\ntrain\tnobody\tWORD\n")
    with pytest.raises(DataError, match="nobody is not in"):
        unpack.unpack(source, table, tmp_path / "b")
    np.savez(source, feats=feats, offsets=np.array([0, 10**9]), utts=np.array(["nobody"]))
    with pytest.raises(DataError, match="do not cut"):
        unpack.unpack(source, table, tmp_path / "c")
    np.savez(source, feats=feats, offsets=np.array([0, 3]), utts=np.array(["../u"]))
    table.write_text("split\tutt\ttext\ntrain\t../u\tWORD\n")
    with pytest.raises(DataError, match="no name for a file"):
        unpack.unpack(source, table, tmp_path / "d")
    assert main(["data", "unpack", str(tmp_path / "none.npz"), str(table), str(tmp_path / "e")]) == 4
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("y", "why"),
    [
        (np.zeros((4, 6), np.float32), "floats of \\[frames, 5\\]"),
        (np.zeros(4, np.float32), "floats of"),
        (np.zeros((4, 5), np.int32), "floats of"),
        (np.full((4, 5), np.nan, np.float32), "NaN"),
        (np.array([{}], object), "is no .npy file"),
    ],
)
def test_files_that_hold_no_features_are_refused(y, why, tmp_path):
    np.save(tmp_path / "y.npy", y, allow_pickle=True)
    with pytest.raises(DataError, match=why):
        features.read(tmp_path / "y.npy", 5)


def test_a_stretch_of_a_file_is_read(tmp_path):
    y = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.save(tmp_path / "y.npy", y)
    assert np.array_equal(features.read(tmp_path / "y.npy", 2, 3, 4), y[3:7])
    with pytest.raises(DataError, match="ends 1 frames before"):
        features.read(tmp_path / "y.npy", 2, 7, 4)
    (tmp_path / "text.npy").write_text("words")
    with pytest.raises(DataError, match="is no"):
        features.read(tmp_path / "text.npy", 2)
