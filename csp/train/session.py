"""How is a run begun, gone on with, and finished? A directory, its config, its models, its report."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from csp import formats
from csp.formats import FormatError, writing
from csp.train import checkpoints, guard, kinds, logs, mesh, pruning, report
from csp.train.config import Config, ConfigError, as_toml, read
from csp.train.guard import Lock, Stop, Stopped
from csp.train.loop import Finished, Run, stages
from csp.train.plain import as_plain
from csp.train.task import Data

log = logging.getLogger("csp")
_MAY_CHANGE = (
    "decode",  # of what is not delivered yet
    "train.checkpoint_every",
    "train.keep",
    "train.tensorboard",
    "data.memory",
    "data.licence",
    "name",
)


def train(
    config_path: str | Path | None,
    out: str | Path | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    *,
    resume: bool = False,
    strict: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Trains what a config says, and returns its report; Stopped if a signal ends it before.

    Args:
      config_path: a TOML file; with `resume`, the run directory's own by default.
      out: the run directory; runs/NAME by default.
      overrides: ("sparsity.target", "0.95"), ... in place of what the file says.
      resume: go on from the newest checkpoint, if there is one.
      strict: a damaged checkpoint is an error, not a reason to use the one before.
      quiet: show no progress.
    """
    if config_path is None:
        if not (resume and out is not None):
            raise ConfigError("name a config, such as configs/digits.toml; or --resume with --out DIR")
        config_path = Path(out) / "config.toml"
    config = read(config_path, overrides)
    pruning.check(config)
    out = Path(out) if out is not None else Path("runs") / config.name
    if config.train.distributed:
        mesh.join()
    with Lock(out) if mesh.is_first() else contextlib.nullcontext(), Stop() as stop, _going_on(out):
        if mesh.is_first():
            claim(out, config, resume, [key for key, _ in overrides])
        say = (lambda text: None) if quiet or not mesh.is_first() else _say
        say(f"{out}: {'making' if config.data.synth else 'reading'} the data")
        with _unclaimed(out, resume):
            data = kinds.of(config).prepare(config, out, stop.check if jax.process_count() == 1 else lambda: None)
            say(f"{data.said()}; compiling")
            at = checkpoints.newest(out / "checkpoints", strict) if resume else None
            if resume and at is None and (lost := logs.reached(out / "metrics.jsonl")):
                raise FormatError(
                    f"{out} has no checkpoint, but its log reaches step {lost}: restore them, or --out another"
                )
            said = origin(config, data)
            _same(at, said, [key for key, _ in overrides])
            if stop.asked:
                raise Stopped("stopped before the first step")
            return _train(Run(config, out, data, stop, said, quiet), at)


def origin(config: Config, data: Data) -> dict[str, Any]:
    """What a checkpoint remembers of where it comes from."""
    return {"data": data.digest(), "family": _family(config), "machine": _machine()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _train(run: Run, at: tuple[Path, dict[str, Any]] | None) -> dict[str, Any]:
    rows = list(at[1]["rows"]) if at else []
    run.said["rows"] = rows
    last = stages(run.config)[-1]
    for done in run.train(at):
        name = "model" if done.stage == last else f"model-{done.stage.number}-{done.stage.target or 0:g}"
        rows.append(deliver(run, done, run.out / f"{name}.safetensors") if mesh.is_first() else {})
    if not mesh.is_first():
        return {"name": run.config.name, "models": []}
    return report.write(run.out, run.config, rows, run.data, run.seconds)


def deliver(run: Run, done: Finished, path: Path) -> dict[str, Any]:
    """Writes a model, and tests that file; one process does."""
    target = done.stage.target
    about = {"family": run.said["family"], "target": target}
    run.task.save(path, done.params, done.rules, about)
    found = run.task.test(path, run.data)
    files, sparsity = formats.inspect(path), run.config.sparsity
    pruned = bool(done.rules) or (sparsity.method != "dense" and target is not None)
    dense = sum(w.size for w in jax.tree.leaves(run.task.initial))
    weights = [row for row in files["tensors"] if row["structure"]]
    whole = {"nonzero": sum(row["nonzero"] for row in files["tensors"]), "size": dense}
    return {
        "file": path.name,
        "target": target,
        "structure": sparsity.structure if pruned else "dense",
        "method": sparsity.method if pruned else "dense",
        "metric": pruning.metric_of(sparsity),
        "density": _density(done.params),
        "pruned_density": sum(r["nonzero"] for r in weights or [whole]) / sum(r["size"] for r in weights or [whole]),
        "parameters": sum(row["size"] for row in files["tensors"]),
        "bytes": files["bytes"],
        "dense_bytes": 4 * dense,
        "steps": done.stage.steps,
        "refused": done.refused,
        "unaligned": done.unaligned,
        "valid": run.best.get("value"),
    } | found


def _density(params: Any) -> float:
    leaves = jax.tree.leaves(params)
    return float(sum(int((w != 0).sum()) for w in leaves) / sum(w.size for w in leaves))


def claim(out: Path, config: Config, resume: bool, named: Sequence[str]) -> None:
    """The directory is empty, or a run of this very config that shall go on."""
    path, text = out / "config.toml", as_toml(config)
    if path.exists() and not resume:
        raise ConfigError(f"{out} holds a run: --resume goes on with it, --out DIR begins another")
    belongs(out, config, named, "begin another with --out DIR, or say --{key} VALUE")
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        writing.atomically(path, [text.encode()], overwrite=True)


@contextlib.contextmanager
def _going_on(out: Path) -> Iterator[None]:
    try:
        yield
    except Stopped as stopped:
        stopped.out = out
        raise


@contextlib.contextmanager
def _unclaimed(out: Path, resume: bool) -> Iterator[None]:
    """A directory whose first run fails before there is a checkpoint of it is free for the next."""
    try:
        yield
    except Stopped:
        raise
    except Exception:
        if not resume and mesh.is_first() and not checkpoints.found(out / "checkpoints"):
            (out / "config.toml").unlink(missing_ok=True)
        raise


def belongs(
    out: Path,
    config: Config,
    named: Sequence[str],
    cure: str = "begin another with --out DIR",
    finished: bool = False,
) -> None:
    """The directory is empty, or that of a run of this config but for what is `named`, and what it may yet change."""
    path = out / "config.toml"
    if not path.exists():
        return
    before = tomllib.loads(path.read_text(encoding="utf-8"))
    after = tomllib.loads(as_toml(config))
    may = _MAY_CHANGE[1:] if finished else _MAY_CHANGE
    changed = [key for key in _different(before, after) if not key.startswith(may) and key not in named]
    if changed:
        raise ConfigError(f"{out} was begun with another {', '.join(changed[:4])}: {cure.format(key=changed[0])}")


def _different(a: Mapping[str, Any], b: Mapping[str, Any], where: str = "") -> list[str]:
    keys = []
    for key in sorted({*a, *b}):
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping) and not where:
            keys += _different(left, right, f"{key}.")
        elif left != right:
            keys.append(f"{where}{key}")
    return keys


def _same(at: tuple[Path, dict[str, Any]] | None, said: dict[str, Any], named: Sequence[str]) -> None:
    if at is None:
        return
    if at[1]["data"] != said["data"] and not any(key.startswith("data.") for key in named):
        raise ConfigError(
            f"{at[0]} was trained on other recordings or transcripts: restore them, or name data.train anew"
        )
    if at[1]["machine"] != said["machine"]:
        log.warning("resuming on %s what was begun on %s: not bit for bit the same", said["machine"], at[1]["machine"])


def _machine() -> str:
    """What rounding depends on."""
    cores = f", {guard.cores()} cores" if jax.default_backend() == "cpu" else ""
    return f"jax {jax.__version__}, {jax.device_count()} {jax.devices()[0].device_kind}{cores}"


def _family(config: Config) -> str:
    plain = as_plain(dataclasses.replace(config, name=""))
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=8).hexdigest()
