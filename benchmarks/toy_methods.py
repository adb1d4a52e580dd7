"""Who wins on a small problem? Teacher-student regression at 90, 95 and 98 % zeros, every method with tuned weight
decay.

The teacher is a network of two layers that is truly as sparse as the budget; the student has the same shape and begins
dense. All methods see the same data in the same order for the same steps, from the same weights; the weight decay of
each is chosen
among the same values by its error on validation data, and the error on test data is reported: relative to the variance
of the teacher's outputs, mean and standard error over the seeds, and the mean of the paired differences to compressed
sensing.
"""

import dataclasses
import re
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _timing import options, save, show

import csp
from csp import Rule, methods, metrics, structures

INPUTS, HIDDEN, OUTPUTS, BATCH, NOISE = 64, 128, 16, 32, 0.1
DECAYS = (0.0, 1e-2, 0.1, 0.5, 1.5)
METHODS: dict[str, Callable[[int], methods.Method | None]] = {
    "dense": lambda steps: None,
    "compressed_sensing": methods.compressed_sensing,
    "compressed_sensing pull 0": lambda n: methods.compressed_sensing(n, methods.dual(pull=0.0)),
    "compressed_sensing pull 100": lambda n: methods.compressed_sensing(n, methods.dual(pull=100.0)),
    "compressed_sensing hard": lambda n: methods.compressed_sensing(n, methods.dual(firm=1.0)),
    "compressed_sensing by size": lambda n: _judged(methods.compressed_sensing(n), metrics.magnitude()),
    "compressed_sensing soft": lambda n: methods.compressed_sensing(n, methods.dual(firm=float("inf"))),
    "compressed_sensing ramp to 70 %": lambda n: methods.compressed_sensing(n, full=0.7),
    "compressed_sensing 3 cycles": lambda n: methods.compressed_sensing(n, cycles=3),
    "compressed_sensing trimmed": lambda n: methods.compressed_sensing(n, methods.trimmed()),
    "compressed_sensing ista": lambda n: methods.compressed_sensing(n, methods.ista()),
    "gradual": methods.gradual,
    "gradual regrow .3": lambda n: methods.gradual(n, regrow=0.3),
    "gradual adam": lambda n: _judged(methods.gradual(n), metrics.adam()),
    "gradual adam, regrow .3": lambda n: _judged(methods.gradual(n, regrow=0.3), metrics.adam()),
    "one_shot": methods.one_shot,
    "ste": methods.ste,
    "set": methods.set_,
    "rigl": methods.rigl,
    "granet": methods.granet,
    "acdc": methods.acdc,
    "str": methods.str_,
    "movement": methods.movement,
    "static": methods.static,
    "random": methods.random,
}


def main() -> None:
    chosen = options(__doc__, "toy_methods", only="methods whose names this regular expression matches; all by default")
    steps, seeds = (200, 2) if chosen.quick else (1_000, 5)
    records = []
    for sparsity in (0.9,) if chosen.quick else (0.9, 0.95, 0.98):
        errors = {}
        for name, make in METHODS.items():
            if not re.fullmatch(chosen.only or ".*", name):
                continue
            start = time.perf_counter()
            record, errors[name] = _record(name, make(steps), sparsity, steps, seeds)
            records.append(record | {"seconds": time.perf_counter() - start})
            if "compressed_sensing" in errors:
                gap = errors[name] - errors["compressed_sensing"]
                records[-1] |= {"minus_cs": gap.mean(), "minus_cs_se": gap.std(ddof=1) / len(gap) ** 0.5}
            print(".", end="", flush=True)
        print()
        mine = sorted((r for r in records if r["sparsity"] == sparsity), key=lambda r: r["error"])
        show(mine, ["sparsity", "method", "error", "error_se", "minus_cs", "minus_cs_se", "weight_decay", "density"])
    save(records, chosen.out)


def _judged(method: methods.Method, metric: metrics.Metric) -> methods.Method:
    """By this metric, whatever a rule says."""
    return dataclasses.replace(method, metric=metric)


def _record(
    name: str, method: methods.Method | None, sparsity: float, steps: int, seeds: int
) -> tuple[dict, np.ndarray]:
    """Every weight decay and seed at once; the decay with the least validation error speaks for the method."""
    grid = jnp.repeat(jnp.asarray(DECAYS), seeds), jnp.tile(jnp.arange(seeds), len(DECAYS))
    run = jax.jit(jax.vmap(lambda decay, seed: _train(method, sparsity, steps, decay, seed)))
    validation, test, density = (np.asarray(x).reshape(len(DECAYS), seeds) for x in run(*grid))
    best = int(np.nanargmin(validation.mean(axis=1)))
    errors = test[best]
    return {
        "task": "teacher-student",
        "method": name,
        "sparsity": sparsity,
        "seeds": seeds,
        "steps": steps,
        "weight_decay": DECAYS[best],
        "error": errors.mean(),
        "error_se": errors.std(ddof=1) / seeds**0.5,
        "density": density[best].mean(),
    }, errors


def _train(method: methods.Method | None, sparsity: float, steps: int, decay: jax.Array, seed: jax.Array):
    keys = jax.random.split(jax.random.key(seed), 5)
    teacher = jax.tree.map(lambda w: _sparse(w, sparsity), _network(keys[0]))
    params = _network(keys[1])
    tx = optax.adamw(optax.cosine_decay_schedule(1e-2, steps), weight_decay=decay)
    if method is not None:
        tx = csp.sparsify(tx, Rule(".*", structures.entries(), sparsity=sparsity), method=method)

    def step(carry, key):
        params, state = carry
        x = jax.random.normal(key, (BATCH, INPUTS))
        noise = NOISE * jax.random.normal(jax.random.fold_in(key, 1), (BATCH, OUTPUTS))
        gradients = jax.grad(lambda p: jnp.mean((_outputs(p, x) - _outputs(teacher, x) - noise) ** 2))(params)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(keys[2], steps))
    density = sum(jnp.count_nonzero(w) for w in jax.tree.leaves(params)) / sum(w.size for w in jax.tree.leaves(params))
    return *(_error(params, teacher, key) for key in keys[3:]), density


def _network(key: jax.Array) -> dict[str, jax.Array]:
    shapes = {"first": (INPUTS, HIDDEN), "second": (HIDDEN, OUTPUTS)}
    return {
        n: jax.random.normal(jax.random.fold_in(key, i), s) * s[0] ** -0.5 for i, (n, s) in enumerate(shapes.items())
    }


def _sparse(w: jax.Array, sparsity: float) -> jax.Array:
    keep = csp.select.keep_largest(jnp.abs(w), structures.keep_count(w.size, sparsity))
    return jnp.where(keep, w, 0) * (1 - sparsity) ** -0.5 / 2


def _outputs(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.tanh(x @ params["first"]) @ params["second"]


def _error(params: dict, teacher: dict, key: jax.Array) -> jax.Array:
    x = jax.random.normal(key, (4_000, INPUTS))
    truth = _outputs(teacher, x)
    return jnp.mean((_outputs(params, x) - truth) ** 2) / jnp.mean(truth**2)


if __name__ == "__main__":
    main()
