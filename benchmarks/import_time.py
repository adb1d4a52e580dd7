"""How much longer than `import jax` does `import csp` take, and what does it bring along?"""

import subprocess
import sys
import time

from _timing import median, options, table, write

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
    ratio = median([a / b for a, b in zip(seconds["csp"], seconds["jax"], strict=True)])
    records = [{"ratio": ratio, "target": 1.15, "jax_s": median(seconds["jax"]), "csp_s": median(seconds["csp"])}]
    records[0]["heavy_imports"] = " ".join(brought) or "none"
    table(records, list(records[0]))
    write(chosen.out, records)


if __name__ == "__main__":
    main()
