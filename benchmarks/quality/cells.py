"""One cell of the table: which head, which structure and how many zeros, which row, which seed; and its training."""

import dataclasses
import gzip
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import rows

from csp import formats, models
from csp.runtime import Recognizer
from csp.speech import connect, manifest
from csp.train import config, evaluate, modelfile, pruning, recognise, session
from csp.train import row as train_row
from csp.train.plain import toml

HERE = Path(__file__).parent
RECIPE = HERE.parent.parent / "configs" / "fsdd.toml"
RESULTS = HERE / "results"
NOISE = {"5 to 20 dB": (5.0, 20.0), "10 dB": (10.0, 10.0), "0 dB": (0.0, 0.0)}  # of the tests; training has the first
MAIN = "5 to 20 dB"
SENTENCES = {"train": 3000, "valid": 1500, "test": 1600}
HEADS: dict[str, rows.Setting] = {  # so that both have 0.2 to 0.4 million weights
    "ctc": {"model.head": "ctc"},
    "transducer": {"model.head": "transducer", "model.predictor": 64, "model.joint": 64},
}
WORDS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
PATHS = ("data.train", "train.init", "train.teacher")
TRIAL = "trial"  # a folder of results that chose a setting, on validation words only
pruning.METHODS["l1"] = rows.l1  # for this benchmark only


class Cell(NamedTuple):
    head: str  # "ctc", "transducer"
    structure: str  # "entries", "12:128"
    target: float  # the share that is zero; of N:M, what N and M say
    row: str
    seed: int
    unheard: str = ""  # a speaker of whom training hears nothing, and the test nobody else

    def __str__(self) -> str:
        head = "-".join(filter(None, (self.head, self.unheard)))
        return f"{head}/{self.structure.replace(':', 'of')}-{self.target:g}/{self.row}/{self.seed}"

    @classmethod
    def named(cls, said: str) -> "Cell":
        """The cell that prints as `said`."""
        found = re.fullmatch(r"(\w+)(?:-(\w+))?/(\w+)-([\d.]+)/([^/]+)/(\d+)", said)
        if not found or found[1] not in HEADS:
            examples = "ctc/entries-0.9/gradual/0, ctc/12of128-0.90625/gradual/0 or ctc-theo/entries-0.9/gradual/0"
            raise SystemExit(f"{said!r} is no cell such as {examples}")
        head, unheard, structure, target, row, seed = found.groups()
        structure = re.sub(r"(\d)of(\d)", r"\1:\2", structure)
        return cls(head, structure, float(target), row, int(seed), unheard or "")

    @property
    def result(self) -> Path:
        return RESULTS / f"{self}.json.gz"

    def overrides(self, corpus: Path) -> list[tuple[str, str]]:
        """What this cell changes in the recipe, as `csp train` takes it."""
        said: dict[str, Any] = {
            "train.seed": self.seed,
            "train.evaluate_every": 0,
            "data.train": str(corpus),
            "data.cache": True,
            "decode.values": "f32",
            "sparsity.structure": self.structure,
        } | HEADS[self.head]
        said |= {} if ":" in self.structure else {"sparsity.target": self.target}
        said |= rows.setting(self.row)
        if said["sparsity.method"] == "dense":
            said = {key: value for key, value in said.items() if key not in ("sparsity.structure", "sparsity.target")}
        if said.pop(rows.MASK, None):
            del said["sparsity.target"]
        said.pop(rows.TEACHER, None)
        if said.pop("small", False):
            said |= {f"model.{part}": width for part, width in _narrow(self.head, self.target).items()}
        return [(key, toml(value)) for key, value in said.items()]


def run(cell: Cell, data: Path, runs: Path, quiet: bool = False) -> dict[str, Any]:
    """Trains it, or goes on with it, hears the tests, and keeps what was heard."""
    folder = runs / str(cell)
    data = corpus(data, cell.unheard)
    overrides = [*cell.overrides(data / MAIN / "manifest.tsv"), *_others(cell, runs, folder)]
    start = time.time()
    report = session.train(RECIPE, folder, overrides, resume=(folder / "config.toml").exists(), quiet=quiet)
    result = {
        "cell": str(cell),
        "overrides": {key: value for key, value in overrides if key not in PATHS},
        "valid": report["valid"],
        "pruned_density": report.get("pruned_density", 1.0),
        "parameters": report["parameters"],
        "seconds": time.time() - start,
        "flops": _work(folder, overrides),
        "machine": {"processor": platform.machine(), "cores": len(os.sched_getaffinity(0)), "jax": jax.__version__},
    }
    if not cell.row.startswith(TRIAL):
        model, eight = folder / "model.safetensors", folder / "int8.safetensors"
        params, said = formats.load(model)
        formats.save(eight, params, config=said, values="int8", overwrite=True)
        result |= {"bytes": eight.stat().st_size, "f32_bytes": model.stat().st_size}
        result["heard"] = {name: _heard(model, data / name) for name in NOISE} | {"int8": _heard(eight, data / MAIN)}
    cell.result.parent.mkdir(parents=True, exist_ok=True)
    cell.result.write_bytes(gzip.compress(json.dumps(result).encode(), mtime=0))
    return result


def _others(cell: Cell, runs: Path, folder: Path) -> list[tuple[str, str]]:
    """What a row takes from finished models of others: the mask that it trains, the teacher that it follows."""
    setting = rows.setting(cell.row)
    said = []
    if source := setting.get(rows.MASK):
        said.append(("train.init", toml(str(_first(cell, _finished(cell, source, runs), folder)))))
    if source := setting.get(rows.TEACHER):
        said.append(("train.teacher", toml(str(_finished(cell, source, runs)))))
    return said


def _finished(cell: Cell, row: str, runs: Path) -> Path:
    """The model of another row and the same seed."""
    other = cell._replace(row=row, structure="entries", target=0.0) if row == "dense" else cell._replace(row=row)
    model = runs / str(other) / "model.safetensors"
    if not model.exists():
        raise SystemExit(f"{cell} needs the model of {other}: run that cell first, with the same --runs")
    return model


def _first(cell: Cell, finder: Path, folder: Path) -> Path:
    """The first weights of all, but for what another row's model found to be zero."""
    first = folder / "first.safetensors"
    if not first.exists():
        found = modelfile.load(finder)
        read = found.setup.config
        _, start = modelfile.create(
            dataclasses.replace(read, train=dataclasses.replace(read.train, seed=cell.seed)), found.tokens
        )
        masked = jax.tree.map(lambda w, mask: w * (mask != 0), start, found.params)
        tree, said = formats.load(finder)
        folder.mkdir(parents=True, exist_ok=True)
        formats.save(first, {"model": masked, "features": tree["features"]}, config=said)
    return first


def together(row: list[Cell], data: Path, runs: Path) -> None:
    """Trains cells that differ in their seed only in one program, as a GPU likes it; `run` then finishes each."""
    left = [cell for cell in row if not (runs / str(cell) / "report.json").exists()]
    if len(left) > 1:
        manifest_ = corpus(data, row[0].unheard) / MAIN / "manifest.tsv"
        train_row.train(RECIPE, [runs / str(cell) for cell in left], [cell.overrides(manifest_) for cell in left])


def _heard(model: Path, folder: Path) -> str:
    """What it hears in each sentence of the test, a digit for a word and a blank between sentences."""
    recognizer = Recognizer(model)
    found = evaluate.listen(recognizer, recognise.corpus_of(recognizer, folder / "manifest.tsv", "test"))
    return " ".join("".join(str(WORDS.index(word)) for word in one.heard.split()) for one in found.scored)


def corpus(data: Path, unheard: str) -> Path:
    """The folder of the sentences, those of each noise in a folder of it."""
    return data / f"without {unheard}" if unheard else data


def sentences_of(unheard: str) -> Path:
    """Where it is kept what the test says."""
    return RESULTS / (f"sentences-{unheard}.json.gz" if unheard else "sentences.json.gz")


def sentences(data: Path, out: Path) -> None:
    """Keeps beside the results what was said, and of which recordings each sentence was made."""
    found = {}
    for name in NOISE:
        made = dict(line.split("\t") for line in (data / name / connect.RECORDINGS).read_text().splitlines()[1:])
        spoken = manifest.read(data / name / "manifest.tsv", "test")
        said = [("".join(str(WORDS.index(word)) for word in u.text.split()), made[u.id].split()) for u in spoken]
        found[name] = said
    RESULTS.mkdir(exist_ok=True)
    out.write_bytes(gzip.compress(json.dumps(found).encode(), mtime=0))


def load(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()))


def _work(folder: Path, overrides: list[tuple[str, str]]) -> float:
    """Multiplications of training that meet a weight, as a fraction of the recipe's dense ones.

    A step's three products (forward, to the inputs, to the weights) cost as much as what is alive, but for methods that
    want every weight's gradient, whose third product is dense until the support is frozen.
    """
    read = config.read(RECIPE, overrides)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    living = [1 - line["sparsity"] for line in lines if "sparsity" in line]
    frozen = read.sparsity.options.get("freeze", rows.FREEZES.get(read.sparsity.method, 0.0))
    third = [1.0 if (i + 1) / len(living) <= frozen else d for i, d in enumerate(living)]
    steps = read.train.steps / config.read(RECIPE).train.steps
    size = _size(read.model) / _size(_model(read.model.head))
    return steps * size * sum(2 * d + g for d, g in zip(living, third, strict=True)) / (3 * len(living))


def _model(head: str) -> models.ModelConfig:
    """The recipe's, with this head."""
    return config.read(RECIPE, [(key, toml(value)) for key, value in HEADS[head].items()]).model


def _size(model: models.ModelConfig) -> int:
    shapes = jax.eval_shape(lambda: models.create(model, 40, len(WORDS) + 1)[1])
    return sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim > 1)


def _narrow(head: str, target: float) -> dict[str, int]:
    """The widths of the widest dense model with no more weights than the sparse one keeps."""
    read = _model(head)
    keep = (1 - target) * _size(read)
    every = [dict.fromkeys(("width", "predictor", "joint"), w) for w in range(2, 129, 2)]
    return [widths for widths in every if _size(dataclasses.replace(read, **widths)) <= keep][-1]
