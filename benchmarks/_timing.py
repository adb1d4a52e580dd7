"""What all benchmarks share: interleaved medians in one process, a table, and a flat JSON list under results/."""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

RESULTS = Path(__file__).parent.parent / "results"


def options(doc: str, name: str) -> argparse.Namespace:
    """--quick and --out, which every benchmark has."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer repetitions")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="where the JSON goes")
    return parser.parse_args()


def interleaved(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each run, taken in turns so that noise falls on all of them alike; the first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in seconds.items()}


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> float:
    """The median, over the rounds, of one run's time over another's."""
    return statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))


def median(values: list[float]) -> float:
    return statistics.median(values)


def table(records: list[dict], columns: list[str]) -> None:
    """Prints these columns of the records."""
    cells = [columns, *([_cell(record.get(column, "")) for column in columns] for record in records)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def write(path: Path, records: list[dict]) -> None:
    """The records, each with the command and the machine that made it."""
    made = {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {jax.device_count()} {jax.devices()[0].platform} device, jax {jax.__version__}",
        "date": time.strftime("%Y-%m-%d"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([record | made for record in records], indent=1, default=float) + "\n")
    print(f"\nwrote {path.name}")


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)
