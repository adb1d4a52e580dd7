"""How much better is pruning after training that knows the layer's inputs? Reconstruction error |XW' - XW|^2 / |XW|^2.

A layer of Gaussian weights with correlated inputs (power-law spectrum), every solver of `csp.oneshot`, 50 to 90 % and N
of M.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from _timing import options, save, show

import csp
from csp import Rule, oneshot, structures

SOLVERS = (oneshot.magnitude, oneshot.wanda, oneshot.sparsegpt, oneshot.admm, oneshot.trimmed)
BUDGETS = (
    *((structures.entries(), s) for s in (0.5, 0.6, 0.7, 0.8, 0.9)),
    (structures.n_of_m(2, 4), None),
    (structures.n_of_m(12, 128), None),
    (structures.blocks(16, 1), 0.75),
    (structures.rank(), 0.5),
)


def main() -> None:
    chosen = options(__doc__, "compress")
    size, seeds = (128, 1) if chosen.quick else (256, 3)
    records = []
    for structure, sparsity in BUDGETS:
        mine = _records(Rule("w", structure, sparsity=sparsity), size, seeds)
        show(mine, ["structure", "sparsity", "solver", "error", "error_se", "of_magnitude", "of_wanda", "seconds"])
        records += mine
    save(records, chosen.out)


def _records(rule: Rule, size: int, seeds: int) -> list[dict]:
    """Every solver that can meet this budget, on the same layers."""
    runs = {s.__name__: (s, True) for s in SOLVERS if s is not oneshot.sparsegpt or not rule.structure.pooled}
    if isinstance(rule.structure, structures.Rank):
        runs = {"plain": (None, False), "whitened": (None, True)}
    errors, seconds = {}, {}
    for name, (solver, informed) in runs.items():
        start = time.perf_counter()
        errors[name] = np.array([_error(rule, solver, informed, *_layer(size, seed)) for seed in range(seeds)])
        seconds[name] = (time.perf_counter() - start) / seeds
    naive = errors["plain" if "plain" in errors else "magnitude"]
    return [
        {
            "structure": str(rule.structure),
            "sparsity": rule.target(),
            "solver": name,
            "size": size,
            "seeds": seeds,
            "error": float(mine.mean()),
            "error_se": float(mine.std() / max(seeds - 1, 1) ** 0.5),
            "of_magnitude": float((mine / naive).mean()),
            "of_wanda": float((mine / errors["wanda"]).mean()) if "wanda" in errors else "",
            "seconds": seconds[name],
        }
        for name, mine in errors.items()
    ]


def _error(rule: Rule, solver: oneshot.Solver | None, informed: bool, w: jax.Array, gram: jax.Array) -> float:
    new = csp.compress({"w": w}, rule, gram={"w": gram} if informed else None, solver=solver)
    csp.verify(new, rule)
    return float(oneshot.relative_error(w, new["w"], gram))


def _layer(size: int, seed: int) -> tuple[jax.Array, jax.Array]:
    """Weights [in, out] and the Gram matrix of inputs whose covariance has the spectrum 1 / i."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    inputs = rng.normal(size=(4 * size, size)) * np.arange(1, size + 1) ** -0.5 @ basis
    scales = np.exp(0.5 * rng.normal(size=size))  # some inputs are louder than others
    inputs = inputs * scales
    return jnp.asarray(rng.normal(size=(size, size)), jnp.float32), jnp.asarray(inputs.T @ inputs, jnp.float32)


if __name__ == "__main__":
    main()
