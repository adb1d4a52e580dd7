"""What came out of a run? report.json for programs, report.md for people: a table, and a model card."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from csp.formats import writing
from csp.train.config import Config, as_plain
from csp.train.data import Prepared


def write(out: Path, config: Config, rows: Sequence[dict[str, Any]], data: Prepared, seconds: float) -> dict[str, Any]:
    """Writes both files; the JSON is that of the last model, with all of them under "models"."""
    last = dict(rows[-1])
    found = last | {
        "name": config.name,
        "models": list(rows),
        "seconds": seconds,
        "data": {
            "train_hours": data.train.hours,
            "train_utterances": len(data.train.utterances),
            "dropped": data.train.dropped,
            "test_utterances": len(data.test.utterances),
        },
        "machine": f"{platform.machine()}, {jax.device_count()} {jax.devices()[0].device_kind}, jax {jax.__version__}",
        "config": as_plain(config),
    }
    _put(out / "report.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    _put(out / "report.md", _markdown(config, rows, found))
    return found


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Head and rows: what a person wants to know first."""
    head = ["model", "dense", "file", "smaller", "density", "WER", "95 %", "words", "real-time factor"]
    return [head] + [
        [
            row["file"],
            f"{row['dense_bytes'] / 1e3:,.0f} kB",
            f"{row['bytes'] / 1e3:,.0f} kB",
            f"{row['dense_bytes'] / row['bytes']:.1f}x",
            f"{row['pruned_density']:.1%}" if row["method"] != "dense" else "100%",
            f"{row['wer']:.2%}",
            f"{row['wer_low']:.2%}-{row['wer_high']:.2%}",
            f"{row['words']:,}",
            f"{row['rtf']:.4f}",
        ]
        for row in rows
    ]


def _put(path: Path, text: str) -> None:
    writing.atomically(path, [text.encode("utf-8")], overwrite=True)


def _markdown(config: Config, rows: Sequence[dict[str, Any]], found: dict[str, Any]) -> str:
    head, *body = table(rows)
    lines = [f"# {config.name}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    worst = [f"- said `{w['reference']}`, heard `{w['heard']}`" for w in rows[-1]["worst"]]
    data, model, source = found["data"], config.model, config.data
    lines += [
        "",
        "WER is that of the file on the test split, its interval a bootstrap over utterances; density that of pruned",
        f"matrices; the real-time factor that of JAX in batches of 16, without reading, on {found['machine']}.",
        "",
        "## Model card",
        "",
        f"- **Model**: {model.encoder} encoder, {model.head} head, {rows[-1]['parameters']:,} parameters",
        f"- **Pruned by**: {rows[-1]['method']}, {rows[-1]['structure']}, {rows[-1]['steps']:,} steps",
        f"- **Data**: {_source(source)}, {data['train_hours']:.2f} h, {data['train_utterances']:,} utterances"
        + (f", left out: {data['dropped']}" if data["dropped"] else ""),
        f"- **Licence of the model**: that of its data; {_licence(source)}",
        f"- **Not taken steps** (NaN or spike): {rows[-1]['refused']}",
        f"- **Run it**: `csp transcribe {rows[-1]['file']} AUDIO`, `csp inspect {rows[-1]['file']}`",
        f"- **Trained in** {found['seconds'] / 60:.1f} minutes",
        "",
        "## Worst utterances",
        "",
        *(worst or ["None: every word was right."]),
        "",
    ]
    return "\n".join(lines)


def _source(data: Any) -> str:
    return f"synthetic speech, grammar {data.synth!r}" if data.synth else f"`{data.train}`"


def _licence(data: Any) -> str:
    return "synthetic speech carries none of its own" if data.synth else "look into the data's README"
