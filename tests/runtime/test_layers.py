"""Layers as they are packed: an embedding is never made dense."""

import matrices
import numpy as np
import pytest

from csp import formats
from csp.formats import FormatError
from csp.runtime import native
from csp.runtime.layers import Embedding, Linear, Source


@pytest.mark.parametrize("values", ["f32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("codec", ["dense", "bitmask", "n_of_m", "indices", "factors"])
def test_rows_of_an_embedding_are_those_of_the_table(values, codec, tmp_path):
    rng = np.random.default_rng(0)
    w = np.where(matrices.keep("12:128", 128, 24, rng), rng.normal(size=(128, 24)), 0).astype(np.float32)
    path = formats.save(tmp_path / "m.safetensors", {"e": w}, codec, values=values)
    with formats.open(path) as file:
        embedding = Embedding(Source(file, native.kernels()), "e", 128, 24)
        with pytest.raises(FormatError, match="is 128 x 24, where 128 x 25 is expected"):
            Embedding(Source(file, native.kernels()), "e", 128, 25)
    expected = formats.load(path)[0]["e"]
    rows = np.concatenate([embedding(n) for n in range(128)])
    if codec != "factors":
        assert np.array_equal(rows, expected)
    else:  # whose products are rounded once more where they are codes
        bound = 1e-5 if values in ("f32", "bf16") else 0.05
        assert np.abs(rows - expected).max() <= bound * np.abs(expected).max()


def test_layers_without_a_bias_and_of_factors(tmp_path):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(20, 9)).astype(np.float32)
    path = formats.save(tmp_path / "m.safetensors", {"a": {"kernel": w}}, "factors")
    x = rng.normal(size=(4, 20)).astype(np.float32)
    with formats.open(path) as file:
        for form in (None, "float32"):
            linear = Linear(Source(file, native.kernels(), form), "a")
            assert np.allclose(linear(x), x @ w, atol=1e-4)
            assert len(linear.matrices) == (2 if form is None else 1)
