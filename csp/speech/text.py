"""What is in a text, sentence by sentence? Plain, compressed, or the transcripts of a manifest."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from csp.speech import manifest
from csp.speech.errors import DataError

LONGEST = 100_000  # characters of a line that can be a sentence
_OPEN: dict[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}


def lines(where: str | Path, split: str = "") -> list[str]:
    """The sentences of a text, one a line; of a folder or a manifest the transcripts, of that split if it has any.

    A .tsv file without a head, such as Kaldi's and LibriSpeech's, has the sentence in its last column.
    """
    path = Path(where)
    if not path.exists():
        raise DataError(f"{path} is no file: name a text, one sentence a line")
    if is_manifest(path):
        return [u.text for u in manifest.read(where, split or None)]
    found = list(_lines(path))
    if path.suffix == ".tsv":
        found = [line.rpartition("\t")[2] for line in found]
    found = [line for line in found if line.strip()]
    if not found:
        raise DataError(f"{path} has no sentence: one a line")
    return found


def splits(where: str | Path) -> set[str]:
    """Of a manifest or a folder; a text has none."""
    return {u.split for u in manifest.scan(where)[0]} if is_manifest(Path(where)) else set()


def is_manifest(path: Path) -> bool:
    """Or a text, one sentence a line?"""
    if path.is_dir() or path.suffix in (".json", ".jsonl"):
        return True
    return path.suffix == ".tsv" and "text" in next(_lines(path), "").split("\t")


def _lines(path: Path) -> Iterator[str]:
    with _OPEN.get(path.suffix, open)(path, "rb") as file:
        number, raw = 0, b""
        try:
            while raw := file.readline(4 * LONGEST):
                number += 1
                text = raw.decode("utf-8").rstrip("\r\n")
                if len(text) > LONGEST or (len(raw) == 4 * LONGEST and raw[-1:] != b"\n"):
                    raise DataError(
                        f"{path}, line {number}: more than {LONGEST:,} characters are no sentence: "
                        "cut the text into one sentence a line"
                    )
                if "\0" in text:
                    raise DataError(f"{path}, line {number}: a zero byte: a text was expected, this is binary")
                yield text.removeprefix("\ufeff") if number == 1 else text
        except UnicodeDecodeError:
            if len(raw) == 4 * LONGEST:
                raise DataError(f"{path}, line {number}: no sentence ends in {4 * LONGEST:,} bytes") from None
            raise DataError(f"{path}, line {number}: no UTF-8: convert it, such as with iconv") from None
        except (EOFError, lzma.LZMAError, OSError, zlib.error) as error:
            raise DataError(f"{path}: cannot be unpacked: {error}") from None
