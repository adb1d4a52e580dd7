"""Many runs of one recipe: a grid of methods, sparsities, structures and seeds, each in its own directory."""

import hashlib
import itertools
import json
import logging
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from csp.formats import FormatError, writing
from csp.speech import synth
from csp.speech.errors import DataError
from csp.train import config, guard, limits, pruning, report, row, session
from csp.train.config import Config, ConfigError
from csp.train.loop import Diverged
from csp.train.plain import toml

log = logging.getLogger("csp")
DENSE = "dense"


Grid = Mapping[str, Sequence[Any]]  # the values of each key
Point = list[tuple[str, Any]]


def points(grids: Sequence[Grid]) -> list[Point]:
    """The overrides of every run, of one grid after the other, each once.

    A dense run has no sparsity, so that there is one for each seed; N:M says its own.
    """
    found: dict[str, Point] = {}
    for grid in grids:
        for values in itertools.product(*grid.values()):
            chosen = dict(zip(grid, values, strict=True))
            if chosen.get("sparsity.method") == DENSE:
                chosen = {k: chosen[k] for k in chosen if k == "sparsity.method" or not k.startswith("sparsity.")}
            if limits.is_fixed(chosen.get("sparsity.structure", "")):
                chosen = {key: chosen[key] for key in chosen if key != "sparsity.target"}
            found.setdefault(_key(chosen.items()), list(chosen.items()))
    return list(found.values())


def sweep(
    recipe: Path,
    out: Path,
    grid: Grid,
    overrides: Sequence[tuple[str, str]],
    quiet: bool = False,
    together: bool = False,
) -> list[dict[str, Any]]:
    """Runs what has not been run, goes on with what was stopped, and writes results.json after each.

    Without a `grid` it runs those of the recipe, [[sweep]]. `together` trains the seeds of one point in one program.
    What cannot be trained, or diverges, is left out, and said: at once, and by the error that ends it all.
    """
    said = _first(recipe, grid, overrides)
    shared, grids = [*overrides, ("sweep", "[]")], [grid] if grid else _checked(said.sweep)
    moved = []
    if said.data.synth and said.kind == "recogniser":
        spoken = synth.speak(out / "corpus", said.data.synth, said.data.count, said.features.rate, said.train.seed)
        shared += [("data.synth", '""'), ("data.train", json.dumps(str(spoken)))]
        moved = ["data.train"]  # the spoken corpus may have moved with its sweep
    names = _names(points(grids))
    for point in points(grids):  # before anything is trained
        try:
            read = config.read(recipe, [*shared, *_overrides(point)])
        except ConfigError:  # which is said when its turn comes
            continue
        folder = out / names[_key(point)]
        session.belongs(folder, read, moved, finished=report.read(folder) is not None)
    out.mkdir(parents=True, exist_ok=True)
    records, refused = [], {}
    with guard.Stop() as stop:
        for chosen in _rows(grids) if together else ([point] for point in points(grids)):
            folders = [out / names[_key(point)] for point in chosen]
            everything = [[*shared, *_overrides(point)] for point in chosen]
            left = [i for i, folder in enumerate(folders) if report.read(folder) is None]
            if together and len(left) > 1 and _fits(recipe, everything[0]):
                row.train(recipe, [folders[i] for i in left], [everything[i] for i in left], quiet)
            for point, folder, overridden in zip(chosen, folders, everything, strict=True):
                if stop.asked:
                    raise guard.Stopped(f"stopped before {folder.name}")
                begun = (folder / "config.toml").exists()
                try:
                    found = report.read(folder) or session.train(recipe, folder, overridden, resume=begun, quiet=quiet)
                except (ValueError, Diverged) as error:
                    if isinstance(error, DataError | FormatError):  # all runs have the same
                        raise
                    log.error("%s: %s", folder.name, error)
                    refused[folder.name] = error
                    continue
                records.append(_record(found, folder, recipe, [*overrides, *point]))
            writing.atomically(out / "results.json", [json.dumps(records, indent=1).encode()], overwrite=True)
    if refused and not records:
        raise next(iter(refused.values()))
    if refused:
        raise ConfigError(
            f"{len(refused)} of {len(refused) + len(records)} runs could not be: {', '.join([*refused][:4])}; "
            f"{out / 'results.json'} has the others"
        )
    return records


def _first(recipe: Path, grid: Grid, overrides: Sequence[tuple[str, str]]) -> Config:
    """The config of the first run that has one, whatever its seed."""
    wrong = None
    for point in points([grid]) if grid else [[]]:
        try:
            pruning.check(config.read(recipe, [*overrides, *_overrides(point)]))
            return config.read(recipe, [*overrides, *_overrides([item for item in point if item[0] != "train.seed"])])
        except ValueError as error:
            wrong = wrong or error
    raise wrong or ConfigError("nothing to sweep: a key has no values")


def _fits(recipe: Path, overrides: list[tuple[str, str]]) -> bool:
    """Can its seeds be trained together?"""
    try:
        return row.is_possible(config.read(recipe, overrides))
    except ConfigError:  # which is said where each is trained alone
        return False


def _checked(grids: Sequence[dict[str, Any]]) -> Sequence[Grid]:
    if not grids:
        raise ConfigError("nothing to sweep: name --sparsity, --method, ..., or give the config a [[sweep]]")
    for grid in grids:
        for key, values in grid.items():
            if not isinstance(values, list) or not values:
                raise ConfigError(f"sweep: {key} = {values!r} is no list of values")
    return grids


def _rows(grids: Sequence[Grid]) -> list[list[Point]]:
    """The points that differ in their seed only, side by side."""
    rows: dict[str, list[Point]] = {}
    for point in points(grids):
        rows.setdefault(_key(item for item in point if item[0] != "train.seed"), []).append(point)
    return list(rows.values())


def _key(point: Iterable[tuple[str, Any]]) -> str:
    """Alike for the same values of the same keys."""
    return json.dumps(dict(point), sort_keys=True)


def _names(points: Sequence[Point]) -> dict[str, str]:
    """A folder for each: "entries-fisher-0.5-200"; those that would share one get a mark of their own."""
    short = {_key(point): _name(point) for point in points}
    many = Counter(short.values())
    marks = {key: hashlib.blake2b(key.encode(), digest_size=3).hexdigest() for key in short}
    return {key: name if many[name] == 1 else f"{name}-{marks[key]}" for key, name in short.items()}


def _name(point: Point) -> str:
    """Its values; of a table its keys too."""
    return "-".join(_short(value) for _, value in point) or "run"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(f"{key}{_short(inner)}" for key, inner in value.items()) or "plain"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9._]+", "", text.replace(":", "of"))


def _overrides(point: Point) -> list[tuple[str, str]]:
    return [(key, _toml(value)) for key, value in point]


def _toml(value: Any) -> str:
    """As one writes it in TOML; a word of the command line may be a number."""
    if not isinstance(value, str):
        return toml(value)
    try:
        float(value)
    except ValueError:
        return json.dumps(value)
    return value


def _said(value: Any) -> str:
    return shlex.quote(value if isinstance(value, str) else toml(value))


def _record(found: dict[str, Any], folder: Path, recipe: Path, chosen: Point) -> dict[str, Any]:
    """A flat record of quality; operations are those of the weights alone, 6 a weight and frame for a step."""
    said = found["config"]
    keys = ("wer", "wer_low", "wer_high", "perplexity", "perplexity_low", "perplexity_high", "bits_per_character")
    keys += ("words", "bytes", "dense_bytes", "rtf", "label_us", "valid", "seconds", "parameters")
    return {key: found[key] for key in keys if key in found} | {
        "task": found["name"],
        "head": said["model"]["head"] if said["kind"] == "recogniser" else said["model"]["network"],
        "structure": found["structure"],
        "sparsity": 1 - found["pruned_density"] if found["method"] != DENSE else 0.0,
        "method": found["method"],
        "metric": found["metric"],
        "rungs": said["sparsity"]["options"].get("rungs", 1),
        "seed": said["train"]["seed"],
        "steps": said["train"]["steps"],
        "train_flops": _flops(found),
        "folder": folder.name,
        "command": " ".join([f"csp train configs/{recipe.name}", *(f"--{k} {_said(v)}" for k, v in chosen)]),
    }


def _flops(found: dict[str, Any]) -> float:
    if found["config"]["kind"] == "lm":
        said = found["config"]
        return 6.0 * found["parameters"] * said["data"]["length"] * said["train"]["batch"] * said["train"]["steps"]
    said, hours = found["config"], found["data"]["train_hours"]
    hop = 1 / said["features"]["rate"] if said["features"]["given"] else said["features"]["hop"]
    frames = hours * 3600 / found["data"]["train_utterances"] / hop / said["model"]["stack"]
    return 6.0 * found["parameters"] * frames * said["train"]["batch"] * said["train"]["steps"]
