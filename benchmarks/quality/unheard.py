"""Each speaker in turn is left out of the training and alone in the test: who wins there?"""

from typing import Any

import heard
import numpy as np
import rows
from cells import MAIN
from heard import LOUDER, OURS, Result, Results, plain, points


def records(found: Results) -> list[dict[str, Any]]:
    """Of each row of each column, its rates with each speaker left out, and ours less its, on what both have."""
    by: dict[tuple[Any, ...], dict[tuple[int, str], Result]] = {}
    for cell, result in found.items():
        if cell.unheard and cell.row in rows.ROWS:
            by.setdefault((cell.head, cell.target, cell.structure, cell.row), {})[cell.seed, cell.unheard] = result
    lines = []
    for (head, target, structure, row), results in sorted(by.items(), key=_place):
        rates = {name: _rates(results, name) for name in (MAIN, LOUDER)}
        said = {"head": head, "structure": structure, "target": target, "row": row}
        said["seeds"] = len({seed for seed, _ in results})
        lines.append(said | {"wer": rates, "less": _less(by.get((head, target, structure, OURS), {}), results, row)})
    return lines


def _place(item: tuple[tuple[Any, ...], Any]) -> tuple[Any, ...]:
    *column, row = item[0]
    return *column, list(rows.ROWS).index(row)


def _rates(results: dict[tuple[int, str], Result], noise: str) -> dict[str, float]:
    """speaker -> the mean over seeds."""
    by: dict[str, list[float]] = {}
    for (_, speaker), result in results.items():
        by.setdefault(speaker, []).append(result["errors"][noise].mean())
    return {speaker: float(np.mean(many)) for speaker, many in sorted(by.items())}


def _less(ours: dict[tuple[int, str], Result], theirs: dict[tuple[int, str], Result], row: str) -> dict[str, Any]:
    speakers = sorted({speaker for _, speaker in ours.keys() & theirs.keys()})
    seeds = sorted({seed for seed, _ in ours})
    whole = [s for s in seeds if all((s, speaker) in ours and (s, speaker) in theirs for speaker in speakers)]
    if row == OURS or not whole:
        return {}
    both = [[[one[seed, speaker] for speaker in speakers] for seed in whole] for one in (ours, theirs)]
    return {noise: heard.difference(*both, noise)._asdict() for noise in (MAIN, LOUDER)}


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Rates with each speaker left out, and their mean; ours less the row's."""
    speakers = sorted({speaker for line in lines for speaker in line["wer"][MAIN]})
    names = ["left out: WER, %", *speakers, "mean", f"mean in {LOUDER}", "seeds", f"{plain(OURS)} less", f"in {LOUDER}"]
    shown = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for line in lines:
        name = f"{plain(line['row'])}, {line['head']}, {line['structure']} {line['target']:.1%}"
        main, loud = line["wer"][MAIN], line["wer"][LOUDER]
        each = [f"{100 * main[speaker]:.2f}" if speaker in main else "" for speaker in speakers]
        means = [f"{100 * np.mean(list(rates.values())):.2f}" for rates in (main, loud)]
        less = [points(line["less"][noise]) if line["less"] else "" for noise in (MAIN, LOUDER)]
        shown.append(f"| {' | '.join([name, *each, *means, str(line['seeds']), *less])} |")
    return shown if lines else []
