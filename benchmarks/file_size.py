"""How small is a model file? Bits a weight and bytes over dense float32, for sparsity x codec x value type, and the
distance to the entropy.

Gaussian weights of one 1024 x 1024 layer, pruned by magnitude. The bound is Shannon's: the entropy of the mask plus the
empirical entropy of the stored numbers' codes. Targets: bitmask f32 at 90 % <= 0.133, 12:128 int8 <= 0.055, an archive
of int8 at 90 % within 1.10 of the bound.
"""

import gzip
import tempfile
from pathlib import Path

import numpy as np
from _timing import options, save, show

from csp import formats

SHAPE = (1024, 1024)
CODECS = ("dense", "bitmask", "indices", "auto")


def main() -> None:
    chosen = options(__doc__, "file_size")
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for sparsity in (0.5, 0.75, 0.9, 0.95, 0.98):
            records += _records(_pruned(sparsity), f"{sparsity:.0%}", Path(folder))
        records += _records(_banked(12, 128), "12:128", Path(folder))
    show(records, ["budget", "codec", "values", "archive", "bits_per_weight", "of_dense_f32", "of_bound"])
    save(records, chosen.out)


def _pruned(sparsity: float) -> np.ndarray:
    w = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return np.where(np.abs(w) > np.quantile(np.abs(w), sparsity), w, 0)


def _banked(n: int, m: int) -> np.ndarray:
    w = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    groups = np.abs(w).reshape(-1, m, SHAPE[1])
    edge = np.sort(groups, axis=1)[:, m - n - 1 : m - n]
    return np.where(groups > edge, w.reshape(groups.shape), 0).reshape(SHAPE)


def _records(w: np.ndarray, budget: str, folder: Path) -> list[dict]:
    codecs = (*CODECS, "n_of_m") if ":" in budget else CODECS
    records = [_gzipped(w, budget)]
    for values in ("f32", "bf16", "int8", "int4"):
        bound = _bound(w, values) if values in ("int8", "int4") else float("nan")
        for codec, archive in [*((codec, False) for codec in codecs), ("auto", True)]:
            structure = {"w": {"structure": budget}} if ":" in budget else None
            path = formats.save(
                folder / "w.safetensors",
                {"w": w},
                codec,
                values=values,
                archive=archive,
                notes=structure,
                overwrite=True,
            )
            size = formats.inspect(path)["tensors"][0]["bytes"]
            records.append(_record(budget, codec, values, archive, size) | {"of_bound": size / bound})
    return records


def _record(budget: str, codec: str, values: str, archive: bool, size: int) -> dict:
    bits = 8 * size / np.prod(SHAPE)
    named = {"budget": budget, "codec": codec, "values": values, "archive": archive}
    return named | {"bits_per_weight": bits, "of_dense_f32": bits / 32}


def _gzipped(w: np.ndarray, budget: str) -> dict:
    return _record(budget, "gzip -9 of dense", "f32", False, len(gzip.compress(w.tobytes(), 9)))


def _bound(w: np.ndarray, values: str) -> float:
    """Bytes: the entropy of a mask of this density, of codes of this histogram, and the scales as they are."""
    top = {"int8": 127, "int4": 7}[values]
    scale = np.abs(w).max(axis=0) / top
    codes = np.rint(w / scale)[w != 0]
    density = np.count_nonzero(w) / w.size
    mask = -density * np.log2(density) - (1 - density) * np.log2(1 - density)
    _, counts = np.unique(codes, return_counts=True)
    shares = counts / counts.sum()
    return (mask * w.size - (shares * np.log2(shares)).sum() * codes.size) / 8 + 4 * w.shape[1]


if __name__ == "__main__":
    main()
