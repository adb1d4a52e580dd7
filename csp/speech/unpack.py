"""A corpus of features in one .npz file, as a manifest of .npy files that training reads.

The .npz has `feats` [frames, bins] of all utterances, one behind the other; `offsets`, where each begins, and the end;
and `utts`, their names. The manifest beside it has `utt`, `split` and `text`, and `speaker` if there is one.
"""

import csv
import hashlib
import zipfile
from pathlib import Path

import numpy as np

from csp.formats import writing
from csp.speech import orders
from csp.speech.errors import DataError


def unpack(source: Path, table: Path, out: Path, valid: float = 0.1) -> Path:
    """Writes out/manifest.tsv and a file for each utterance; what is there already of these files is kept.

    Args:
      source: the .npz file.
      table: its manifest.
      out: a folder.
      valid: which share of the training speakers becomes the validation split, where there is none.
    """
    try:
        order = {"features": _digest(source), "manifest": _digest(table), "valid": valid}
    except OSError as error:
        raise DataError(f"{source}, {table}: no packed features with their manifest: {error}") from None
    if orders.there(out, order):
        return out / "manifest.tsv"
    try:
        with source.open("rb") as raw, np.load(raw, allow_pickle=False) as packed:
            feats, offsets, names = packed["feats"], packed["offsets"].tolist(), packed["utts"].tolist()
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, ValueError, KeyError, csv.Error, zipfile.BadZipFile) as error:
        raise DataError(f"{source}, {table}: no packed features with their manifest: {error}") from None
    if feats.ndim != 2 or len(offsets) != len(names) + 1 or sorted(offsets) != offsets or offsets[-1] > len(feats):
        raise DataError(f"{source}: its offsets do not cut {len(feats)} frames into {len(names)} utterances")
    place = {name: (offsets[i], offsets[i + 1]) for i, name in enumerate(names)}
    missing = [row["utt"] for row in rows if row.get("utt") not in place or not {"split", "text"} <= set(row)]
    if missing or not rows:
        raise DataError(f"{table}: {missing[0] if missing else 'no line'} is not in {source}, or has no split and text")
    held = _held_out(rows, valid)
    lines = ["split\tid\tspeaker\tpath\ttext"]
    for row in rows:
        first, last = place[row["utt"]]
        name = f"{row['utt']}.npy"
        if "/" in name or name.startswith("."):
            raise DataError(f"{table}: {row['utt']!r} is no name for a file")
        np.save(out / name, feats[first:last])
        split = "valid" if row["split"] == "train" and row.get("speaker", "") in held else row["split"]
        lines.append(f"{split}\t{row['utt']}\t{row.get('speaker', '')}\t{name}\t{row['text']}")
    writing.atomically(out / "manifest.tsv", ["\n".join([*lines, ""]).encode()], overwrite=True)
    return out / "manifest.tsv"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:16]


def _held_out(rows: list[dict[str, str]], share: float) -> set[str]:
    """Speakers, evenly chosen among those of the training split."""
    if any(row["split"] == "valid" for row in rows):
        return set()
    speakers = sorted({row.get("speaker", "") for row in rows if row["split"] == "train"})
    count = round(share * len(speakers))
    return {speakers[i * len(speakers) // count] for i in range(count)} if count else set()
