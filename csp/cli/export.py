"""Writes the model of a run's newest checkpoint, finished or not.

csp export runs/digits -o digits.safetensors
"""

import argparse
import json
from pathlib import Path

from csp.cli.tables import amount


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="where to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(options: argparse.Namespace) -> int:
    from csp.train import export

    path = export.export(options.run, options.out, options.overwrite)
    size = path.stat().st_size
    print(json.dumps({"path": str(path), "bytes": size}) if options.json else f"{path}: {amount(size)}")
    return 0
