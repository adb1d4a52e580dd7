"""Many runs of one recipe: a grid of methods, sparsities, structures and seeds, each in its own directory."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from csp.formats import writing
from csp.speech import synth
from csp.train import config, row, session

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
    recipe: Path,
    out: Path,
    grid: dict[str, Sequence[str]],
    overrides: Sequence[tuple[str, str]],
    quiet: bool = False,
    together: bool = False,
) -> list[dict[str, Any]]:
    """Runs what has not been run, goes on with what was stopped, and writes results.json after each.

    `together` trains the seeds of one point in one program.
    """
    shared = list(overrides)
    said = config.read(recipe, overrides)
    if said.data.synth and said.kind == "recogniser":
        spoken = synth.speak(out / "corpus", said.data.synth, said.data.count, said.features.rate, said.train.seed)
        shared += [("data.synth", '""'), ("data.train", json.dumps(str(spoken)))]
    records = []
    for chosen in _rows(grid) if together else ([point] for point in points(grid)):
        folders = [out / _name(point) for point in chosen]
        everything = [[*shared, *((key, _toml(value)) for key, value in point)] for point in chosen]
        left = [i for i, folder in enumerate(folders) if _report(folder) is None]
        if together and len(left) > 1:
            row.train(recipe, [folders[i] for i in left], [everything[i] for i in left], quiet)
        for point, folder, overridden in zip(chosen, folders, everything, strict=True):
            begun = (folder / "config.toml").exists()
            found = _report(folder) or session.train(recipe, folder, overridden, resume=begun, quiet=quiet)
            records.append(_record(found, folder, point))
        writing.atomically(out / "results.json", [json.dumps(records, indent=1).encode()], overwrite=True)
    return records


def _rows(grid: dict[str, Sequence[str]]) -> list[list[list[tuple[str, str]]]]:
    """The points that differ in their seed only, side by side."""
    rows: dict[tuple[tuple[str, str], ...], list[list[tuple[str, str]]]] = {}
    for point in points(grid):
        rows.setdefault(tuple(item for item in point if item[0] != "train.seed"), []).append(point)
    return list(rows.values())


def _name(point: Sequence[tuple[str, str]]) -> str:
    return "-".join(value.replace(" ", "").replace(":", "of") for _, value in point) or "run"


def _report(folder: Path) -> dict[str, Any] | None:
    path = folder / "report.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _toml(value: str) -> str:
    try:
        float(value)
    except ValueError:
        return json.dumps(value)
    return value


def _record(found: dict[str, Any], folder: Path, chosen: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A flat record of quality; operations are those of the weights alone, 6 a weight and frame for a step."""
    said = found["config"]
    keys = ("wer", "wer_low", "wer_high", "perplexity", "perplexity_low", "perplexity_high", "bits_per_character")
    keys += ("words", "bytes", "dense_bytes", "rtf", "valid", "seconds", "parameters")
    return {key: found[key] for key in keys if key in found} | {
        "task": found["name"],
        "head": said["model"]["head"] if said["kind"] == "recogniser" else said["model"]["network"],
        "structure": found["structure"],
        "sparsity": 1 - found["pruned_density"] if found["method"] != DENSE else 0.0,
        "method": found["method"],
        "seed": said["train"]["seed"],
        "steps": said["train"]["steps"],
        "train_flops": _flops(found),
        "folder": folder.name,
        "command": f"csp train configs/{found['name']}.toml" + "".join(f" --{key} {value}" for key, value in chosen),
    }


def _flops(found: dict[str, Any]) -> float:
    if found["config"]["kind"] == "lm":
        said = found["config"]
        return 6.0 * found["parameters"] * said["data"]["length"] * said["train"]["batch"] * said["train"]["steps"]
    said, hours = found["config"], found["data"]["train_hours"]
    hop = 1 / said["features"]["rate"] if said["features"]["given"] else said["features"]["hop"]
    frames = hours * 3600 / found["data"]["train_utterances"] / hop / said["model"]["stack"]
    return 6.0 * found["parameters"] * frames * said["train"]["batch"] * said["train"]["steps"]
