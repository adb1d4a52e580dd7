"""How fast is a pruned language model, label by label? Dense against each kind of compression, alone and eight at once.

Random weights of a Transformer (5 M parameters by default), one thread, after 24 labels. int8 weights if not said
otherwise. Ratios are medians of interleaved turns of ten calls, over the dense float32 model.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import numpy as np
from _timing import medians, save, show

import csp
from csp import structures
from csp.lowrank import descend
from csp.models import lm
from csp.runtime import lmbench
from csp.runtime.bench import matrices, walk
from csp.runtime.lm import LanguageModel
from csp.speech.tokens import Tokens
from csp.train import lmfile
from csp.train.config import Config, Data, Decode

AGAIN = 10  # calls in a turn
PATTERN = "blocks/.*kernel"
HIDDEN, HEADS = ".*feed/down/kernel", ".*attention/out/kernel"


def forms(heads: int) -> dict[str, tuple[csp.Rule, ...]]:
    entries, columns = structures.entries(), structures.n_of_m
    return {
        "entries 75 %": (csp.Rule(PATTERN, entries, sparsity=0.75),),
        "entries 90 %": (csp.Rule(PATTERN, entries, sparsity=0.9),),
        "2:4": (csp.Rule(PATTERN, columns(2, 4)),),
        "12:128": (csp.Rule(PATTERN, columns(12, 128)),),
        "blocks 16x1 90 %": (csp.Rule(PATTERN, structures.blocks(16, 1), sparsity=0.9),),
        "hidden 75 %": (csp.Rule(HIDDEN, structures.rows(), sparsity=0.75),),
        "attention 50 %": (csp.Rule(HEADS, structures.heads(heads, axis=-2), sparsity=0.5),),
    }


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/lm_speed.json"))
    chosen = parser.parse_args()
    config = lm.LMConfig(layers=chosen.layers, width=chosen.width)
    tokens = Tokens("words", tuple(f"W{i}" for i in range(chosen.vocabulary)))
    _, params = lm.create(config, tokens.size)
    with tempfile.TemporaryDirectory() as folder:
        files = _files(Path(folder), config, params, tokens)
        sizes = {name: path.stat().st_size for name, path in files.items()}
        models = {name: LanguageModel(path) for name, path in files.items()}
    calls = {(n, name): lmbench.step(model, n) for name, model in models.items() for n in lmbench.AT_ONCE}
    calls |= {("walk", name): walk(model.kernels, matrices(model)) for name, model in models.items()}
    times = {key: seconds / AGAIN for key, seconds in medians({k: _again(f) for k, f in calls.items()}).items()}
    first = next(iter(models))
    records = [
        {
            "form": name,
            "bytes": sizes[name],
            "in_memory": sum(w.nbytes for w in matrices(model)),
            "label_us": 1e6 * times[1, name],
            "labels_per_second": 1 / times[1, name],
            "faster": times[1, first] / times[1, name],
            "eight_us": 1e6 * times[8, name],
            "eight_labels_per_second": 8 / times[8, name],
            "eight_faster": times[8, first] / times[8, name],
            "matrices_us": 1e6 * times["walk", name],
            "matrices_faster": times["walk", first] / times["walk", name],
        }
        for name, model in models.items()
    ]
    columns = ["form", "bytes", "in_memory", "label_us", "labels_per_second", "faster", "eight_us"]
    show(records, [*columns, "eight_labels_per_second", "eight_faster", "matrices_us", "matrices_faster"])
    save(records, chosen.out)


def _again(f: Callable[[], Any]) -> Callable[[], None]:
    """A model that is at work has its weights in the cache."""

    def several() -> None:
        for _ in range(AGAIN):
            f()

    return several


def _files(folder: Path, config: lm.LMConfig, params, tokens: Tokens) -> dict[str, Path]:
    made = {"dense float32": (params, (), "f32"), "dense": (params, (), "int8")}
    for name, rules in forms(config.heads).items():
        made[name] = (csp.compress(params, *rules), rules, "int8")
    for saving in (0.5, 0.75):
        made[f"rank {saving:.0%}"] = (descend(params, 1 - saving)[0], (), "int8")
    files = {}
    for i, (name, (tree, rules, values)) in enumerate(made.items()):
        files[name] = folder / f"{i}.safetensors"
        said = Config(kind="lm", data=Data(synth="digits"), model=config, decode=Decode(values=values))
        lmfile.save(files[name], said, jax.tree.map(np.asarray, tree), tokens, rules)
    return files


if __name__ == "__main__":
    main()
