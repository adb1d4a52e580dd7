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
    size, seeds = (128, 1) if chosen.quick else (512, 3)
    records = []
    for structure, sparsity in BUDGETS:
        solvers = (oneshot.magnitude, oneshot.admm) if isinstance(structure, structures.Rank) else SOLVERS
        for solver in solvers:
            if solver is oneshot.sparsegpt and structure.pooled:
                continue
            records.append(_record(Rule("w", structure, sparsity=sparsity), solver, size, seeds))
    show(records, ["structure", "sparsity", "solver", "error", "error_se", "of_magnitude", "of_wanda", "seconds"])
    save(records, chosen.out)


def _record(rule: Rule, solver: oneshot.Solver, size: int, seeds: int) -> dict:
    rank = isinstance(rule.structure, structures.Rank)
    start, errors, base, wanda = time.perf_counter(), [], [], []
    for seed in range(seeds):
        w, gram = _layer(size, seed)
        knows = solver is not oneshot.magnitude
        new = csp.compress({"w": w}, rule, gram={"w": gram} if knows else None, solver=None if rank else solver)
        errors.append(float(oneshot.relative_error(w, new["w"], gram)))
        base.append(float(oneshot.relative_error(w, csp.compress({"w": w}, rule)["w"], gram)))
        if not rank:
            new = csp.compress({"w": w}, rule, gram={"w": gram}, solver=oneshot.wanda)
            wanda.append(float(oneshot.relative_error(w, new["w"], gram)))
    name = {True: "whitened" if solver is not oneshot.magnitude else "plain", False: solver.__name__}[rank]
    return {
        "structure": str(rule.structure),
        "sparsity": rule.target(),
        "solver": name,
        "size": size,
        "seeds": seeds,
        "error": np.mean(errors),
        "error_se": np.std(errors) / max(seeds - 1, 1) ** 0.5,
        "of_magnitude": np.mean(np.divide(errors, base)),
        "of_wanda": np.mean(np.divide(errors, wanda)) if wanda else "",
        "seconds": (time.perf_counter() - start) / seeds,
    }


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
