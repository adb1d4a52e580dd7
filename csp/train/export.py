"""What can be delivered from a run at any time: its newest checkpoint, or a smaller model without training."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import csp
from csp.formats import FormatError
from csp.runtime.model import file_of, kind_of
from csp.train import checkpoints, config, kinds, language, limits, lmfile, loop, modelfile, pruning, step
from csp.train.config import ConfigError, Sparsity
from csp.train.data import INPUTS


def export(run: Path, out: Path, overwrite: bool = False) -> Path:
    """Writes the model of a run's newest checkpoint, finished or not."""
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists: choose another name, or --overwrite")
    at = checkpoints.newest(run / "checkpoints")
    if at is None:
        raise FormatError(f"{run} has no checkpoint: csp train --resume --out {run}")
    read = config.read(run / "config.toml")
    inputs = json.loads((run / INPUTS).read_text(encoding="utf-8"))
    task = kinds.of(read).task(read, inputs)
    stage = loop.stages(read)[at[1]["stage"]]
    rules = pruning.rules_of(read.sparsity, task.initial, stage.target)
    params = task.shaped(task.initial, at[1])
    state = checkpoints.load(at[0], step.start(params, step.optimizer(read, stage.steps, rules), read))
    about = {"family": at[1]["family"], "target": stage.target, "step": stage.begin + at[1]["step"]}
    task.save(out, loop.finished(jax.tree.map(jnp.asarray, state)), rules, about)
    return out


def prune(
    model: Path,
    out: Path,
    sparsity: float | None,
    structure: str,
    metric: str = "magnitude",
    text: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes the model with that share of its matrices' entries, or units, set to zero; nothing is trained.

    A language model may be pruned by what a text says of its weights; see `csp.train.calibrate` for metrics.
    """
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists: choose another name, or --overwrite")
    model = file_of(model)
    before = model.stat().st_size if model.exists() else 0
    said = Sparsity(method="one_shot", target=sparsity, structure=structure, metric=metric)
    if not said.is_fixed and sparsity is None:
        raise ConfigError(f"--sparsity is needed for structure {structure!r}, such as --sparsity 0.9")
    if said.is_fixed and sparsity is not None:
        raise ConfigError(f"--sparsity {sparsity}, and --structure {structure}, which has its own: name one of them")
    about = {"pruned_from": model.name}
    if kind_of(model) == lmfile.KIND:
        language.prune(model, out, dataclasses.replace(said, method=pruning.CALIBRATED), text, about)
        return csp.formats.inspect(out) | {"bytes_before": before}
    if text is not None or metric != "magnitude":
        raise ConfigError(f"{model} is no language model, which --text and --metric are for")
    found = modelfile.load(model)
    asked = dataclasses.replace(found.setup.config, sparsity=said)
    limits.demand([*limits.of_heads(asked), *limits.of_targets(said)])
    rules = pruning.rules_of(said, found.params, sparsity)
    params = csp.compress(jax.tree.map(jnp.asarray, found.params), *rules)
    csp.verify(params, *rules)
    modelfile.save(out, found.setup, params, found.tokens, rules, about)
    return csp.formats.inspect(out) | {"bytes_before": before}
