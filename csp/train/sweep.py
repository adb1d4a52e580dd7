"""Many runs of one recipe: a grid of methods, sparsities, structures and seeds, each in its own directory."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from csp.formats import writing
from csp.speech import synth
from csp.train import config, session

DENSE = "dense"


def points(grid: dict[str, Sequence[str]]) -> Iterator[list[tuple[str, str]]]:
    """The overrides of every run; a dense run has no sparsity, so that there is one for each seed."""
    seen = set()
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        if chosen.get("sparsity.method") == DENSE:
            chosen = {
                key: value for key, value in chosen.items() if key not in ("sparsity.target", "sparsity.structure")
            }
        key = tuple(chosen.items())
        if key not in seen:
            seen.add(key)
            yield list(chosen.items())


def sweep(
    recipe: Path, out: Path, grid: dict[str, Sequence[str]], overrides: Sequence[tuple[str, str]], quiet: bool = False
) -> list[dict[str, Any]]:
    """Runs what has not been run, goes on with what was stopped, and writes results.json after each."""
    shared = list(overrides)
    said = config.read(recipe, overrides)
    if said.data.synth:
        spoken = synth.speak(out / "corpus", said.data.synth, said.data.count, said.features.rate, said.train.seed)
        shared += [("data.synth", '""'), ("data.train", json.dumps(str(spoken)))]
    records = []
    for chosen in points(grid):
        name = "-".join(value.replace(" ", "").replace(":", "of") for _, value in chosen) or "run"
        folder = out / name
        found = _report(folder)
        if found is None:
            everything = [*shared, *((key, _toml(value)) for key, value in chosen)]
            begun = (folder / "config.toml").exists()
            found = session.train(recipe, folder, everything, resume=begun, quiet=quiet)
        records.append(_record(found, folder))
        writing.atomically(out / "results.json", [json.dumps(records, indent=1).encode()], overwrite=True)
    return records


def _report(folder: Path) -> dict[str, Any] | None:
    path = folder / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _toml(value: str) -> str:
    try:
        float(value)
    except ValueError:
        return json.dumps(value)
    return value


def _record(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A flat record of quality; operations are those of the weights alone, 6 a weight and frame for a step."""
    said = found["config"]
    keys = ("wer", "wer_low", "wer_high", "words", "bytes", "dense_bytes", "rtf", "valid_wer", "seconds", "parameters")
    return {key: found[key] for key in keys} | {
        "task": found["name"],
        "head": said["model"]["head"],
        "structure": found["structure"],
        "sparsity": 1 - found["pruned_density"] if found["method"] != DENSE else 0.0,
        "method": found["method"],
        "seed": said["train"]["seed"],
        "steps": said["train"]["steps"],
        "train_flops": _flops(found),
        "folder": folder.name,
        "command": f"csp train configs/{found['name']}.toml --train.seed {said['train']['seed']}",
    }


def _flops(found: dict[str, Any]) -> float:
    said, hours = found["config"], found["data"]["train_hours"]
    frames = hours * 3600 / found["data"]["train_utterances"] / said["features"]["hop"] / said["model"]["stack"]
    return 6.0 * found["parameters"] * frames * said["train"]["batch"] * said["train"]["steps"]
