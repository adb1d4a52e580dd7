"""The command line: `csp COMMAND`, one file a command.

A command module has `arguments(parser)` and `run(options) -> exit code`; only the one that is asked for is imported.
Exit codes: 0 done, 1 checked and found wanting, 2 misused, 4 data, 5 damaged or hostile file, 6 diverged, 7 input or
output, 75 stopped early, can be resumed, 130 interrupted where nothing is to be resumed.
"""

import argparse
import errno
import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "train": "train a sparse recogniser, or a language model, from a config",
    "prune": "make a trained model sparse, with or without more training",
    "eval": "count the words that a model gets wrong, or how a text surprises it",
    "export": "write the model of a run's newest checkpoint",
    "transcribe": "print what is said in recordings",
    "tune": "find how much a language model shall have to say",
    "bench": "measure a model: size, speed, latency, memory",
    "sweep": "train a grid of sparsities, methods and seeds",
    "plot": "draw runs: words wrong against size, and how they were trained",
    "data": "check a manifest, or speak a corpus",
    "inspect": "show what is in a model file, or in a folder of them",
    "verify": "check every byte of a model file",
    "convert": "write a model file in another codec",
}
_OVERRIDDEN = ("train", "sweep", "prune")


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given and given[0] in COMMANDS else None
    module = importlib.import_module(f"csp.cli.{name}") if name else None
    parser = argparse.ArgumentParser(
        prog="csp",
        description="Sparse speech models, in small files.",
        epilog="Begin with: csp train configs/digits.toml. Every command has examples: csp COMMAND --help.",
    )
    parser.add_argument("--version", action="version", version=f"csp {importlib.metadata.version('csp-jax')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for other, line in COMMANDS.items():
        command = commands.add_parser(other, help=line, description=line)
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
        command.add_argument("--debug", action="store_true", help="print the traceback of an error")
        if module is not None and other == name:
            command.description = module.__doc__
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            module.arguments(command)
    said, given = overrides(parser, given) if name in _OVERRIDDEN else ([], given)
    options = parser.parse_args(given)
    assert module is not None  # argparse knows the same commands
    options.overrides = said
    logging.basicConfig(level=logging.WARNING, format=f"csp {options.command}: %(message)s", stream=sys.stderr)
    try:
        return module.run(options)
    except KeyboardInterrupt:
        print(f"csp {options.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads has heard enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        code = _code(error)
        if code is None:
            raise
        print(f"csp {options.command}: {_line(error)}", file=sys.stderr)
        return code


def overrides(parser: argparse.ArgumentParser, given: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """--section.key VALUE or --section.key=VALUE, and what is left."""
    found, others, left = [], [], list(given)
    while left:
        word = left.pop(0)
        key, equals, value = word.partition("=")
        if not key.startswith("--") or "." not in key:
            others.append(word)
            continue
        if not (equals or left):
            parser.error(f"{key} needs a value")
        found.append((key[2:], value if equals else left.pop(0)))
    return found, others


def _code(error: Exception) -> int | None:
    """None: a defect of csp itself, whose traceback somebody should see."""
    from csp.formats import FormatError

    if isinstance(error, FormatError):
        return 5
    by_name = {"DataError": 4, "ConfigError": 2, "Diverged": 6, "Stopped": 75, "BudgetError": 2}
    if type(error).__name__ in by_name:
        return by_name[type(error).__name__]
    if isinstance(error, FileExistsError | FileNotFoundError | ValueError | KeyError):
        return 2
    return 7 if isinstance(error, OSError) else None


_CURES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "files may not be that large here, see ulimit -f",
    errno.EACCES: "choose a place that you may read and write",
    errno.EROFS: "choose a place that can be written",
}


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        cure = _CURES.get(error.errno or 0, "")
        return f"{error.filename}: {error.strerror}{cure and ': '}{cure}"
    return str(error.args[0] if isinstance(error, KeyError) else error).replace("\n", " ")
