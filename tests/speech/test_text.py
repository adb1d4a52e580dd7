"""Texts as people have them: plain, compressed, with a name before each sentence; and what is no text."""

import bz2
import gzip
import lzma

import pytest

from csp.speech import text
from csp.speech.errors import DataError

LINES = ["FIRST SENTENCE", "SECOND", "THE THIRD"]


def test_every_form_gives_the_same_sentences(tmp_path):
    plain = "\n".join(LINES) + "\n"
    (tmp_path / "a.txt").write_text(plain)
    (tmp_path / "crlf.txt").write_bytes(b"\xef\xbb\xbf" + plain.replace("\n", "\r\n\r\n").encode())
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(plain.encode()))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(plain.encode()))
    (tmp_path / "a.txt.bz2").write_bytes(bz2.compress(plain.encode()))
    (tmp_path / "named.tsv").write_text("".join(f"id-{i}\t{line}\n" for i, line in enumerate(LINES)))
    (tmp_path / "manifest.tsv").write_text(
        "path\ttext\n" + "".join(f"{i}.wav\t{line}\n" for i, line in enumerate(LINES))
    )
    for path in tmp_path.iterdir():
        assert text.lines(path) == LINES, path


def test_a_manifest_has_splits(tmp_path):
    rows = ["path\ttext\tsplit", "a.wav\tONE\ttrain", "b.wav\tTWO\tvalid"]
    (tmp_path / "m.tsv").write_text("\n".join(rows) + "\n")
    assert text.lines(tmp_path / "m.tsv", "valid") == ["TWO"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b"", "has no sentence"),
        ("a.txt", b" \n\n", "has no sentence"),
        ("a.txt", b"A\nB" * 200_000 + b"C" * 500_000, "no sentence"),
        ("a.txt", b"A" * 100_001 + b"\n", "line 1: more than 100,000 characters"),
        ("a.txt", b"FINE\n\x00\x01\x02\n", "line 2: a zero byte"),
        ("a.txt", b"FINE\n\xff\xfe\n", "line 2: no UTF-8"),
        ("a.txt.xz", b"no xz at all", "cannot be unpacked"),
        ("a.txt.gz", gzip.compress(b"A\n" * 1000, mtime=0)[:30], "cannot be unpacked"),
        ("a.txt.xz", lzma.compress(b"A B\n" * 100_000)[:80], "cannot be unpacked"),
    ],
    ids=range(9),
)
def test_what_is_no_text_is_one_line(name, content, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says) as found:
        text.lines(tmp_path / name)
    assert str(found.value).count(name) == 1  # said once
    with pytest.raises(DataError, match="is no file"):
        text.lines(tmp_path / "none.txt")
