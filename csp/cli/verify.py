"""Checks every byte of a model file, or of a family: exit code 0 if all is as it says, 5 if not."""

import argparse
import json
from pathlib import Path

from csp import formats
from csp.cli.inspect import files_of


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="FILE|DIR", help="a .safetensors file, or a folder of one run's")


def run(options: argparse.Namespace) -> int:
    paths = files_of(options.path) if options.path.is_dir() else [options.path]
    said = []
    for path in paths:
        formats.verify(path)
        said.append({"path": str(path), "tensors": len(formats.inspect(path)["tensors"])})
    _check_family(paths)
    if options.json:
        print(json.dumps(said if options.path.is_dir() else said[0]))
    else:
        print("\n".join(f"{one['path']}: {one['tensors']} tensors, every byte as it says" for one in said))
    return 0


def _check_family(paths: list[Path]) -> None:
    families = {str(path): formats.inspect(path)["about"].get("family") for path in paths}
    first = families[str(paths[0])]
    for path, family in families.items():
        if family != first:
            raise formats.FormatError(f"{path}: of family {family}, and {paths[0]} of {first}: mixed from two exports")
