"""Every type in every codec: what is written is read, to the bit or to the bound of its type, of any shape."""

import itertools

import ml_dtypes
import models
import numpy as np
import pytest

from csp import formats, lowrank
from csp.formats.values import FLOATS, TOP, TYPES

SHAPES = ((), (0,), (3,), (0, 5), (5, 0), (7, 5), (3, 4, 5), (60, 17))
FACTORED = tuple(shape for shape in SHAPES if len(shape) > 1)


def tensors(dtype, shapes) -> dict[str, np.ndarray]:
    chosen = enumerate(itertools.product(shapes, (0.0, 0.3, 1.0)))
    return {str(n): np.asarray(models.sparse(shape, density, n, dtype)) for n, (shape, density) in chosen}


def bound(w: np.ndarray, values: str | None) -> np.ndarray:
    """Half a step of each output's scale, and the rounding of the product to the tensor's type."""
    if values not in TOP or w.ndim < 2:
        return np.zeros(w.shape)
    size = np.abs(w.astype(np.float64))
    step = size.max(axis=tuple(range(w.ndim - 1)), initial=0) / TOP[values]
    return 0.501 * step + float(ml_dtypes.finfo(w.dtype).eps) * size


def kept(w: np.ndarray, values: str | None) -> np.ndarray:
    """As a float type that was asked for has it."""
    narrow = FLOATS[values] if values in FLOATS and w.ndim > 1 else w.dtype
    return (w.astype(narrow) + np.zeros((), narrow)).astype(w.dtype)


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("values", [None, *TYPES])
@pytest.mark.parametrize("codec", ["auto", *models.CODECS])
def test_all_types_fit_all_codecs(codec, values, archive, tmp_path):
    for name, dtype in models.KINDS.items():
        params = tensors(dtype, SHAPES)
        path = formats.save(tmp_path / name, params, codec, values=values, archive=archive)
        for key, back in formats.load(path)[0].items():
            w = params[key]
            assert back.dtype == w.dtype
            assert back.shape == w.shape
            error = np.abs(back.astype(np.float64) - kept(w, values).astype(np.float64))
            assert (error <= bound(w, values)).all(), (name, w.shape)
            assert not np.signbit(back[back == 0]).any()


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("values", [None, *TYPES])
def test_all_types_have_factors(values, archive, tmp_path):
    for name, dtype in models.KINDS.items():
        params = tensors(dtype, FACTORED)
        path = formats.save(tmp_path / name, params, "factors", values=values, archive=archive)
        for key, back in formats.load(path)[0].items():
            w = params[key].astype(np.float64)
            assert back.shape == w.shape
            if values not in TOP:
                narrow = max(float(ml_dtypes.finfo(FLOATS[kind]).eps) for kind in (name, values or name))
                worst = 4 * narrow * np.linalg.norm(w) if w.size else 0
                assert (np.abs(back.astype(np.float64) - w) <= worst).all(), (name, w.shape)


def test_what_becomes_zero_is_positive(tmp_path):
    w = np.array([[-1e-30, 1.0], [-1.0, 1e-30]])
    back = formats.load(formats.save(tmp_path / "m", {"w": w}, values="f16"))[0]["w"]
    assert back.tolist() == [[0, 1], [-1, 0]]
    assert not np.signbit(back[0, 0])


RANK = lowrank.Factors(np.ones((4, 9), np.float32), np.ones((9, 4), np.float32))
LARGE = np.full((4, 4), 1e6, np.float32)
MISTAKES = {
    "too large for f16": ({"w": LARGE}, {"values": "f16"}, "'w': it has weights that f16 cannot hold"),
    "and archived": ({"w": LARGE}, {"values": "f16", "archive": True}, "'w': it has weights that f16 cannot hold"),
    "too large for f32": ({"w": np.full((2, 2), 1e300)}, {"values": "f32"}, "f32 cannot hold: store it as f64"),
    "for its scale": ({"w": np.full((2, 2), 1e300)}, {"values": "int8"}, "float32 scale cannot hold: store it as f64"),
    "a code of NaN": (
        {"w": LARGE * np.nan},
        {"values": "int4", "allow_nonfinite": True},
        "'w': .* int4 .* cannot hold",
    ),
    "the header's name": ({"__metadata__": LARGE}, {}, "'__metadata__' would be stored as"),
    "a part's name": (
        {"a": np.eye(64), "a#values": LARGE},
        {"codec": {"a": "bitmask"}},
        "'a#values' would be stored as",
    ),
    "factors of nothing": ({"w": RANK}, {}, "'w': factors of rank 9 are larger than their product, 4 x 4"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", MISTAKES)
def test_what_could_not_be_read_again_is_not_written(case, tmp_path):
    params, options, message = MISTAKES[case]
    with pytest.raises(ValueError, match=message):
        formats.save(tmp_path / "m.safetensors", params, **options)
    assert not list(tmp_path.iterdir())


def test_a_name_may_be_a_folder_too(tmp_path):
    params = {"a": models.sparse(), "a/b": models.sparse(seed=1)}
    path = formats.save(tmp_path / "m.safetensors", params)
    formats.verify(path)
    back, _ = formats.load(path, flat=True)
    assert all(models.same_bits(back[name], w) for name, w in params.items())
    with pytest.raises(ValueError, match="'a/b' lies inside another tensor: load it with flat=True"):
        formats.load(path)
