"""Which reason, which structure, how gradually? Every model of a grid of language models, by the same sentences.

First the grid, or as much of it as there is time for: csp sweep configs/lm_grid.toml --out runs/lm_grid. Of its models
three things are asked, each of pairs that differ in nothing else: is a criterion better than magnitude, are four rungs
better than one, compressed sensing better than pruning by magnitude at once and training on? The difference is that of
nats per word, its interval a paired bootstrap over the test's sentences; what a model's sentences cost stays beside it.
The time of a label is measured anew, of all models in turns, and drawn with the sizes beside the JSON, where all cells
stand as tables too.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from _grid_tables import tables
from _timing import save, show

from csp.runtime import lmbench
from csp.train import config, kinds, language, perplexity, plots
from csp.train.perplexity import Surprise, difference
from csp.train.text import Sentences

ONE = ("structure", "sparsity", "metric", "method", "rungs", "steps", "seed")
TURNS = 5
QUESTIONS: dict[str, dict[str, Any]] = {  # what the rival has in its place, the first of it in any case
    "magnitude": {"metric": "magnitude"},
    "at_once": {"rungs": 1},
    "calibrated": {"method": "calibrated", "metric": "magnitude"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "grids", type=Path, nargs="+", metavar="DIR", help="what csp sweep wrote, results.json and runs"
    )
    parser.add_argument("--out", type=Path, default=Path("results/lm_grid.json"), help="default: %(default)s")
    chosen = parser.parse_args()
    found = {_key(record): (record, grid) for grid in chosen.grids for record in _read(parser, grid)}
    folders = {key: grid / record["folder"] for key, (record, grid) in found.items()}
    surprises, latencies = _scored(folders), _timed(folders)
    records = [
        record | {"trained": record["command"]} | _asked(folders[key]) | _answers(key, surprises) | latencies[key]
        for key, (record, _) in found.items()
    ]
    records.sort(key=lambda one: (one["structure"], one["sparsity"], one["steps"], one["perplexity"]))
    columns = [*ONE, "bytes", "label_us", "perplexity"]
    show(records, [*columns, *(f"less_than_{name}" for name in QUESTIONS)])
    save(records, chosen.out)
    chosen.out.with_suffix(".md").write_text(tables(json.loads(chosen.out.read_text())))
    drawn = [plots.Finished(folders[key], _report(folders[key], latencies[key])) for key in found]
    print(f"wrote {plots.surprise(drawn, chosen.out.with_suffix('.png'))}")


def _read(parser: argparse.ArgumentParser, grid: Path) -> list[dict[str, Any]]:
    if not (grid / "results.json").is_file():
        parser.error(f"{grid} has no results.json: csp sweep configs/lm_grid.toml --out {grid}")
    return json.loads((grid / "results.json").read_text())


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(round(record[name], 2) if name == "sparsity" else record[name] for name in ONE)


def _scored(folders: dict[tuple[Any, ...], Path]) -> dict[tuple[Any, ...], Surprise]:
    """Their models by the test text, which is that of the first."""
    first = next(iter(folders.values()))
    read = config.read(first / "config.toml")
    data = kinds.of(read).prepare(read, first)
    task = language.Language(read, data.inputs)
    return {key: _surprise(task, folder, data.test) for key, folder in folders.items()}


def _surprise(task: language.Language, folder: Path, test: Sentences) -> Surprise:
    """By a model's file; kept beside it, for the next time."""
    model, kept = folder / "model.safetensors", folder / "nats.npy"
    if not kept.exists() or kept.stat().st_mtime < model.stat().st_mtime:
        part = kept.with_suffix(".part.npy")
        np.save(part, task.score(model, test).nats)
        part.replace(kept)
    return perplexity.of(np.load(kept), test)


def _timed(folders: dict[tuple[Any, ...], Path]) -> dict[tuple[Any, ...], dict[str, float]]:
    turns = [{key: lmbench.latency(at / "model.safetensors") for key, at in folders.items()} for _ in range(TURNS)]
    return {key: {"label_us": min(turn[key] for turn in turns)} for key in folders}


def _asked(folder: Path) -> dict[str, Any]:
    read = config.read(folder / "config.toml")
    return {"target": read.sparsity.target, "learning_rate": read.train.learning_rate}


def _report(folder: Path, latency: dict[str, float]) -> dict[str, Any]:
    found = json.loads((folder / "report.json").read_text())
    return found | {"models": [found["models"][-1] | latency]}


def _answers(key: tuple[Any, ...], surprises: dict[tuple[Any, ...], Surprise]) -> dict[str, float]:
    answers = {}
    for name, change in QUESTIONS.items():
        ours, changed = dict(zip(ONE, key, strict=True)), next(iter(change))
        rival = tuple((ours | change).values())
        if ours[changed] != change[changed] and rival in surprises:
            less = difference(surprises[key], surprises[rival])
            answers |= dict(zip((f"less_than_{name}", f"{name}_low", f"{name}_high"), less, strict=True))
    return answers


if __name__ == "__main__":
    main()
