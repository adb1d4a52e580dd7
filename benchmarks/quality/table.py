"""The table, the comparisons and the picture, from the results that are there: results/quality.{md,json,png}.

python benchmarks/quality/table.py
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cells
import heard
import matplotlib
import numpy as np
import rows
import unheard
from cells import MAIN, Cell
from heard import LOUDER, OURS, Results, plain, points
from matplotlib import pyplot

from csp.speech import paired

matplotlib.use("Agg")

OUT = Path("results")
HIGHEST = 0.6  # the rate of what is drawn: others did not learn
Column = tuple[str, str, float]  # head, structure, target


def main() -> None:
    results = heard.read()
    found = {cell: result for cell, result in results.items() if not cell.unheard}
    if not found:
        raise SystemExit(f"{cells.RESULTS} has no results: run benchmarks/quality/run.py first")
    columns = sorted({(c.head, c.structure, c.target) for c in found})
    records = [_record(column, row, found) for column in columns for row in rows.ROWS]
    records = [record for record in records if record]
    comparisons = [line for column in columns for line in _compare(column, found)]
    parts = [record for column in columns for row in rows.ABLATIONS if (record := _record(column, row, found))]
    tried = _tried(found)
    OUT.mkdir(exist_ok=True)
    strangers = unheard.records(results)
    everything = {"rows": records, "ablations": parts, "pairs": comparisons, "unheard": strangers, "trials": tried}
    (OUT / "quality.json").write_text(json.dumps(everything, indent=1) + "\n")
    sections = {
        "Words wrong": _table(records),
        "Compressed sensing less the others": _pairs(comparisons),
        "Speakers whom training never heard": unheard.table(strangers),
        "Ablations": _ablations(parts, records),
        "What was chosen by": _search(tried),
    }
    text = "\n\n".join("\n".join([f"## {title}", "", *lines]) for title, lines in sections.items() if lines)
    (OUT / "quality.md").write_text(f"# Does compressed sensing win? Every table\n\n{text}\n")
    print(text)
    _picture(records, OUT / "quality.png")


def _of(column: Column, row: str, found: Results) -> dict[int, dict[str, Any]]:
    """seed -> result; a dense model stands in every column of its head."""
    if row == "dense":
        column = (column[0], "entries", 0.0)
    return {cell.seed: result for cell, result in found.items() if (*cell[:3], cell.row) == (*column, row)}


def _record(column: Column, row: str, found: Results) -> dict[str, Any] | None:
    results = list(_of(column, row, found).values())
    if not results or (row == "dense") != (column[2] == 0):
        return None
    rates = {name: [r["errors"][name].mean() for r in results] for name in results[0]["errors"]}
    return {
        "head": column[0],
        "structure": column[1],
        "target": column[2],
        "row": row,
        "seeds": len(results),
        "wer": {name: float(np.mean(many)) for name, many in rates.items()},
        "error": {name: _error(many) for name, many in rates.items()},
        "valid": float(np.mean([r["valid"] for r in results])),
        "flops": float(np.mean([r["flops"] for r in results])),
        "seconds": float(np.median([r["seconds"] for r in results])),
        "bytes": float(np.mean([r["bytes"] for r in results])),
    }


def _error(many: list[float]) -> float | None:
    """The standard error of a mean over seeds; one seed has none."""
    return float(np.std(many, ddof=1) / len(many) ** 0.5) if len(many) > 1 else None


def _compare(column: Column, found: Results) -> list[dict[str, Any]]:
    """Ours less each other row, on the seeds that both have; Holm's correction is for all rows of the column."""
    ours, lines = _of(column, OURS, found), []
    for row in rows.ROWS:
        theirs = _of(column, row, found)
        seeds = sorted(ours.keys() & theirs.keys())
        if row == OURS or not seeds:
            continue
        lines.append({"head": column[0], "structure": column[1], "target": column[2], "row": row, "seeds": len(seeds)})
        both = [[ours[seed]] for seed in seeds], [[theirs[seed]] for seed in seeds]
        lines[-1] |= heard.difference(*both, MAIN)._asdict()
        lines[-1]["louder"] = heard.difference(*both, LOUDER)._asdict()
    for line, p in zip(lines, paired.holm([line["p"] for line in lines]), strict=True):
        line["holm"] = p
    return lines


def _tried(found: Results) -> list[dict[str, Any]]:
    """What each setting of a method gets of the validation words, with the seed 0; some of them are rows themselves."""
    valid = {}
    for path in sorted(cells.RESULTS.glob(f"*/*/{cells.TRIAL}-*/0.json.gz")):
        result = cells.load(path)
        cell = Cell.named(result["cell"])
        valid[cell[:3], cell.row] = result["valid"]
    for column, name in list(valid):
        method = rows.trial(name)["sparsity.method"]
        for number, setting in enumerate(rows.TRIALS[method]):
            row = next((row for row, same in rows.ROWS.items() if same == setting), "")
            if (result := found.get(Cell(*column, row, 0))) is not None:
                valid[column, f"{cells.TRIAL}-{method}-{number}"] = result["valid"]
    tried = [(*column, rows.trial(name), value) for (column, name), value in valid.items()]
    return [
        {"head": h, "structure": s, "target": t, "method": said["sparsity.method"], "setting": said, "valid": v}
        for h, s, t, said, v in sorted(tried, key=lambda one: (*one[:3], one[3]["sparsity.method"], one[4]))
    ]


def _ablations(parts: list[dict[str, Any]], records: list[dict[str, Any]]) -> list[str]:
    """The parts of every column from the best on, among the rows that they are to be compared with."""
    lines = ["| with one thing changed | WER, % | 0 dB |", "|---" * 3 + "|"]
    columns = {(p["head"], p["structure"], p["target"]) for p in parts}
    beside = [r for r in records if (r["head"], r["structure"], r["target"]) in columns and _is_beside(r["row"])]
    for one in sorted([*parts, *beside], key=lambda r: (r["head"], r["structure"], r["target"], r["wer"][MAIN])):
        name = f"{plain(one['row'])}, {one['head']}, {one['structure']} {one['target']:.1%}"
        lines.append(f"| {name} | {_said(one)} | {one['wer']['0 dB']:.1%} |")
    return lines if parts else []


def _is_beside(row: str) -> bool:
    return row.startswith((OURS, "gradual"))


def _search(tried: list[dict[str, Any]]) -> list[str]:
    lines = ["| search with seed 0, validation | setting | WER, % |", "|---|---|---|"]
    for one in tried:
        where = f"{one['head']}, {one['structure']} {one['target']:.1%}"
        said = ", ".join(f"{key} = {value}" for key, value in one["setting"].items() if key != "sparsity.method")
        lines.append(f"| {plain(one['method'])}, {where} | {said or 'as it is'} | {100 * one['valid']:.2f} |")
    return lines if tried else []


def _table(records: list[dict[str, Any]]) -> list[str]:
    lines = []
    for head in sorted({r["head"] for r in records}):
        columns = sorted({(r["structure"], r["target"]) for r in records if r["head"] == head})
        by = {(r["row"], r["structure"], r["target"]): r for r in records if r["head"] == head}
        lines += ["", f"| {head}: WER, % | " + " | ".join(f"{s} {t:.1%}" for s, t in columns) + " |"]
        lines += ["|---" * (len(columns) + 1) + "|"]
        for row in rows.ROWS:
            if any((row, *column) in by for column in columns):
                shown = f"**{plain(row)}**" if row == OURS else plain(row)
                lines.append(f"| {shown} | " + " | ".join(_said(by.get((row, *c))) for c in columns) + " |")
        lines += ["", f"| {head} | 10 dB | 0 dB | int8 less float32 | training's products, of dense | s |"]
        lines += ["|---" * 6 + "|"]
        for record in (r for r in records if r["head"] == head):
            w = record["wer"]
            name = f"{plain(record['row'])}, {record['structure']} {record['target']:.1%}"
            lines.append(
                f"| {name} | {w['10 dB']:.2%} | {w['0 dB']:.2%} "
                f"| {100 * (w['int8'] - w[MAIN]):+.2f} | {record['flops']:.2f} | {record['seconds']:.0f} |"
            )
    return lines[1:]


def _said(record: dict[str, Any] | None) -> str:
    if record is None:
        return ""
    error = record["error"][MAIN]
    spread = f" ± {100 * error:.2f}" if error is not None else ""
    return f"{100 * record['wer'][MAIN]:.2f}{spread} ({record['seeds']})"


def _pairs(comparisons: list[dict[str, Any]]) -> list[str]:
    lines = [f"| {plain(OURS)} less | points (95 %) | p | Holm | seeds | in noise of {LOUDER} |", "|---" * 6 + "|"]
    for c in comparisons:
        name = f"{plain(c['row'])}, {c['head']}, {c['structure']} {c['target']:.1%}"
        chances = f"{_chance(c['p'])} | {_chance(c['holm'])}"
        lines.append(f"| {name} | {points(c)} | {chances} | {c['seeds']} | {points(c['louder'])} |")
    return lines


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< .001"


def _picture(records: list[dict[str, Any]], out: Path) -> None:
    """WER against the share of zeros, entries only; a bar is two standard errors over seeds. Up to HIGHEST, and of rows
    at more shares than one.
    """
    heads, names = sorted({r["head"] for r in records}), list(dict.fromkeys(r["row"] for r in records))
    targets = sorted({r["target"] for r in records if r["structure"] == "entries" and r["target"]})
    figure, axes = pyplot.subplots(1, len(heads), figsize=(6.4 * len(heads), 4.8), squeeze=False)
    for axis, head in zip(axes[0], heads, strict=True):
        lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in records:
            if record["head"] == head and record["structure"] == "entries":
                lines[record["row"]].append(record)
        lines = {row: [r for r in many if r["wer"][MAIN] < HIGHEST] for row, many in lines.items()}
        lines = {row: many for row, many in lines.items() if len(many) > 1 or row == "dense"}
        for number, (row, many) in enumerate(lines.items()):
            rate = 100 * np.array([r["wer"][MAIN] for r in many])
            if row == "dense":
                axis.axhline(rate[0], color="black", linestyle=":", label="dense")
                continue
            error = 200 * np.array([r["error"][MAIN] or 0.0 for r in many])
            places = [targets.index(r["target"]) + 0.02 * (number - len(lines) / 2) for r in many]
            own = {"linewidth": 2.6, "color": "crimson", "zorder": 3}
            hue = pyplot.cm.tab20(2 * names.index(row) % 20 + names.index(row) // 10)  # the same for both heads
            style = own if row == OURS else {"linewidth": 1.2, "color": hue}
            axis.errorbar(places, rate, error, label=plain(row), capsize=3, marker="o", markersize=4, **style)
        axis.set(title=f"{head}: connected digits in noise", xlabel="weights that are zero", yscale="log")
        axis.set_xticks(range(len(targets)), [f"{100 * t:g} %" for t in targets])
        axis.set_yticks([0.5, 1, 2, 3, 5, 10, 20, 30], ["0.5", "1", "2", "3", "5", "10", "20", "30"])
        axis.yaxis.minorticks_off()
        rates = [100 * r["wer"][MAIN] for many in lines.values() for r in many]
        axis.set_ylim(0.8 * min(rates), 1.3 * max(rates))
        axis.grid(alpha=0.3)
        first = min(targets.index(r["target"]) for row, many in lines.items() for r in many if row != "dense")
        axis.set_xlim(first - 0.4, len(targets) - 0.6)
    axes[0][0].set_ylabel("words wrong, %")
    named = {name: line for axis in axes[0] for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.tight_layout(rect=(0, 0.13, 1, 1))
    figure.legend(named.values(), named.keys(), fontsize=8.5, ncols=5, loc="lower center", frameon=False)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main()
