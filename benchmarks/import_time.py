"""How much longer than `import jax` does `import csp` take, and what does it bring along?"""

import statistics
import subprocess
import sys
import time

from _timing import options, save, show

HEAVY = ("flax", "orbax", "sklearn", "scipy.optimize", "matplotlib")


def main() -> None:
    chosen = options(__doc__, "import_time")
    seconds: dict[str, list[float]] = {"jax": [], "csp": []}
    for _ in range(5 if chosen.quick else 15):
        for name, values in seconds.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            values.append(time.perf_counter() - start)
    code = f"import sys, csp; print(*[m for m in {HEAVY} if m in sys.modules])"
    brought = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    ratio = statistics.median([a / b for a, b in zip(seconds["csp"], seconds["jax"], strict=True)])
    records = [
        {
            "ratio": ratio,
            "target": 1.15,
            "jax_s": statistics.median(seconds["jax"]),
            "csp_s": statistics.median(seconds["csp"]),
        }
    ]
    records[0]["heavy_imports"] = " ".join(brought) or "none"
    show(records, list(records[0]))
    save(records, chosen.out)


if __name__ == "__main__":
    main()
