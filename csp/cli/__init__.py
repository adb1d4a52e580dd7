"""The command line: `csp COMMAND`, one file a command.

A command module has a one-line docstring, `arguments(parser)` and `run(options) -> exit code`. Exit codes: 0 done, 1
checked and found wanting, 2 misused, 4 data, 5 damaged or hostile file, 7 input or output.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = ("inspect", "verify", "convert")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="csp", description="Sparse speech models, in small files.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = {name: importlib.import_module(f"csp.cli.{name}") for name in COMMANDS}
    for name, module in modules.items():
        line = (module.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=line, description=module.__doc__)
        command.add_argument("--json", action="store_true", help="print JSON, for programs")
        command.add_argument("--debug", action="store_true", help="print the traceback of an error")
        module.arguments(command)
    options = parser.parse_args(arguments)
    try:
        return modules[options.command].run(options)
    except Exception as error:
        if options.debug:
            raise
        code = _code(error)
        if code is None:
            raise
        print(f"csp {options.command}: {_line(error)}", file=sys.stderr)
        return code


def _code(error: Exception) -> int | None:
    """None: a defect of csp itself, whose traceback somebody should see."""
    from csp.formats import FormatError

    if isinstance(error, FormatError):
        return 5
    if isinstance(error, FileExistsError | FileNotFoundError | ValueError | KeyError):
        return 2
    return 7 if isinstance(error, OSError) else None


def _line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error.args[0] if isinstance(error, KeyError) else error).replace("\n", " ")
