"""What can be delivered from a run at any time: its newest checkpoint, or a smaller model without training."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import csp
from csp.formats import FormatError
from csp.train import checkpoints, config, kinds, loop, modelfile, pruning, step
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


def prune(model: Path, out: Path, sparsity: float | None, structure: str, overwrite: bool = False) -> dict[str, Any]:
    """Writes the model with that share of its matrices' entries, or units, set to zero; nothing is trained."""
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists: choose another name, or --overwrite")
    found = modelfile.load(model)
    said = Sparsity(method="one_shot", target=sparsity, structure=structure)
    rules = pruning.rules_of(said, found.params, sparsity)
    if not rules:
        raise ConfigError(f"--sparsity is needed for structure {structure!r}, such as --sparsity 0.9")
    params = csp.compress(jax.tree.map(jnp.asarray, found.params), *rules)
    csp.verify(params, *rules)
    modelfile.save(out, found.setup, params, found.tokens, rules, {"pruned_from": model.name})
    return csp.formats.inspect(out)
