"""What is in a model file, or in each file of a folder: tensors, codecs, bytes, from the header alone."""

import argparse
import json
from pathlib import Path
from typing import Any

from csp import formats
from csp.cli.tables import amount, table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="FILE|DIR", help="a .safetensors file, or a folder of them")


def run(options: argparse.Namespace) -> int:
    if options.path.is_dir():
        return _folder(options)
    found = formats.inspect(options.path)
    print(json.dumps(found, indent=1) if options.json else _tensors(found))
    return 0


def _folder(options: argparse.Namespace) -> int:
    family = sorted((formats.inspect(path) for path in files_of(options.path)), key=lambda found: found["bytes"])
    print(json.dumps(family, indent=1) if options.json else _family(family))
    return 0


def files_of(folder: Path) -> list[Path]:
    """The model files of a folder; a link could lead anywhere, and is refused."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ValueError(f"{folder} holds no .safetensors file")
    for path in paths:
        if path.is_symlink():
            raise ValueError(f"{path} is a link: name the file that it leads to")
    return paths


def _tensors(found: dict[str, Any]) -> str:
    head = ["tensor", "shape", "structure", "density", "codec", "bytes", "bits/weight", "of dense"]
    rows = [
        [
            row["name"],
            "x".join(map(str, row["shape"])) or "scalar",
            row["structure"] or "-",
            f"{row['density']:.1%}",
            f"{row['codec']} {row['values']}",
            f"{row['bytes']:,}",
            f"{row['bits_per_weight']:.2f}",
            f"{row['ratio']:.1%}",
        ]
        for row in found["tensors"]
    ]
    tied = [f"{other} is {name}" for other, name in found["tied"].items()]
    return "\n".join([table(head, rows, right=(3, 5, 6, 7)), *tied, "", _summary(found)])


def _summary(found: dict[str, Any]) -> str:
    return (
        f"{found['path']}: {amount(found['bytes'])}, {found['ratio']:.1%} of {amount(found['dense_bytes'])} dense, "
        f"{found['density']:.1%} of the weights are not zero"
    )


def _family(family: list[dict[str, Any]]) -> str:
    head = ["file", "family", "method", "density", "bytes", "of dense"]
    rows = [
        [
            Path(found["path"]).name,
            str(found["about"].get("family", "-")),
            str(found["about"].get("method", "-")),
            f"{found['density']:.1%}",
            f"{found['bytes']:,}",
            f"{found['ratio']:.1%}",
        ]
        for found in family
    ]
    return table(head, rows, right=(3, 4, 5))
