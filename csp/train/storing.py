"""How does any finished model become a file, and what does a file say that it is?"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

import csp
from csp import formats, lowrank
from csp.train import pruning
from csp.train.config import Config


def store(
    path: Path,
    tree: Any,
    said: dict[str, Any],
    config: Config,
    rules: tuple[csp.Rule, ...],
    about: dict[str, Any] | None,
) -> Path:
    """Writes it, and reads it back before it counts as written; `rules` are those of tree["model"]."""
    low = [f"model/{t.path}" for t in csp.rules.bind(tree["model"], rules) if t.is_rank and _saves(t)] if rules else []
    formats.save(
        path,
        jax.tree.map(np.asarray, tree),
        {re.escape(name): "factors" for name in low} | {".*": config.decode.codec},
        said,
        values=None if config.decode.values == "f32" else config.decode.values,
        rules=[dataclasses.replace(rule, pattern=f"model/(?:{rule.pattern})") for rule in rules],
        method=pruning.method_of(config.sparsity, config.train.steps) if rules else None,
        about=about,
        overwrite=True,
    )
    return path


def _saves(target: csp.rules.Target) -> bool:
    return lowrank.worthwhile(target.shape, int(target.kept))


def said_in(path: str | Path, kind: str, what: str) -> dict[str, Any]:
    """The config of a file of that kind."""
    with formats.open(path) as file:
        said = file.manifest.config
    if not isinstance(said, dict) or said.get("kind") != kind:
        raise ValueError(f"{path} holds no {what} that csp trained: csp inspect {path} shows what it holds")
    return said


def values_in(path: Path) -> str:
    """How the largest matrix of a file is stored, as a config's decode.values has it."""
    matrices = [row for row in formats.inspect(path)["tensors"] if len(row["shape"]) > 1]
    return max(matrices, key=lambda row: row["size"])["values"]
