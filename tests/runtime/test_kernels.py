"""All kernels compute the same: int8 to the bit, float32 to the bit among those of the library."""

import itertools

import matrices
import numpy as np
import pytest

from csp import formats
from csp.runtime import matrix, native, reference
from csp.runtime.matrix import Coded
from csp.runtime.native import Native

REFERENCE = reference.Reference()


def _native() -> list[Native]:
    found = []
    for name in native.SETS:
        try:
            found.append(native.kernels(name))
        except ValueError:
            continue
    return found


NATIVE = _native()
needs_library = pytest.mark.skipif(not NATIVE, reason="the library was not built: no C++ compiler at pip install")


def _layouts(floats: bool) -> tuple[str | None, ...]:
    return (None, "dense", "banks") if floats else (None, "dense", "banks", "quads", "chunks", "masks")


@needs_library
@pytest.mark.parametrize("kind", matrices.KINDS)
@pytest.mark.parametrize(("inputs", "outputs"), matrices.SIZES)
def test_int8_products_are_equal_to_the_bit(kind, inputs, outputs):
    w = matrices.coded(kind, inputs, outputs, floats=False)
    rng = np.random.default_rng(1)
    x, bias = rng.normal(size=(5, inputs)).astype(np.float32), rng.normal(size=outputs).astype(np.float32)
    expected = REFERENCE.linear(REFERENCE.pack(w), bias, x)
    for kernels, layout in itertools.product(NATIVE, _layouts(False)):
        packed = kernels.pack(w, layout)
        assert np.array_equal(kernels.linear(packed, bias, x), expected), (kernels.name, layout)
        assert np.array_equal(kernels.linear(packed, bias, x[:1]), expected[:1]), (kernels.name, layout)


@needs_library
@pytest.mark.parametrize("kind", matrices.KINDS)
@pytest.mark.parametrize(("inputs", "outputs"), matrices.SIZES)
def test_float_products_are_right_and_equal_to_the_bit(kind, inputs, outputs):
    w = matrices.coded(kind, inputs, outputs, floats=True)
    x = np.random.default_rng(1).normal(size=(3, inputs)).astype(np.float32)
    expected = x.astype(np.float64) @ w.weights().astype(np.float64)
    for layout in _layouts(True):
        found = [kernels.linear(kernels.pack(w, layout), None, x) for kernels in NATIVE]
        assert np.allclose(found[0], expected, rtol=1e-5, atol=1e-5 * np.sqrt(inputs))
        assert all(np.array_equal(y, found[0]) for y in found), layout


@needs_library
def test_the_largest_codes_do_not_saturate():
    """255 x 127 twice does not fit 16 bits: the instruction that would add such pairs is not used."""
    for sign in (1, -1):
        w = Coded(1024, 16, np.full(1024 * 16, 127 * sign, np.int8), np.ones(16, np.float32), np.arange(1024 * 16))
        x = np.ones((1, 1024), np.float32)
        expected = np.float32(sign * 127 * 127 * 1024) * (np.float32(1) / np.float32(127))
        for kernels, layout in itertools.product(NATIVE, _layouts(False)):
            assert (kernels.linear(kernels.pack(w, layout), None, x) == expected).all(), (kernels.name, layout)


@pytest.mark.parametrize("kernels", [*NATIVE, REFERENCE], ids=lambda k: k.name)
def test_an_int8_product_is_that_of_the_weights_to_half_a_step_of_the_activations(kernels):
    w = matrices.coded("12:128", 256, 48, floats=False)
    x = np.random.default_rng(0).normal(size=(4, 256)).astype(np.float32)
    y = kernels.linear(kernels.pack(w), None, x)
    bound = np.abs(x).max(axis=1, keepdims=True) / 127 / 2 * np.abs(w.weights()).sum(axis=0)
    assert (np.abs(y - x.astype(np.float64) @ w.weights()) <= 1.001 * bound).all()


@pytest.mark.parametrize("kernels", [*NATIVE, REFERENCE], ids=lambda k: k.name)
def test_silence_and_nothing(kernels):
    w = matrices.coded("entries", 40, 24, floats=False)
    packed, bias = kernels.pack(w), np.arange(24, dtype=np.float32)
    assert np.array_equal(kernels.linear(packed, bias, np.zeros((2, 40), np.float32)), np.stack([bias, bias]))
    assert np.array_equal(kernels.linear(packed, bias, np.full((1, 40), 1e-40, np.float32)), bias[None])
    assert kernels.linear(packed, bias, np.zeros((0, 40), np.float32)).shape == (0, 24)


def test_a_row_of_another_width_is_refused():
    for kernels in NATIVE:
        with pytest.raises(ValueError, match="rows of 39 numbers, where 40 are expected"):
            kernels.linear(kernels.pack(matrices.coded("entries", 40, 24, False)), None, np.zeros((1, 39), np.float32))


@needs_library
@pytest.mark.parametrize("floats", [False, True])
@pytest.mark.parametrize("width", [16, 20, 128])
def test_lstm_steps_are_equal_to_the_bit(floats, width):
    w = matrices.coded("12:128", 24, 4 * width, floats)
    r = matrices.coded("12:128", width, 4 * width, floats, seed=1)
    rng = np.random.default_rng(2)
    x, bias = rng.normal(size=(70, 24)).astype(np.float32), rng.normal(size=4 * width).astype(np.float32)
    found = []
    for kernels in [*NATIVE, REFERENCE]:
        h, c = np.zeros(width, np.float32), np.zeros(width, np.float32)
        out = kernels.lstm(kernels.pack(w), kernels.pack(r), bias, x, h, c)
        assert np.array_equal(out[-1], h)
        found.append((out, c))
    for out, c in found[:-1] if floats else found:
        assert np.array_equal(out, found[0][0])
        assert np.array_equal(c, found[0][1])
    assert np.allclose(found[0][0], found[-1][0], atol=1e-4)


@needs_library
@pytest.mark.parametrize("width", [5, 16, 24, 100])
def test_the_other_functions_are_equal_to_the_bit(width):
    rng = np.random.default_rng(width)
    x, y = (5 * rng.normal(size=(9, width)).astype(np.float32) for _ in range(2))
    scale, bias = (rng.normal(size=width).astype(np.float32) for _ in range(2))
    taps = rng.normal(size=(4, width)).astype(np.float32)
    for kernels in NATIVE:
        assert np.array_equal(kernels.norm(x, scale, bias), REFERENCE.norm(x, scale, bias))
        assert np.array_equal(kernels.norm(x, scale, bias, y), REFERENCE.norm(x, scale, bias, y))
        assert np.array_equal(kernels.tanh_of_sum(x, y), REFERENCE.tanh_of_sum(x, y))
        assert np.array_equal(kernels.silu(x), REFERENCE.silu(x))
        assert np.array_equal(kernels.gate(np.hstack([x, y])), REFERENCE.gate(np.hstack([x, y])))
        assert np.array_equal(kernels.depthwise(x, taps), REFERENCE.depthwise(x, taps))


@needs_library
@pytest.mark.parametrize("width", [6, 16, 40])
def test_what_runs_in_one_call_is_what_runs_in_several(width):
    rng = np.random.default_rng(width)
    x = (3 * rng.normal(size=(5, width))).astype(np.float32)
    scale, bias = (rng.normal(size=width).astype(np.float32) for _ in range(2))
    angles = rng.normal(size=(5, 3)).astype(np.float32)
    for kernels in [*NATIVE, REFERENCE]:
        w = {
            (a, b): kernels.pack(matrices.coded("dense", a, b, False, seed=a + b))
            for a, b in [(width, 3), (3, width), (width, 60), (60, width), (width, width)]
        }
        high, added = np.arange(60, dtype=np.float32) / 60, x[1]
        whole, factors = ([w[width, width]], added), ([w[width, 3], w[3, width]], None)
        y = kernels.norm(x, scale, bias)
        one = kernels.linear(w[width, width], added, y)
        two = kernels.linear(w[3, width], None, kernels.linear(w[width, 3], None, y))
        found = kernels.project(x, scale, bias, kernels.several(whole, factors, whole))
        assert np.array_equal(found, [one, two, one])
        up = kernels.silu(kernels.linear(w[width, 60], high, y))
        expected = x + kernels.linear(w[60, width], added, up) * np.float32(0.5)
        both = kernels.several(([w[width, 60]], high), ([w[60, width]], added))
        assert np.array_equal(kernels.feed(x, scale, bias, both, 0.5), expected)
        assert kernels.project(x[:0], scale, bias, kernels.several(whole)).shape == (1, 0, width)
        assert kernels.feed(x[:0], scale, bias, both).shape == (0, width)
        heads = rng.normal(size=(5, 2, 6)).astype(np.float32)
        turned = kernels.rotate(heads, np.cos(angles), np.sin(angles))
        assert np.array_equal(turned, REFERENCE.rotate(heads, np.cos(angles), np.sin(angles)))
        exact = (heads[..., :3] + 1j * heads[..., 3:]) * np.exp(1j * angles[:, None])
        assert np.allclose(turned, np.concatenate([exact.real, exact.imag], -1), atol=1e-5)
        if kernels is not REFERENCE:
            with pytest.raises(ValueError, match="do not fit together"):
                kernels.several(([w[width, 3], w[width, 60]], None))
            with pytest.raises(ValueError, match="4 angles for 5 rows"):
                kernels.rotate(heads, np.cos(angles[:4]), np.sin(angles[:4]))


@needs_library
@pytest.mark.parametrize("size", [6, 16, 40])
@pytest.mark.parametrize("shared", [False, True])
def test_attention_is_equal_to_the_bit_and_right(size, shared):
    rng = np.random.default_rng(size)
    q = 3 * rng.normal(size=(4, 3, size)).astype(np.float32)
    memory = rng.normal(size=(2, 19, 3, size) if shared else (4, 2, 19, 3, size)).astype(np.float32)
    counts = np.array([19, 1, 7, 18])
    found = REFERENCE.attend(q, memory, counts)
    for kernels in NATIVE:
        assert np.array_equal(kernels.attend(q, memory, counts), found)
        with pytest.raises(ValueError, match="do not fit a memory"):
            kernels.attend(q, memory, np.array([19, 1, 0, 18]))
        with pytest.raises(ValueError, match="do not fit a memory"):
            kernels.attend(q, memory, np.array([19, 1, 20, 18]))
    for r, count in enumerate(counts):
        keys, values = (memory if shared else memory[r])[:, :count].astype(np.float64)
        scores = np.einsum("he,she->hs", q[r], keys) / np.sqrt(size)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        exact = np.einsum("hs,she->he", weights / weights.sum(1, keepdims=True), values)
        assert np.allclose(found[r], exact.reshape(-1), atol=1e-5)


def test_exponentials_are_right():
    x = np.concatenate([np.linspace(-90, 90, 20_001), np.linspace(-1e-3, 1e-3, 2001)]).astype(np.float32)
    exact = np.exp(np.clip(x.astype(np.float64), -87, 88))
    assert (np.abs(reference.exponential(x) - exact) <= 4e-7 * exact).all()
    assert (np.abs(reference.hyperbolic(x) - np.tanh(x.astype(np.float64))) <= 3e-7).all()
    assert (np.abs(reference.sigmoid(x) - 1 / (1 + np.exp(-x.astype(np.float64)))) <= 2e-7).all()


@pytest.mark.parametrize("kernels", [*NATIVE, REFERENCE], ids=lambda k: k.name)
@pytest.mark.parametrize("values", ["f32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("codec", ["dense", "bitmask", "n_of_m", "indices", "factors"])
def test_every_codec_and_value_type_is_packed(kernels, values, codec, tmp_path):
    rng = np.random.default_rng(0)
    w = np.where(matrices.keep("12:128", 256, 40, rng), rng.normal(size=(256, 40)), 0).astype(np.float32)
    path = formats.save(tmp_path / "m.safetensors", {"w": w}, codec, values=values)
    x = rng.normal(size=(3, 256)).astype(np.float32)
    with formats.open(path) as file:
        y = x
        for found in matrix.read(file, "w"):
            y = kernels.linear(kernels.pack(found), None, y)
        decoded = file.decode("w")
    expected = x @ (decoded.u @ decoded.v if codec == "factors" else decoded)
    exact = values in ("f32", "bf16")
    assert np.abs(y - expected).max() <= (1e-4 if exact else 0.06) * np.abs(expected).max()


@needs_library
def test_the_fastest_layout_is_chosen():
    kernels = NATIVE[-1]
    for each in NATIVE:
        half = each.pack(matrices.coded("half", 512, 64, False)).layout
        assert half == ("masks" if each.name == "vbmi" else "dense"), each.name
    layouts = {kind: kernels.pack(matrices.coded(kind, 512, 64, False)).layout for kind in matrices.KINDS}
    assert layouts["12:128"] == layouts["entries"] == "banks"
    assert layouts["dense"] == "dense"
    four = np.repeat(np.random.default_rng(0).random((128, 64)) < 0.1, 4, axis=0)
    order = np.flatnonzero(four)
    assert kernels.pack(Coded(512, 64, np.ones(len(order), np.int8), np.ones(64, np.float32), order)).layout == "quads"
    banked = kernels.pack(matrices.coded("12:128", 1024, 64, False))
    assert banked.nbytes < 0.2 * 1024 * 64


@needs_library
@pytest.mark.parametrize("order", [[-1, 3], [0, 40 * 24], [5] * 200])
def test_places_beyond_the_matrix_are_refused(order):
    values = np.ones(len(order), np.int8)
    for kernels, layout in itertools.product(NATIVE, ("banks", None)):
        with pytest.raises(ValueError, match="beyond the matrix"):
            kernels.pack(Coded(40, 24, values, np.ones(24, np.float32), np.array(order)), layout)


def test_kernels_are_chosen_by_name(monkeypatch):
    native.kernels.cache_clear()
    monkeypatch.setenv("CSP_KERNELS", "reference")
    assert native.kernels().name == "reference"
    monkeypatch.setenv("CSP_KERNELS", "sse9")
    native.kernels.cache_clear()
    with pytest.raises(ValueError, match="sse9 is none of portable, avx2, avx512, vbmi, reference"):
        native.kernels()
    monkeypatch.undo()
    native.kernels.cache_clear()


@pytest.fixture
def fresh():
    """Nothing is remembered of the library, before and after."""
    for cached in (native.kernels, native._library):
        cached.cache_clear()
    yield
    for cached in (native.kernels, native._library):
        cached.cache_clear()


def test_without_a_library_numpy_does_the_work_and_says_so(fresh, monkeypatch, tmp_path):
    monkeypatch.setattr(native, "LIBRARY", tmp_path / "_kernels.so")
    monkeypatch.delenv("CSP_KERNELS", raising=False)
    assert native.kernels().name == "reference"
    assert "not built" in native.why_not()
    with pytest.raises(ValueError, match="avx2 cannot run here: csp's kernels were not built"):
        native.kernels("avx2")


@needs_library
def test_a_library_of_other_sources_is_not_used(fresh, monkeypatch):
    monkeypatch.setattr(native, "source_digest", lambda folder: "another")
    monkeypatch.delenv("CSP_KERNELS", raising=False)
    assert native.kernels().name == "reference"
    assert "older than their sources" in native.why_not()
