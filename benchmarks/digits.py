"""The README's first command, timed: from nothing to a sparse recogniser that has heard voices it never met.

Targets: below 8 minutes on two cores, below 5 % of the words wrong. Needs espeak-ng's voices: pip install '.[demo]'.
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path

from _timing import options, save, show

KEPT = ("wer", "wer_low", "wer_high", "words", "bytes", "dense_bytes", "pruned_density", "rtf")


def main() -> None:
    chosen = options(__doc__, "digits")
    command = ["csp", "train", "configs/digits.toml"]
    if chosen.quick:
        command += ["--data.count", "200", "--train.steps", "40"]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([*command, "--out", f"{folder}/run"], check=True)
        seconds = time.perf_counter() - start
        report = json.loads(Path(folder, "run", "report.json").read_text())
    record = {"seconds": seconds} | {key: report[key] for key in KEPT}
    show([record], list(record))
    save([record], chosen.out)


if __name__ == "__main__":
    main()
