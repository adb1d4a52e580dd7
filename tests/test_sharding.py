"""The same masks on any number of devices, and nothing but counts and thresholds between them."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from devices import eight_devices
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import csp
from csp import Rule, methods, structures

SHAPE, STEPS = (256, 128), 6
CASES = {
    "near ties, rows, gradual": (structures.rows(), methods.gradual),
    "entries, dual": (structures.entries(), methods.compressed_sensing),
    "12:128, gradual": (structures.n_of_m(12, 128), methods.gradual),
    "blocks, rigl": (structures.blocks(4, 4), methods.rigl),
}
LONG = ("near ties, rows, gradual", "12:128, gradual", "blocks, rigl")
MESHES = [(1, "Auto", 0), (4, "Auto", 0), (8, "Auto", 1), (8, "Explicit", 0), (4, "Explicit", 1)]


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.long) if case in LONG else case for case in CASES]
)
def test_the_masks_are_those_of_one_device_and_only_counts_and_thresholds_travel(case):
    """A few numbers for each competition, and the worth of each unit that is cut, where a parameter is many."""
    command = [sys.executable, __file__, case]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=eight_devices())
    assert done.returncode == 0, done.stderr[-3000:]
    alone, *sharded = json.loads(done.stdout.splitlines()[-1])
    structure, _ = CASES[case]
    competitions = np.size(structure.kept(SHAPE, 0.8)) * (SHAPE[-1] if structure.axes else 1)
    units = structure.sizes(SHAPE) if isinstance(structure, structures.Slices) else 0
    assert any(alone["mask"])
    for mesh, found in zip(MESHES, sharded, strict=True):
        assert found["mask"] == alone["mask"], mesh
        assert max(found["moved"], default=0) <= 8 * competitions + 4 * units < np.prod(SHAPE) / 8, mesh
        assert bool(found["moved"]) == (mesh[0] > 1), mesh


def test_groups_that_no_shard_holds_whole_move_nothing_between_refreshes():
    """640 inputs on four devices are five groups of 128: they are gathered to be ranked, and not to be faded."""
    command = [sys.executable, __file__, "uneven"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=eight_devices())
    assert done.returncode == 0, done.stderr[-3000:]
    alone, sharded = json.loads(done.stdout.splitlines()[-1])
    assert any(alone["mask"])
    assert sharded["mask"] == alone["mask"]
    assert max(sharded["between"], default=0) <= 1


def test_units_that_no_shard_holds_whole_are_followed_from_the_start():
    """A state is made where axes are explicit, of any structure and method, and the step runs on it."""
    command = [sys.executable, __file__, "start"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=eight_devices())
    assert done.returncode == 0, done.stderr[-3000:]


def start_everywhere() -> None:
    grid = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Explicit,))
    for structure in (
        structures.n_of_m(12, 128),
        structures.blocks(16, 1),
        structures.blocks(5, 5),
        structures.heads(2),
    ):
        for make in (methods.compressed_sensing, methods.ste, methods.gradual, methods.rigl):
            rule = Rule("w", structure, sparsity=None if structure.sparsity else 0.5)
            tx = csp.sparsify(optax.adamw(1e-2), rule, method=make(4))
            with jax.set_mesh(grid):
                params = {"w": jax.device_put(jnp.ones((64, 24)), NamedSharding(grid, PartitionSpec("x")))}
                state = jax.jit(tx.init)(params)
                jax.eval_shape(tx.update, params, state, params)


def explore(case: str) -> list[dict]:
    """On one device, and on every mesh of the eight that this process has."""
    structure, make = CASES[case]
    return [_train(structure, make(STEPS), mesh) for mesh in (None, *MESHES)]


def uneven() -> list[dict]:
    return [
        _train(structures.n_of_m(12, 128), methods.compressed_sensing(STEPS), m, (640, 16)) for m in (None, MESHES[1])
    ]


def _train(structure, method, mesh, shape=SHAPE) -> dict:
    if mesh is None:
        return _run(structure, method, lambda x: x, shape)
    devices, kind, axis = mesh
    grid = jax.make_mesh((devices,), ("x",), axis_types=(getattr(AxisType, kind),))
    spec = PartitionSpec(*("x" if a == axis else None for a in range(2)))
    with jax.set_mesh(grid):
        return _run(structure, method, lambda x: jax.device_put(x, NamedSharding(grid, spec)), shape)


def _run(structure, method, put, shape) -> dict:
    rng = np.random.default_rng(0)
    rule = Rule("w", structure, sparsity=None if structure.sparsity else 0.8)
    tx = csp.sparsify(optax.adamw(1e-2), rule, method=method)
    params = {"w": put(jnp.asarray(_weights(structure, rng, shape), jnp.float32))}
    state = jax.jit(tx.init)(params)

    def step(params, state, gradients):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    scale = 0.0 if structure == structures.rows() else 1.0  # so that they stay the same
    gradients = [{"w": put(jnp.asarray(scale * rng.normal(size=shape), jnp.float32))} for _ in range(STEPS)]
    run = jax.jit(step)
    params, state = run(params, state, gradients[0])  # after which the state is sharded as it stays
    compiled = run.lower(params, state, gradients[0]).compile()
    for g in gradients[1:]:
        params, state = run(params, state, g)
    mask = np.packbits(np.asarray(params["w"]) != 0).tolist()
    hlo = compiled.as_text()
    return {"mask": mask, "moved": _moved(hlo), "between": _moved(hlo[hlo.index("ENTRY") :])}


def _weights(structure, rng, shape) -> np.ndarray:
    """Rows that are permutations of each other are worth the same, but for how their squares are added."""
    w = rng.normal(size=shape)
    return w if structure != structures.rows() else np.stack([rng.permutation(w[0]) for _ in range(shape[0])])


COLLECTIVE = re.compile(
    r"= (.*?) (?:all-gather|all-reduce|all-to-all|reduce-scatter|collective-\w+|ragged-all-to-all)(?:-start)?\("
)


def _moved(hlo: str) -> list[int]:
    """How many numbers each collective brings to a device."""
    results = [re.findall(r"\w+\[([\d,]*)\]", shapes) for shapes in COLLECTIVE.findall(hlo)]
    return [sum(int(np.prod([int(n) for n in shape.split(",") if n] or [1])) for shape in each) for each in results]


if __name__ == "__main__":
    ways = {"start": start_everywhere, "uneven": uneven}
    print(json.dumps(ways[sys.argv[1]]() if sys.argv[1] in ways else explore(sys.argv[1])))
