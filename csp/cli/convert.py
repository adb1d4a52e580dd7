"""Writes a model file in another codec, from csp's or any other safetensors file.

csp convert dense.safetensors -o small.safetensors --values int8
csp convert small.safetensors -o weights.onnx
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from csp import formats
from csp.cli.tables import amount
from csp.formats import onnx

CODECS = ("auto", "dense", "bitmask", "n_of_m", "indices", "factors")
VALUES = ("f32", "bf16", "f16", "int8", "int4")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="FILE", help="a .safetensors file of any origin")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="where to write; .onnx: an ONNX model of the weights",
    )
    parser.add_argument("--codec", choices=CODECS, default="auto", help="default: %(default)s, the smallest")
    parser.add_argument("--values", choices=VALUES, help="type of the numbers; their own by default")
    parser.add_argument("--archive", action="store_true", help="code by entropy: smallest, slower to open")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(options: argparse.Namespace) -> int:
    with formats.open(options.path) as file:
        about = {key: value for key, value in file.manifest.about.items() if key != "csp"}
        config = file.manifest.config
        notes = {name: entry.notes for name, entry in file.manifest.entries.items()}
        kept = {re.escape(name): entry.values for name, entry in file.manifest.entries.items()}
    if options.out.suffix == ".onnx":
        _onnx(options, formats.load(options.path, flat=True)[0])
        return _said(options)
    factors = options.codec in ("auto", "factors")
    if not factors and isinstance(config, dict) and isinstance(model := config.get("model"), dict) and "ranks" in model:
        config = config | {"model": model | {"ranks": {}}}  # multiplied out
    formats.save(
        options.out,
        formats.load(options.path, factors=factors, flat=True)[0],
        options.codec,
        config,
        values=options.values or (None if options.codec == "dense" else kept),
        archive=options.archive,
        about=about,
        notes=notes,
        overwrite=options.overwrite,
    )
    return _said(options)


def _onnx(options: argparse.Namespace, params: Any) -> None:
    if options.codec != "auto" or options.values or options.archive:
        raise ValueError("an ONNX model has the weights as they are: leave --codec, --values and --archive out")
    onnx.save(options.out, params, overwrite=options.overwrite)


def _said(options: argparse.Namespace) -> int:
    before, after = options.path.stat().st_size, options.out.stat().st_size
    if options.json:
        print(json.dumps({"path": str(options.out), "bytes": after, "bytes_before": before}))
    else:
        print(f"{options.out}: {amount(after)}, {after / before:.1%} of {amount(before)}")
    return 0
