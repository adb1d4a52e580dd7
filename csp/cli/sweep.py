"""Trains a grid of sparsities, methods, structures and seeds; stopped, it goes on where it was.

csp sweep configs/lm_grid.toml --out runs/lm_grid     # the grids that the recipe has, [[sweep]]
csp sweep configs/digits.toml --out runs/grid --structure entries --sparsity 0.5,0.75,0.9 --method gradual,acdc
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csp.cli.tables import table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file; see configs/")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a directory for all runs")
    parser.add_argument("--sparsity", default="", help="targets, such as 0.5,0.75,0.9")
    parser.add_argument("--method", default="", help="methods, such as compressed_sensing,gradual,dense")
    parser.add_argument("--structure", default="", help="structures, such as entries,12:128")
    parser.add_argument("--seeds", default="", help="such as 0,1,2")
    parser.add_argument("--together", action="store_true", help="all seeds in one program, as on a GPU by default")


def run(options: argparse.Namespace) -> int:
    import jax

    from csp.train import guard, sweep

    together = options.together or jax.default_backend() == "gpu"
    try:
        records = sweep.sweep(options.config, options.out, grid(options), options.overrides, options.json, together)
    except guard.Stopped as stopped:
        raise guard.Stopped(f"{stopped.args[0]}; the same command goes on") from None
    if options.json:
        print(json.dumps(records))
        return 0
    speech = "wer" in records[0]
    head = ["method", "structure", "metric", "sparsity", "seed", "WER" if speech else "perplexity", "95 %", "bytes"]
    rows = [
        [
            record["method"] + (f", {record['rungs']} rungs" if record["rungs"] > 1 else ""),
            record["structure"],
            record["metric"],
            f"{record['sparsity']:.1%}",
            str(record["seed"]),
            *_quality(record, "wer" if speech else "perplexity", ".2%" if speech else ".2f"),
            f"{record['bytes']:,}",
        ]
        for record in records
    ]
    print(table(head, rows, right=(3, 4, 5, 6, 7)))
    print(f"\n{options.out}/results.json has them all; csp plot {options.out} draws them")
    return 0


def grid(options: argparse.Namespace) -> dict[str, Sequence[str]]:
    """The values of each key, of what is named."""
    named = {
        "sparsity.method": options.method,
        "sparsity.structure": options.structure,
        "sparsity.target": options.sparsity,
        "train.seed": options.seeds,
    }
    return {key: [value.strip() for value in given.split(",")] for key, given in named.items() if given}


def _quality(record: dict[str, Any], name: str, form: str) -> list[str]:
    value, low, high = (format(record[key], form) for key in (name, f"{name}_low", f"{name}_high"))
    return [value, f"{low}-{high}"]
