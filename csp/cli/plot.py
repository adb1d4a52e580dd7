"""Draws runs: words wrong against bytes and sparsity, how they were trained, and how dense each layer is.

csp plot runs/digits
csp plot runs/grid -o pictures
"""

import argparse
import json
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="DIR", help="run directories, or folders of them")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="where to draw; the first DIR by default")


def run(options: argparse.Namespace) -> int:
    from csp.train import plots

    runs = plots.find(options.runs)
    out = options.out or options.runs[0]
    out.mkdir(parents=True, exist_ok=True)
    drawn = plots.draw(runs, out)
    print(json.dumps([str(path) for path in drawn]) if options.json else "\n".join(map(str, drawn)))
    return 0
