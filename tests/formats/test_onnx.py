"""The ONNX model: read back field by field, as its protocol buffers say."""

import math

import ml_dtypes
import models
import numpy as np
import pytest

from csp import formats
from csp.cli import main
from csp.formats import onnx

TYPES = {1: np.float32, 7: np.int64, 10: np.float16, 11: np.float64, 16: ml_dtypes.bfloat16}


def fields(raw: bytes) -> list[tuple[int, int | bytes]]:
    """(number, value) of each field of a message."""
    found, at = [], 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (raw[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if raw[at - 1] < 128:
                return value

    while at < len(raw):
        key = varint()
        value = varint()
        if key & 7 == 2:
            value, at = raw[at : at + value], at + value
        else:
            assert key & 7 == 0
        found.append((key >> 3, value))
    return found


def every(raw: bytes, number: int) -> list:
    return [value for field, value in fields(raw) if field == number]


def array(raw: bytes) -> np.ndarray:
    return np.frombuffer(every(raw, 9)[0], TYPES[every(raw, 2)[0]]).reshape(every(raw, 1))


def weights(path) -> dict[str, np.ndarray]:
    (graph,) = every(path.read_bytes(), 7)
    found = {every(t, 8)[0].decode(): array(t) for t in every(graph, 5)}
    for sparse in every(graph, 15):
        values, indices = array(every(sparse, 1)[0]), array(every(sparse, 2)[0])
        shape = every(sparse, 3)
        w = np.zeros(math.prod(shape), values.dtype)
        w[indices] = values
        found[every(every(sparse, 1)[0], 8)[0].decode()] = w.reshape(shape)
    nodes = [[part.decode() for _, part in fields(node)] for node in every(graph, 1)]
    assert sorted(nodes) == sorted([name, f"{name}/value", name, "Identity"] for name in found)
    assert [every(value, 1)[0].decode() for value in every(graph, 12)] == [node[1] for node in nodes]
    return found


def test_every_weight_comes_back_and_sparse_ones_are_small(tmp_path):
    params = {kind: models.sparse(dtype=dtype) for kind, dtype in models.KINDS.items()}
    params |= {"full": models.sparse((9, 9), 1.0), "bias": np.arange(5, dtype=np.float32), "one": np.float32(2.0)[None]}
    params |= {"layers": [models.sparse((3, 5, 7), 0.1)], "zero": np.array([[-0.0, 1.0]], np.float32)}
    found = weights(onnx.save(tmp_path / "m.onnx", params))
    for name, w in params.items():
        if name not in ("layers", "zero"):
            assert models.same_bits(found[name], w), name
    assert models.same_bits(found["layers/0"], params["layers"][0])
    assert not np.signbit(found["zero"]).any()
    large = {"w": models.sparse((256, 256), 0.05)}
    assert onnx.save(tmp_path / "s.onnx", large).stat().st_size < 0.2 * large["w"].nbytes


def test_the_onnx_library_agrees(tmp_path):
    library = pytest.importorskip("onnx", reason="the onnx package is not installed")
    path = onnx.save(
        tmp_path / "m.onnx", {"dense": models.sparse((9, 9), 1.0), "w": models.sparse((64, 64), 0.1)}, {"a": "b"}
    )
    model = library.load(path)
    library.checker.check_model(model)
    assert [len(model.graph.initializer), len(model.graph.sparse_initializer)] == [1, 1]
    assert [(p.key, p.value) for p in model.metadata_props] == [("a", "b")]


def test_convert_writes_it(tmp_path, capsys):
    w = models.sparse((64, 64), 0.1)
    path = formats.save(tmp_path / "m.safetensors", {"w": w}, "bitmask")
    assert main(["convert", str(path), "-o", str(tmp_path / "m.onnx")]) == 0
    assert models.same_bits(weights(tmp_path / "m.onnx")["w"], w)
    assert main(["convert", str(path), "-o", str(tmp_path / "n.onnx"), "--values", "int8"]) == 2
    assert "an ONNX model has the weights as they are" in capsys.readouterr().err
