"""How the benchmarks measure, print and record.

All calls of one comparison take turns in one process, so that they share whatever else the machine does; the median of
each is kept. A benchmark's JSON is a list of flat records.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

Record = dict[str, Any]


def medians(
    calls: Mapping[str, Callable[[], Any]], rounds: int = 9, before: Callable[[Any], None] = lambda call: None
) -> dict[str, float]:
    """Seconds of each call: the median over rounds in which every call runs once, after one round that warms up.

    `before(call)` is not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            before(call)
            seconds[name].append(once(call))
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def once(call: Callable[[], Any]) -> float:
    """Seconds of one call, with all its results ready."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def compiled(f: Callable[..., Any], *args: Any, donate: tuple[int, ...] = ()) -> Any:
    """f compiled for these arguments; its `memory_analysis().temp_size_in_bytes` is what it needs beside them."""
    return jax.jit(f, donate_argnums=donate).lower(*args).compile()


def options(description: str, name: str, **more: str) -> argparse.Namespace:
    """--quick and --out of a benchmark's command line; `more` are other options and their help, empty by default."""
    parser = argparse.ArgumentParser(description=description)
    for option, said in more.items():
        parser.add_argument(f"--{option}", default="", help=said)
    parser.add_argument("--quick", action="store_true", help="leave out what takes minutes")
    parser.add_argument("--out", type=Path, default=Path("results") / f"{name}.json", help="default: %(default)s")
    return parser.parse_args()


def machine() -> Record:
    """Where the numbers come from, and how."""
    return {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "device": jax.devices()[0].device_kind,
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def show(records: Sequence[Record], columns: Sequence[str]) -> None:
    """Prints a table of these columns."""
    rows = [list(columns)] + [[_cell(record.get(column, "")) for column in columns] for record in records]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save(records: Sequence[Record], out: Path) -> None:
    """Writes the records, each with the machine it was measured on."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([record | machine() for record in records], indent=1, default=float) + "\n")
    print(f"wrote {out}")
