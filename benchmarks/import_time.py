"""How much longer than `import jax` does csp take to be there, and what does it bring along?

`import csp` loads nothing: names are loaded when they are used. What counts is the first use of `csp.sparsify`, which
needs jax and optax, and of `csp.formats`, which needs NumPy only.
"""

import statistics
import subprocess
import sys
import time

from _timing import options, save, show

HEAVY = ("flax", "orbax", "sklearn", "scipy.optimize", "matplotlib")
WAYS = {
    "jax": "import jax",
    "csp": "import csp",
    "sparsify": "import csp; csp.sparsify",
    "formats": "import csp.formats",
}


def main() -> None:
    chosen = options(__doc__, "import_time")
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(5 if chosen.quick else 15):
        for name, code in WAYS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds[name].append(time.perf_counter() - start)
    records = [_record(name, seconds) for name in WAYS]
    show(records, list(records[0]))
    save(records, chosen.out)


def _record(name: str, seconds: dict[str, list[float]]) -> dict:
    code = f"{WAYS[name]}; import sys; print(*[m for m in {HEAVY} if m in sys.modules])"
    brought = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    ratio = statistics.median([a / b for a, b in zip(seconds[name], seconds["jax"], strict=True)])
    found = {"what": WAYS[name], "seconds": statistics.median(seconds[name]), "over_jax": ratio, "target": 1.15}
    return found | {"heavy_imports": " ".join(brought) or "none"}


if __name__ == "__main__":
    main()
