"""The tables of a grid of language models: perplexities by criterion and structure, and the differences that decide."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Record = dict[str, Any]

HEAD = """# The grid of language models, every cell

Written by `{command}`. Perplexity of a word on the test's sentences; several seeds stand side by side. Where
a structure has a sparsity of its own (2:4, 12:128) no target is named; `rank` counts bytes, the others weights.

Dense: {dense}.
"""
STRUCTURES = ("entries", "2:4", "12:128", "blocks 16x1", "hidden", "attention 4", "rank")
CRITERIA = ("magnitude", "taylor", "fisher", "activation", "movement", "second_order", "admm", "adam")
QUESTIONS = {
    "magnitude": "A criterion less magnitude, all else alike",
    "at_once": "Four rungs less at once, with as many steps",
    "calibrated": "Compressed sensing less magnitude at once",
}


def tables(records: Sequence[Record]) -> str:
    dense = [f"{record['perplexity']:.1f}" for record in records if record["method"] == "dense"]
    said = [HEAD.format(command=records[0]["command"], dense=", ".join(dense) or "not run")]
    sparse = [record for record in records if record["method"] != "dense"]
    for steps in sorted({record["steps"] for record in sparse}):
        for name, chosen in _schedulers([record for record in sparse if record["steps"] == steps]):
            said += [f"## {name}, {steps} steps\n" if steps else "## Nothing trained\n", _perplexities(chosen)]
    for question, title in QUESTIONS.items():
        asked = [record for record in sparse if f"less_than_{question}" in record and record["steps"]]
        if asked:
            said += [f"## {title}, nats of a word\n", _differences(asked, question)]
    return "\n".join(said)


def _schedulers(records: Sequence[Record]) -> Iterable[tuple[str, list[Record]]]:
    kinds: dict[str, Callable[[Record], bool]] = {
        "At once": lambda record: record["method"] == "calibrated" and record["rungs"] == 1,
        "In four rungs": lambda record: record["method"] == "calibrated" and record["rungs"] > 1,
        "Compressed sensing": lambda record: record["method"] != "calibrated",
    }
    for name, belongs in kinds.items():
        if chosen := [record for record in records if belongs(record)]:
            yield name, chosen


def _perplexities(records: Sequence[Record]) -> str:
    columns = sorted({_form(record) for record in records}, key=_place)
    criteria = [name for name in CRITERIA if any(record["metric"] == name for record in records)]
    lines = ["| criterion | " + " | ".join(map(_said, columns)) + " |", "|---" * (1 + len(columns)) + "|"]
    for criterion in criteria:
        cells = [_cell(r for r in records if r["metric"] == criterion and _form(r) == form) for form in columns]
        lines.append(f"| {criterion.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(records: Iterable[Record]) -> str:
    return ", ".join(f"{record['perplexity']:,.0f}" for record in sorted(records, key=lambda record: record["seed"]))


def _differences(records: Sequence[Record], question: str) -> str:
    lines = ["| structure | criterion | steps | rate | seed | nats, 95 % |", "|---|---|---|---|---|---|"]
    for record in sorted(records, key=lambda r: (_place(_form(r)), CRITERIA.index(r["metric"]), r["steps"], r["seed"])):
        less, low, high = (record[name] for name in (f"less_than_{question}", f"{question}_low", f"{question}_high"))
        rungs = ", in rungs" if record["rungs"] > 1 and question != "at_once" else ""
        lines.append(
            f"| {_said(_form(record))} | {record['metric'].replace('_', ' ')}{rungs} | {record['steps']} "
            f"| {record['learning_rate']:g} | {record['seed']} | {less:+.3f} ({low:+.3f} to {high:+.3f}) |"
        )
    return "\n".join(lines) + "\n"


def _form(record: Record) -> tuple[str, float | None]:
    return record["structure"], None if ":" in record["structure"] else record["target"]


def _place(form: tuple[str, float | None]) -> tuple[int, float]:
    return STRUCTURES.index(form[0]), form[1] or 0


def _said(form: tuple[str, float | None]) -> str:
    structure, target = form
    return structure if target is None else f"{structure}, {100 * target:g} %"
