"""What every trained cell got wrong, word by word, and by how much two of them differ."""

import functools
from collections.abc import Sequence
from typing import Any

import cells
import numpy as np
import rows
from cells import MAIN, Cell

from csp.speech import paired, wer

OURS = "compressed_sensing"
LOUDER = "0 dB"  # than any noise of the training
Result = dict[str, Any]  # as run.py wrote it, and "errors": noise -> of each word
Results = dict[Cell, Result]


def read() -> Results:
    """Every result of a row or an ablation."""
    found = {}
    for path in sorted(cells.RESULTS.glob("*/*/*/*.json.gz")):
        result = cells.load(path)
        cell = Cell.named(result["cell"])
        if cell.row in rows.ROWS or cell.row in rows.ABLATIONS:
            said = _said(cell.unheard)
            result["errors"] = {
                name: _errors(said[MAIN if name == "int8" else name], heard) for name, heard in result["heard"].items()
            }
            found[cell] = result
    return found


def difference(ours: Sequence[Sequence[Result]], theirs: Sequence[Sequence[Result]], noise: str) -> paired.Difference:
    """Of rates, ours less theirs, of some runs each; a run is one cell, or one for each speaker that is left out."""
    unheard = [Cell.named(result["cell"]).unheard for result in ours[0]]
    tests = {speaker: _said(speaker)[noise] for speaker in unheard}
    sentences = [(speaker, i, clips) for speaker, test in tests.items() for i, (_, clips) in enumerate(test)]
    words = [((speaker, i), clip, speaker) for speaker, i, clips in sentences for clip in clips]
    groups = list(zip(*words, strict=True))[: 3 if len(tests) > 1 else 2]
    errors = (
        np.stack([np.concatenate([result["errors"][noise] for result in run]) for run in runs])
        for runs in (ours, theirs)
    )
    return paired.difference(*errors, groups)


@functools.cache
def _said(unheard: str) -> dict[str, list[tuple[str, list[str]]]]:
    """noise -> of every sentence, what is said and of which recordings it is made."""
    return cells.load(cells.sentences_of(unheard))


def _errors(said: list[tuple[str, list[str]]], heard: str) -> np.ndarray:
    """Of every word of the test, in order."""
    lines = heard.split(" ")
    if len(lines) != len(said):
        raise SystemExit(f"{len(lines)} sentences heard of {len(said)}: these results are of another corpus")
    each = [wer.charged(" ".join(right), " ".join(line)) for (right, _), line in zip(said, lines, strict=True)]
    return np.concatenate(each)


def plain(row: str) -> str:
    """As a table says it."""
    return row.replace("_", " ")


def points(found: dict[str, Any]) -> str:
    """Of a difference."""
    return f"{100 * found['mean']:+.2f} ({100 * found['low']:+.2f} to {100 * found['high']:+.2f})"
