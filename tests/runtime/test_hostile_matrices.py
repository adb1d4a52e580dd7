"""Packed tensors made of mutated files and of nonsense: an error or a product, never a crash."""

import json

import matrices
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp import formats
from csp.formats import FormatError
from csp.runtime import matrix, native, reference
from csp.runtime.matrix import Coded


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_order_and_codes_are_packed_or_refused(data):
    inputs, outputs = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 40))
    size = inputs * outputs
    order = data.draw(st.lists(st.integers(-5, size + 5), max_size=60, unique=True))
    floats = data.draw(st.booleans())
    rng = np.random.default_rng(len(order))
    values = rng.normal(size=len(order)).astype(np.float32) if floats else rng.integers(-128, 128, len(order))
    scale = None if floats else np.ones(outputs, np.float32)
    values = values if floats else values.astype(np.int8)
    coded = Coded(inputs, outputs, values, scale, np.array(order, np.int64))
    x = rng.normal(size=(2, inputs)).astype(np.float32)
    right = all(0 <= place < size for place in order)
    for name in native.SETS:
        try:
            kernels = native.kernels(name)
        except ValueError:
            continue
        for layout in ("banks", "dense") if floats else ("banks", "quads", "chunks", "masks", "dense"):
            if right:
                y = kernels.linear(kernels.pack(coded, layout), None, x)
                expected = reference.Reference().linear(reference.Reference().pack(coded), None, x)
                assert np.allclose(y, expected, rtol=1e-4, atol=1e-4)
            else:
                with pytest.raises((ValueError, IndexError)):
                    kernels.pack(coded, layout)


@pytest.mark.parametrize("codec", ["bitmask", "n_of_m", "indices", "factors"])
@pytest.mark.parametrize("values", ["f32", "int8", "int4"])
def test_mutated_files_give_an_error_or_the_same_product(codec, values, tmp_path):
    rng = np.random.default_rng(0)
    w = np.where(matrices.keep("12:128", 128, 16, rng), rng.normal(size=(128, 16)), 0).astype(np.float32)
    whole = formats.save(tmp_path / "w.safetensors", {"w": w}, codec, values=values).read_bytes()
    path, x = tmp_path / "m.safetensors", rng.normal(size=(1, 128)).astype(np.float32)

    def product():
        y = x
        with formats.open(path) as file:
            for coded in matrix.read(file, "w"):
                kernels = native.kernels()
                y = kernels.linear(kernels.pack(coded), None, y)
        return y

    path.write_bytes(whole)
    expected, refused = product(), 0
    for _ in range(150):
        spoiled = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            spoiled[at] = rng.integers(0, 256)
        path.write_bytes(spoiled)
        try:
            assert np.array_equal(product(), expected)
        except (FormatError, KeyError):
            refused += 1
    assert refused > 100


def test_a_manifest_that_lies_about_its_shape_is_refused(tmp_path):
    """With every digest made right again."""
    from csp.formats import header, manifest

    rng = np.random.default_rng(0)
    w = np.where(rng.random((128, 16)) < 0.1, rng.normal(size=(128, 16)), 0).astype(np.float32)
    data = formats.save(tmp_path / "w.safetensors", {"w": w}, "bitmask", values="int8").read_bytes()
    length = int.from_bytes(data[:8], "little")
    said = json.loads(data[8 : 8 + length])
    for shape in ([64, 16], [128, 17], [16, 128], [1, 2048], [2**40, 16], [128]):
        whole = json.loads(said["__metadata__"]["csp"])
        whole["tensors"]["w"]["shape"] = shape
        text = json.dumps(whole)
        head = said | {"__metadata__": {"format": "csp", "csp": text, "digest": manifest.digest(text)}}
        packed = json.dumps(head).encode()
        packed += b" " * (-len(packed) % 8)
        path = tmp_path / "lie.safetensors"
        path.write_bytes(len(packed).to_bytes(8, "little") + packed + data[8 + length :])
        assert header.parse(path.read_bytes()[: 8 + len(packed)], path.stat().st_size)
        with pytest.raises(FormatError):
            _pack(path)


def _pack(path):
    with formats.open(path) as file:
        return [native.kernels().pack(coded) for coded in matrix.read(file, "w")]
