"""Trains a sparse recogniser, or a language model, from a config, and delivers it as a file with a report.

  csp train configs/digits.toml
  csp train configs/digits.toml --out runs/a --sparsity.structure 6:128 --train.seed 1
  csp train --resume --out runs/a
  csp train configs/digits.toml --keys         # the config in full, and what each key means

Any key of the config can be replaced: --section.key VALUE. Ctrl-C finishes the step, saves, and exits with 75.
"""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from csp.cli.tables import table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, nargs="?", metavar="CONFIG", help="a TOML file; see configs/")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run directory; runs/NAME by default")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run directory")
    parser.add_argument("--strict", action="store_true", help="a damaged checkpoint is an error")
    parser.add_argument("--keys", action="store_true", help="print the config in full, every key explained, and end")


def run(options: argparse.Namespace) -> int:
    from csp.train import report, session

    if options.keys:
        print(_explained(options), end="")
        return 0
    found = session.train(
        options.config,
        options.out,
        options.overrides,
        resume=options.resume,
        strict=options.strict,
        quiet=options.json,
    )
    if options.json:
        print(json.dumps(found))
    if options.json or not found["models"]:  # only the first of several processes has a report
        return 0
    head, *rows = report.table(found["models"])
    out = options.out or Path("runs") / found["name"]
    print(table(head, rows, right=range(1, len(head))))
    if "examples" in found:
        print("\nThe file recognises, among others:")
        print("\n".join(f"  said {one['reference']!r}, heard {one['heard']!r}" for one in found["examples"]))
    use = f"csp transcribe {out / found['file']} {_example(out)}"
    print(f"\n{out}/report.md has more. What next:")
    print(f"  csp inspect {out / found['file']}")
    print("  " + (use if "examples" in found else f"csp bench {out / found['file']}"))
    print(f"  {_smaller(options, out, found)}")
    return 0


def _explained(options: argparse.Namespace) -> str:
    """Of the file or the run directory that is named, or what stands where a config says nothing."""
    from csp.train import config

    path = options.config or (options.out and options.out / "config.toml")
    if path:
        return config.as_toml(config.read(path, options.overrides), explained=True)
    given: dict[str, Any] = {}
    for key, value in options.overrides:
        config.put(given, key, value)
    return config.as_toml(config.whole(given), explained=True)


def _smaller(options: argparse.Namespace, out: Path, found: dict[str, Any]) -> str:
    """The same again, with fewer weights."""
    dense = found["method"] == "dense"
    gone = ("sparsity.",) if dense else tuple(f"sparsity.{key}" for key in ("structure", "target", "rules", "budget"))
    said = [(key, value) for key, value in options.overrides if not key.startswith(gone)]
    if dense:
        said.append(("sparsity.method", "compressed_sensing"))
    said.append(("sparsity.structure", "6:128"))
    words = [f"--{key} {shlex.quote(value)}" for key, value in said]
    return " ".join(["csp train", str(options.config or out / "config.toml"), f"--out {out}-smaller", *words])


def _example(out: Path) -> str:
    recordings = sorted((out / "corpus" / "test").glob("*.flac"))
    return str(recordings[0]) if recordings else "AUDIO..."
