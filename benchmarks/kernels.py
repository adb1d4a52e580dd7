"""How much faster is a sparse matrix? One row times a stack of 30 M weights, and an LSTM step, on one core.

Against JAX's float32 `W @ v`, NumPy, SciPy's CSR, and the best dense int8 of our own, PyTorch's and onnxruntime's where
they are installed. "stack" walks all matrices as a network does, step after step; "cold" is the first product after the
caches were emptied, "hot" takes one matrix again and again.
Targets, over JAX: 12:128 >= 20, 32:128 >= 7, 8:128 >= 35, entries at 90 % >= 8; LSTM steps at 12:128 >= 20; over the
best dense int8: 12:128 >= 5, 32:128 >= 1.6.
"""

import os
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from _timing import options, save, show

from csp.runtime import native
from csp.runtime.matrix import Coded, dense

INPUTS, OUTPUTS, COUNT = 1024, 4096, 7
Task = Callable[[], object]


def main() -> None:
    _alone()
    chosen = options(__doc__, "kernels")
    repeats = 3 if chosen.quick else 15
    kernels = native.kernels()
    records = _stack(INPUTS, OUTPUTS, COUNT, repeats) + _stack(1024, 1024, 4 * COUNT, repeats)
    columns = ["what", "size", "layout", "bytes_per_weight", "hot_us", "stack_us", "cold_us"]
    print(f"{kernels.name} kernels, one core; memory is read at {records[0]['memory_gb_s']:.1f} GB/s\n")
    show(records, [*columns, "over_jax", "over_dense_int8", "of_bandwidth"])
    steps = [record for width in (640, 1024) for record in _lstm(width, repeats)]
    print()
    show(steps, ["what", "size", "stack_us", "over_jax"])
    save(records + steps, chosen.out)


def _alone() -> None:
    """One core, one thread: NumPy has started its own before it could be told, so that all begins again."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _stack(inputs: int, outputs: int, count: int, repeats: int) -> list[dict]:
    """A row for each way to multiply by `count` matrices."""
    rng, kernels = np.random.default_rng(0), native.kernels()
    x = rng.normal(size=(1, inputs)).astype(np.float32)
    coded = {
        "csp 32:128 int8": banked(32, inputs, outputs, rng),
        "csp 12:128 int8": banked(12, inputs, outputs, rng),
        "csp 8:128 int8": banked(8, inputs, outputs, rng),
        "csp entries 90 % int8": entries(0.1, 1, inputs, outputs, rng),
        "csp entries 60 % int8": entries(0.4, 1, inputs, outputs, rng),
        "csp entries 50 % int8": entries(0.5, 1, inputs, outputs, rng),
        "csp blocks 16x1 90 % int8": entries(0.1, 16, inputs, outputs, rng),
        "csp 12:128 float32": _floats(banked(12, inputs, outputs, rng)),
        "csp dense int8": dense(rng.normal(size=(inputs, outputs)).astype(np.float32), "int8"),
        "csp dense float32": dense(rng.normal(size=(inputs, outputs)).astype(np.float32), "float32"),
    }
    ways: dict[str, list[Task]] = {}
    facts: dict[str, dict] = {}
    for name, matrix in coded.items():
        packed = [kernels.pack(matrix, "dense" if "dense" in name else None) for _ in range(count)]
        ways[name] = [lambda w=w: kernels.linear(w, None, x) for w in packed]
        facts[name] = {"layout": packed[0].layout, "bytes_per_weight": packed[0].nbytes / (inputs * outputs)}
    ways |= _others(inputs, outputs, count, x[0], coded["csp entries 90 % int8"])
    times = _measure(ways, repeats)
    memory = _bandwidth()
    ours = ("csp dense int8", "torch dense int8", "onnxruntime dense int8")
    best = min(times[name]["stack_us"] for name in ours if name in times)
    found = []
    for name, of in times.items():
        record = {"what": name, "size": f"{inputs}x{outputs}x{count}"} | facts.get(name, {"layout": "-"}) | of
        record |= {"over_jax": times["jax float32"]["stack_us"] / of["stack_us"], "memory_gb_s": memory}
        record |= {"over_dense_int8": best / of["stack_us"]}
        if name in facts:
            bytes_ = facts[name]["bytes_per_weight"] * inputs * outputs
            record["of_bandwidth"] = bytes_ / of["stack_us"] / 1e3 / memory
        found.append(record)
    return found


def _others(inputs: int, outputs: int, count: int, v: np.ndarray, sparse: Coded) -> dict[str, list[Task]]:
    rng = np.random.default_rng(1)
    matrices = [rng.normal(size=(outputs, inputs)).astype(np.float32) for _ in range(count)]
    product, on_device = jax.jit(lambda w, v: w @ v), [jnp.asarray(w) for w in matrices]
    csr = [scipy.sparse.csr_matrix(sparse.weights().T) for _ in range(count)]
    found: dict[str, list[Task]] = {
        "jax float32": [lambda w=w: product(w, v).block_until_ready() for w in on_device],
        "numpy float32": [lambda w=w: w @ v for w in matrices],
        "scipy CSR float32, 90 %": [lambda w=w: w @ v for w in csr],
    }
    try:
        import torch

        torch.set_num_threads(1)
        layers = [torch.ao.nn.quantized.dynamic.Linear.from_float(_for_torch(torch, w)) for w in matrices]
        row = torch.from_numpy(v[None])
        found["torch dense int8"] = [lambda f=f: f(row) for f in layers]
    except ImportError:
        print("torch is not installed: its int8 is left out")
    try:
        import onnxruntime

        from csp.formats.onnx import quantised_product

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        codes = [rng.integers(-127, 128, (inputs, outputs)).astype(np.int8) for _ in range(count)]
        sessions = [
            onnxruntime.InferenceSession(quantised_product(c), settings, ["CPUExecutionProvider"]) for c in codes
        ]
        found["onnxruntime dense int8"] = [lambda s=s: s.run(None, {"x": v[None]}) for s in sessions]
    except ImportError:
        print("onnxruntime is not installed: its int8 is left out")
    return found


def _for_torch(torch, w: np.ndarray):
    layer = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
    layer.weight.data = torch.from_numpy(w)
    layer.qconfig = torch.ao.quantization.default_dynamic_qconfig
    return layer


def _lstm(width: int, repeats: int) -> list[dict]:
    """A step of a stack of layers, 30 M weights in all: ours at 12:128, JAX's dense."""
    rng, kernels = np.random.default_rng(0), native.kernels()
    count = max(1, 30_000_000 // (8 * width * width))
    x, bias = rng.normal(size=(1, width)).astype(np.float32), np.zeros(4 * width, np.float32)
    h, c = np.zeros(width, np.float32), np.zeros(width, np.float32)
    layers = [[kernels.pack(banked(12, width, 4 * width, rng)) for _ in range(2)] for _ in range(count)]
    ways: dict[str, list[Task]] = {
        "csp 12:128 int8 step": [lambda w=w, r=r: kernels.lstm(w, r, bias, x, h, c) for w, r in layers]
    }
    whole = [jnp.asarray(rng.normal(size=(4 * width, width)).astype(np.float32)) for _ in range(2 * count)]

    @jax.jit
    def step(w, r, x, h, c):
        i, f, z, o = jnp.split(w @ x + r @ h + bias, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(z)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    pairs = zip(whole[::2], whole[1::2], strict=True)
    ways["jax float32 step"] = [lambda w=w, r=r: jax.block_until_ready(step(w, r, x[0], h, c)) for w, r in pairs]
    times = _measure(ways, repeats)
    return [
        {"what": name, "size": f"{width} cells x{count}"}
        | of
        | {"over_jax": times["jax float32 step"]["stack_us"] / of["stack_us"]}
        for name, of in times.items()
    ]


def _measure(ways: dict[str, list[Task]], repeats: int) -> dict[str, dict[str, float]]:
    """Microseconds of one product: medians over turns, in each of which every way is measured."""
    flood = np.zeros(2**26, np.float32)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in ways}
    for _ in range(repeats):
        for name, tasks in ways.items():
            flood += 1
            seconds = {"cold_us": _once(tasks[:1]), "first": _once(tasks), "stack_us": _once(tasks * 2)}
            seconds |= {"warm": _once(tasks[:1]), "hot_us": _once(tasks[:1] * 10)}
            for key, value in seconds.items():
                found[name].setdefault(key, []).append(value)
    keys = ("hot_us", "stack_us", "cold_us")
    return {name: {key: 1e6 * float(np.median(of[key])) for key in keys} for name, of in found.items()}


def _once(tasks: list[Task]) -> float:
    """Seconds a task."""
    start = time.perf_counter()
    for task in tasks:
        task()
    return (time.perf_counter() - start) / len(tasks)


def _bandwidth() -> float:
    """GB/s at which one core reads memory."""
    x = np.ones(2**26, np.float32)
    return x.nbytes / min(_once([read]) for read in (x.max, lambda: x @ x) for _ in range(7)) / 1e9


def banked(n: int, inputs: int, outputs: int, rng: np.random.Generator) -> Coded:
    """Codes of exactly n of every 128 inputs."""
    place = np.argsort(rng.random((inputs // 128, 128, outputs), dtype=np.float32), axis=1)[:, :n]
    rows = place + 128 * np.arange(inputs // 128)[:, None, None]
    return _codes((rows * outputs + np.arange(outputs)).reshape(-1), inputs, outputs, rng)


def entries(density: float, block: int, inputs: int, outputs: int, rng: np.random.Generator) -> Coded:
    """Codes of entries, or of blocks of inputs, that live by chance."""
    keep = np.repeat(rng.random((inputs // block, outputs)) < density, block, axis=0)
    return _codes(np.flatnonzero(keep), inputs, outputs, rng)


def _codes(order: np.ndarray, inputs: int, outputs: int, rng: np.random.Generator) -> Coded:
    codes = rng.integers(1, 128, len(order)).astype(np.int8)
    return Coded(inputs, outputs, codes, np.full(outputs, 0.01, np.float32), order.astype(np.int64))


def _floats(coded: Coded) -> Coded:
    return coded._replace(values=coded.values.astype(np.float32), scale=None)


if __name__ == "__main__":
    main()
