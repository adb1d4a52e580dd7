"""How sparse must a signal be to be recovered from n Gaussian measurements, without noise, by which method?

Targets at n = 100, d = 256, 40 trials: Gaussian signals, k = 35: trimmed >= 0.95 where OMP gets about 0.33; +-1
signals, k = 25: trimmed 1.0 where Lasso + least squares gets about 0.95. Every trial draws its own matrix and signal; a
signal is recovered if the relative error is below 1e-4. Intervals are Wilson's, at 95 %.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _timing import Record, options, save, show

from csp import solve

METHODS = ["trimmed", "lasso+ls", "niht", "omp"]
SIGNALS = ["gaussian", "signs"]
SEED, TOLERANCE = 0, 1e-4
CURVE = {"n": 100, "d": 256}
GRID_D = 128
COLOURS = {"trimmed": "#c1272d", "lasso+ls": "#0b6fa4", "niht": "#6b8e23", "omp": "#7f7f7f"}


def main() -> None:
    chosen = options(__doc__, "recovery")
    if chosen.quick:
        records = curves([15, 25, 35], trials=10) + grid([0.25, 0.5], [0.1, 0.3, 0.5], trials=6)
    else:
        records = curves(range(5, 61, 5), trials=40)
        records += grid([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], np.arange(0.07, 0.71, 0.07), trials=12)
    headline = [r for r in records if r["part"] == "curve" and (r["signal"], r["k"]) in HEADLINE]
    show(headline, ["signal", "n", "d", "k", "method", "recovered", "low", "high", "trials", "target"])
    print("\nRecovered at n = 100, d = 256, by number of non-zeros k")
    show(*_crosstab(records, "curve", "k"))
    print(f"\nMean over the grid of n / d and k / n at d = {GRID_D}, by n / d")
    show(*_crosstab(records, "grid", "n/d"))
    save(records, chosen.out)
    picture(records, chosen.out.with_suffix(".png"))


HEADLINE = {
    ("gaussian", 35): {"trimmed": ">= 0.95", "omp": "about 0.33"},
    ("signs", 25): {"trimmed": "1.0", "lasso+ls": "about 0.95"},
    ("signs", 35): {},
}


def curves(ks, trials: int) -> list[Record]:
    """Success against k at n = 100, d = 256."""
    return [record for k in ks for record in _records("curve", **CURVE, k=k, trials=trials)]


def grid(measurements, sparsities, trials: int) -> list[Record]:
    """The phase-transition grid over n / d and k / n."""
    sizes = [round(share * GRID_D) for share in measurements]
    cases = [(n, max(1, round(share * n)), share) for n in sizes for share in sparsities]
    return [r for n, k, share in cases for r in _records("grid", n, GRID_D, k, trials, {"k/n": round(float(share), 3)})]


def _records(part: str, n: int, d: int, k: int, trials: int, labels: Record | None = None) -> list[Record]:
    records = []
    for kind in SIGNALS:
        a, x = _problems(kind, n, d, k, trials)
        y = np.einsum("tnd,td->tn", a, x)
        for method in METHODS:
            found = np.asarray(_recover(jnp.asarray(a, jnp.float32), jnp.asarray(y, jnp.float32), k, method))
            error = np.linalg.norm(found - x, axis=1) / np.linalg.norm(x, axis=1)
            share = float(np.mean(error < TOLERANCE))
            low, high = _wilson(share, trials)
            records.append(
                {"task": "recovery", "part": part, "signal": kind, "n": n, "d": d, "k": k, "n/d": round(n / d, 2)}
                | {"k/n": round(k / n, 3), "method": method, "recovered": share, "low": low, "high": high}
                | {"trials": trials, "seed": SEED, "target": HEADLINE.get((kind, k), {}).get(method, "")}
                | (labels or {})
            )
    return records


@partial(jax.jit, static_argnames="method")
def _recover(a, y, k, method):
    return jax.lax.map(lambda each: solve.recover(each[0], each[1], k, method), (a, y))


def _problems(kind: str, n: int, d: int, k: int, trials: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([SEED, SIGNALS.index(kind), n, d, k])
    a, x = rng.normal(size=(trials, n, d)), np.zeros((trials, d))
    for signal in x:
        signal[rng.choice(d, k, replace=False)] = rng.normal(size=k) if kind == "gaussian" else rng.choice([-1, 1], k)
    return a, x


def _wilson(share: float, trials: int, z: float = 1.96) -> tuple[float, float]:
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _crosstab(records: list[Record], part: str, across: str) -> tuple[list[Record], list[str]]:
    records = [r for r in records if r["part"] == part]
    columns = [str(value) for value in sorted({r[across] for r in records})]
    rows = []
    for kind in SIGNALS:
        for method in METHODS:
            mine = [r for r in records if (r["signal"], r["method"]) == (kind, method)]
            means = {c: float(np.mean([r["recovered"] for r in mine if str(r[across]) == c])) for c in columns}
            rows.append({"signal": kind, "method": method} | means)
    return rows, ["signal", "method", *columns]


def picture(records: list[Record], path: Path) -> None:
    """Left: success against k at n = 100, d = 256. Right: the grid, one panel a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    widths = [1.5, *[1] * len(METHODS), 0.06]
    figure, panels = pyplot.subplots(2, 2 + len(METHODS), figsize=(17, 6.6), width_ratios=widths, layout="constrained")
    titles = {"gaussian": "Gaussian signals", "signs": "\N{PLUS-MINUS SIGN}1 signals"}
    for row, kind in zip(panels, SIGNALS, strict=True):
        mine = [r for r in records if r["signal"] == kind]
        _draw_curves(row[0], [r for r in mine if r["part"] == "curve"], titles[kind])
        for panel, method in zip(row[1:-1], METHODS, strict=True):
            mesh = _draw_grid(panel, [r for r in mine if r["part"] == "grid" and r["method"] == method])
            panel.set_title(method, color=COLOURS[method], fontweight="bold")
        row[1].set_ylabel(f"{titles[kind]}\nnon-zeros a measurement, k / n")
        figure.colorbar(mesh, cax=row[-1], label="recovered")
    for panel in panels[1, 1:-1]:
        panel.set_xlabel(f"measurements, n / d (d = {GRID_D})")
    panels[0, 0].legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=130)
    print(f"wrote {path}")


def _draw_curves(panel, records: list[Record], title: str) -> None:
    for method in METHODS:
        mine = [r for r in records if r["method"] == method]
        ks = [r["k"] for r in mine]
        panel.plot(ks, [r["recovered"] for r in mine], "o-", ms=4, color=COLOURS[method], label=method)
        panel.fill_between(
            ks, [r["low"] for r in mine], [r["high"] for r in mine], color=COLOURS[method], alpha=0.12, lw=0
        )
    panel.set(title=f"{title}, n = {CURVE['n']}, d = {CURVE['d']}", xlabel="non-zeros, k", ylabel="recovered")
    panel.set_ylim(-0.03, 1.03)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_grid(panel, records: list[Record]):
    across, up = (sorted({r[axis] for r in records}) for axis in ("n/d", "k/n"))
    shares = {(r["k/n"], r["n/d"]): r["recovered"] for r in records}
    image = [[shares[y, x] for x in across] for y in up]
    return panel.pcolormesh(across, up, image, shading="nearest", cmap="magma", vmin=0, vmax=1)


if __name__ == "__main__":
    main()
