"""How fast is a model file read and written, in GB of dense weights a second, beside safetensors' dense file?

Both files lie in the page cache; ours is verified and decoded to dense NumPy arrays, and what is saved is decoded and
compared before it counts as saved. Targets at 90 %: load >= 1, save >= 0.5 of the library's speed.
"""

import tempfile
from pathlib import Path

import numpy as np
import safetensors.numpy
from _timing import medians, options, save, show

from csp import formats

LAYERS, SHAPE = 8, (2048, 2048)


def main() -> None:
    chosen = options(__doc__, "file_speed")
    records = []
    with tempfile.TemporaryDirectory() as name:
        for sparsity in (0.5, 0.9, 0.98):
            records += _records(sparsity, Path(name), rounds=3 if chosen.quick else 7)
    show(records, ["sparsity", "codec", "values", "load_ratio", "save_ratio", "load_gb_s", "save_gb_s"])
    save(records, chosen.out)


def _records(sparsity: float, folder: Path, rounds: int) -> list[dict]:
    rng = np.random.default_rng(0)
    params = {}
    for layer in range(LAYERS):
        w = rng.normal(size=SHAPE).astype(np.float32)
        params[f"layer{layer}"] = np.where(rng.random(SHAPE) < sparsity, 0, w).astype(np.float32)
    size = sum(w.nbytes for w in params.values())
    plain = folder / "plain.safetensors"
    loads = {("plain", "f32"): lambda: safetensors.numpy.load_file(plain)}
    saves = {("plain", "f32"): lambda: safetensors.numpy.save_file(params, plain)}
    for codec, values in (
        ("auto", "f32"),
        ("auto", "int8"),
        ("dense", "f32"),
        ("bitmask", "f32"),
        ("bitmask", "int8"),
        ("indices", "f32"),
        ("indices", "int8"),
    ):
        path = folder / f"{codec}-{values}.safetensors"
        saves[codec, values] = lambda path=path, codec=codec, values=values: formats.save(
            path, params, codec, values=values, overwrite=True
        )
        loads[codec, values] = lambda path=path: formats.load(path)
    saved = medians(saves, rounds)
    loaded = medians(loads, rounds)
    return [
        {
            "sparsity": sparsity,
            "codec": codec,
            "values": values,
            "load_ratio": loaded["plain", "f32"] / loaded[codec, values],
            "save_ratio": saved["plain", "f32"] / saved[codec, values],
            "load_gb_s": size / loaded[codec, values] / 1e9,
            "save_gb_s": size / saved[codec, values] / 1e9,
        }
        for codec, values in loads
    ]


if __name__ == "__main__":
    main()
