"""How does any finished model become a file, and what does a file say that it is?"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

import csp
from csp import formats
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
    formats.save(
        path,
        jax.tree.map(np.asarray, tree),
        config.decode.codec,
        said,
        values=None if config.decode.values == "f32" else config.decode.values,
        rules=[dataclasses.replace(rule, pattern=f"model/(?:{rule.pattern})") for rule in rules],
        method=pruning.method_of(config.sparsity, config.train.steps) if rules else None,
        about=about,
        overwrite=True,
    )
    return path


def said_in(path: str | Path, kind: str, what: str) -> dict[str, Any]:
    """The config of a file of that kind."""
    with formats.open(path) as file:
        said = file.manifest.config
    if not isinstance(said, dict) or said.get("kind") != kind:
        raise ValueError(f"{path} holds no {what} that csp trained: csp inspect {path} shows what it holds")
    return said
