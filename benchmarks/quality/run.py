"""Trains the cells of the table that have no result yet, one on each core, and goes on with those that were stopped.

  python benchmarks/quality/run.py --fsdd FSDD/manifest.tsv          # all rows at 90, 95, 98 %, five seeds
  python benchmarks/quality/run.py --fsdd FSDD/manifest.tsv --cell ctc/entries-0.95/gradual/0        # one cell
  python benchmarks/quality/run.py --fsdd FSDD/manifest.tsv --unheard all --seeds 0     # each speaker in turn left out
  python benchmarks/quality/table.py                                 # the table and the picture of it all

FSDD is the Free Spoken Digit Dataset, of whose recordings sentences are made first. Results are kept in
benchmarks/quality/results/HEAD/STRUCTURE-TARGET/ROW/SEED.json.gz, and HEAD-SPEAKER where one is left out.
"""

import argparse
import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cells
import jax
import rows
from cells import Cell

from csp.speech import connect, manifest

STRUCTURES = {"12:128": 1 - 12 / 128, "6:128": 1 - 6 / 128, "3:128": 1 - 3 / 128}


def main() -> None:
    chosen = _arguments()
    if chosen.cell:
        for cell in map(Cell.named, chosen.cell):
            _corpora(chosen.fsdd, chosen.data, cell.unheard)
            found = cells.run(cell, chosen.data, chosen.runs)
            print(f"{cell}: {found['valid']:.2%} of the validation words wrong; wrote {cell.result.name}")
        return
    unheard = chosen.unheard.split(",")
    if unheard == ["all"]:
        unheard = sorted({one.speaker for one in manifest.read(chosen.fsdd)})
    left = [cell for cell in _cells(chosen, unheard) if not cell.result.exists()]
    for speaker in unheard:
        _corpora(chosen.fsdd, chosen.data, speaker)
    if chosen.together:
        left.sort(key=_but_for_seed)
        for _, row in itertools.groupby(left, key=_but_for_seed):
            seeds = list(row)
            cells.together(seeds, chosen.data, chosen.runs)
            for cell in seeds:
                cells.run(cell, chosen.data, chosen.runs, quiet=True)
        return
    cores = [int(core) for core in chosen.cores.split(",")] if chosen.cores else sorted(os.sched_getaffinity(0))
    print(f"{len(left)} cells to train, {len(cores)} at once", flush=True)
    free = list(cores)

    def one(cell: Cell) -> None:
        core, start = free.pop(), time.time()
        folder = chosen.runs / str(cell)
        folder.mkdir(parents=True, exist_ok=True)
        command = ["taskset", "-c", str(core), sys.executable, __file__, "--fsdd", chosen.fsdd]
        command += ["--data", chosen.data, "--runs", chosen.runs, "--cell", str(cell)]
        with (folder / "log").open("a") as log:
            done = subprocess.run(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT)
        free.append(core)
        said = "trained" if done.returncode == 0 else f"FAILED, see {folder / 'log'}"
        print(f"{cell}: {said}, {time.time() - start:.0f} s", flush=True)

    with ThreadPoolExecutor(len(cores)) as pool:
        list(pool.map(one, left))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fsdd", type=Path, required=True, metavar="MANIFEST", help="of the single recordings")
    parser.add_argument("--data", type=Path, default=Path("data/quality"), help="for sentences; default: %(default)s")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"), help="default: %(default)s")
    parser.add_argument("--cell", action="append", help="one cell, here; may be given again")
    parser.add_argument("--heads", default="ctc", help="ctc,transducer; default: %(default)s")
    parser.add_argument("--columns", default="0.9,0.95,0.98", help="targets and N:M; default: %(default)s")
    parser.add_argument("--rows", default=",".join(rows.ROWS), help="default: all")
    parser.add_argument("--unheard", default="", metavar="SPEAKERS", help="left out in turn, such as theo; or all")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="default: %(default)s")
    gpu = jax.default_backend() != "cpu"
    parser.add_argument("--together", action="store_true", default=gpu, help="all seeds in one program; so on a GPU")
    parser.add_argument("--cores", default="", help="which ones; default: all")
    return parser.parse_args()


def _but_for_seed(cell: Cell) -> tuple[object, ...]:
    return *cell[:4], cell.unheard


def _cells(chosen: argparse.Namespace, unheard: list[str]) -> list[Cell]:
    """Seed after seed, so that what is there at any time is as even as can be."""
    found = []
    parts = (part.split(",") for part in (chosen.seeds, chosen.heads, chosen.columns, chosen.rows))
    for seed, head, column, row, speaker in itertools.product(*parts, unheard):
        rows.setting(row)
        structure, target = (column, STRUCTURES[column]) if ":" in column else ("entries", float(column))
        if row == "dense":
            structure, target = "entries", 0.0
        found.append(Cell(head, structure, target, row, int(seed), speaker))
    return list(dict.fromkeys(found))


def _corpora(fsdd: Path, data: Path, unheard: str) -> None:
    """The sentences: one set to train on, and the test under every noise."""
    data = cells.corpus(data, unheard)
    for number, (name, noise) in enumerate(cells.NOISE.items()):
        counts = {"test": cells.SENTENCES["test"]} if number else cells.SENTENCES
        connect.connect(fsdd, data / name, counts, noise=noise, held_out=unheard)
    if not cells.sentences_of(unheard).exists():
        cells.sentences(data, cells.sentences_of(unheard))


if __name__ == "__main__":
    main()
