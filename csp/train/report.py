"""What came out of a run? report.json for programs, report.md for people: a table, and a model card."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from csp.formats import FormatError, writing
from csp.train.config import Config, as_toml
from csp.train.plain import as_plain
from csp.train.task import Data


def write(out: Path, config: Config, rows: Sequence[dict[str, Any]], data: Data, seconds: float) -> dict[str, Any]:
    """Writes both files; the JSON is that of the last model, with all of them under "models"."""
    last = dict(rows[-1])
    found = last | {
        "name": config.name,
        "models": list(rows),
        "seconds": seconds,
        "data": data.facts(),
        "machine": f"{platform.machine()}, {jax.device_count()} {jax.devices()[0].device_kind}, jax {jax.__version__}",
        "config": as_plain(config),
    }
    _put(out / "report.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    _put(out / "report.md", _markdown(config, rows, found))
    return found


def read(folder: Path) -> dict[str, Any] | None:
    """That of a finished run; None where there is none."""
    path = folder / "report.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not (isinstance(found, dict) and found.get("models")):
        raise FormatError(f"{path} is no report of a run: remove it, csp train --resume --out {folder} writes another")
    return found


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Head and rows: what a person wants to know first."""
    quality = _heard if "wer" in rows[-1] else _read
    head = ["model", "dense", "file", "smaller", "density", *quality(None)]
    return [head] + [
        [
            row["file"],
            f"{row['dense_bytes'] / 1e3:,.0f} kB",
            f"{row['bytes'] / 1e3:,.0f} kB",
            f"{row['dense_bytes'] / row['bytes']:.1f}x",
            f"{row['pruned_density']:.1%}" if row["method"] != "dense" else "100%",
            *quality(row),
        ]
        for row in rows
    ]


def _heard(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return ["WER", "95 %", "words", "real-time factor"]
    interval = f"{row['wer_low']:.2%}-{row['wer_high']:.2%}"
    return [f"{row['wer']:.2%}", interval, f"{row['words']:,}", f"{row['rtf']:.4f}"]


def _read(row: dict[str, Any] | None) -> list[str]:
    if row is None:
        return ["perplexity of a word", "95 %", "bits/character", "words"]
    interval = f"{row['perplexity_low']:.2f}-{row['perplexity_high']:.2f}"
    return [f"{row['perplexity']:.2f}", interval, f"{row['bits_per_character']:.3f}", f"{row['words']:,}"]


def _put(path: Path, text: str) -> None:
    writing.atomically(path, [text.encode("utf-8")], overwrite=True)


_HEARD = """WER is that of the file on the test split, its interval a bootstrap over utterances; density that of pruned
matrices; the real-time factor that of the runtime, one recording after the other on one core, on {machine}."""
_READ = """Perplexity is that of the file on the test text, of a word, the end of a sentence counted as one, its
interval a bootstrap over sentences; density that of pruned matrices. Trained on {machine}."""


def _markdown(config: Config, rows: Sequence[dict[str, Any]], found: dict[str, Any]) -> str:
    head, *body = table(rows)
    last, speech = rows[-1], config.kind == "recogniser"
    lines = [f"# {config.name}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    data, model, source = found["data"], config.model, config.data
    network = f"{model.encoder} encoder, {model.head} head" if speech else f"{model.network} language model"
    size = (
        f"{data['train_hours']:.2f} h, {data['train_utterances']:,} utterances"
        if speech
        else f"{data['train_words']:,} words, {data['train_sentences']:,} sentences"
    )
    use = f"csp transcribe {last['file']} AUDIO" if speech else f"csp eval {last['file']} --text TEXT"
    lines += [
        "",
        *(_HEARD if speech else _READ).format(machine=found["machine"]).splitlines(),
        "",
        "## Model card",
        "",
        f"- **Model**: {network}, {last['parameters']:,} parameters",
        f"- **Pruned by**: {last['method']}, {last['structure']}, {last['steps']:,} steps",
        f"- **Data**: {_source(source, speech)}, {size}"
        + "".join(f", left out of the {part}: {left}" for part, left in _left_out(data).items()),
        f"- **Licence**: {_licence(source)}",
        f"- **Not taken steps** (NaN or spike): {last['refused']}"
        + (f"; utterances that fitted no alignment: {last['unaligned']}" if speech else ""),
        f"- **Run it**: `{use}`, `csp inspect {last['file']}`",
        f"- **Trained in** {found['seconds'] / 60:.1f} minutes",
        "",
    ]
    if speech:
        worst = [f"- said `{w['reference']}`, heard `{w['heard']}`" for w in last["worst"]]
        lines += ["## Worst utterances", "", *(worst or ["None: every word was right."]), ""]
    lines += ["## Config", "", "```toml", as_toml(config).rstrip(), "```", ""]
    return "\n".join(lines)


def _source(data: Any, speech: bool) -> str:
    made = f"synthetic {'speech' if speech else 'text'}, grammar {data.synth!r}"
    return made if data.synth else f"`{data.train}`"


def _left_out(data: dict[str, Any]) -> dict[str, Any]:
    parts = {"training": "dropped", "validation": "valid_dropped", "test": "test_dropped"}
    return {part: data[key] for part, key in parts.items() if data.get(key)}


def _licence(data: Any) -> str:
    """What the config says; the model's is that of its data."""
    if data.licence:
        return data.licence
    return "the data are made up, and carry none" if data.synth else "that of the data: look there, say data.licence"
