"""Small trees of every kind that a file has to hold."""

import ml_dtypes
import numpy as np

KINDS = {"f64": np.float64, "f32": np.float32, "bf16": ml_dtypes.bfloat16, "f16": np.float16}
CODECS = ("dense", "bitmask", "n_of_m", "indices")


def sparse(shape=(37, 24), density=0.1, seed=0, dtype=np.float32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < density, rng.normal(size=shape), 0).astype(dtype)


def banked(n=12, m=128, groups=2, cols=16, seed=0) -> np.ndarray:
    """Exactly n of every m along the inputs."""
    rng = np.random.default_rng(seed)
    keep = np.argsort(rng.random((groups, m, cols)), axis=1) < n
    return np.where(keep, rng.normal(size=keep.shape), 0).astype(np.float32).reshape(groups * m, cols)


def model() -> dict:
    w = sparse()
    return {
        "encoder": {"kernel": w, "bias": np.linspace(-1, 1, 24, dtype=np.float32)},
        "layers": [banked(), sparse(dtype=ml_dtypes.bfloat16), sparse((3, 5, 7), 0.5)],
        "tied": w,
        "scalar": np.asarray(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        "nothing": np.zeros((6, 5), np.float32),
        "full": np.ones((5, 9), np.float32),
    }


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
