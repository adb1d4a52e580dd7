"""A language model's file at work: what JAX says of it, from every kind of file, on all kernels, for many at once."""

import dataclasses

import jax
import numpy as np
import pytest

from csp import formats, lowrank, models
from csp.models import lm
from csp.runtime import native
from csp.runtime.lm import LanguageModel
from csp.speech.tokens import Tokens
from csp.train import lmfile
from csp.train.config import Config, Data, Decode

TOKENS = Tokens("characters", tuple(" ABCDEFGHIJ"))
CONFIG = lm.LMConfig(layers=2, width=32, heads=4)
NETWORKS = {
    "rotary": CONFIG,
    "learned": dataclasses.replace(CONFIG, positions="learned", context=20),
    "untied": dataclasses.replace(CONFIG, tied=False),
    "lstm": dataclasses.replace(CONFIG, network="lstm"),
}
ROWS = [[1, 2, 3], [], [4, 5, 6, 7, 8, 9, 10, 11, 1], [5]]


def write(path, config, values="f32", keep=1.0, factored=()):
    _, params = lm.create(config, TOKENS.size)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda w: 2 * w * (rng.random(w.shape) < keep) if w.ndim > 1 else w, params)
    for block in factored:
        up = params["blocks"][block]["feed"]["up"]
        up["kernel"] = lowrank.factor(up["kernel"], 8)
    said = Config(kind="lm", data=Data(synth="digits"), model=config, decode=Decode(values=values))
    lmfile.save(path, said, params, TOKENS)
    return lmfile.load(path)


_apply = jax.jit(models.apply, static_argnums=(0, 2))


def by_jax(model, row) -> float:
    inputs, targets, there = np.zeros((3, 1, 12), np.int32)
    inputs[0, 1 : len(row) + 1], targets[0, : len(row)], there[0, : len(row) + 1] = row, row, 1
    return -float(_apply(model.structure, model.params, "losses", inputs, targets, there).sum())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("keep", [1.0, 0.3])
def test_scores_are_those_of_jax(network, keep, tmp_path):
    model = write(tmp_path / "lm.safetensors", NETWORKS[network], keep=keep)
    runtime = LanguageModel(tmp_path / "lm.safetensors")
    found = runtime.score(ROWS)
    assert np.allclose(found, [by_jax(model, row) for row in ROWS], atol=2e-4)
    assert np.allclose(found, [runtime.score([row])[0] for row in ROWS], atol=1e-4)  # alone as in company


def test_factors_and_removed_units_run_as_they_are_stored(tmp_path):
    config = dataclasses.replace(CONFIG, left_heads=(3, 1), left_hidden=(50, 7))
    model = write(tmp_path / "lm.safetensors", config, factored=[0])
    assert model.config.ranks == {"blocks/0/feed/up/kernel": 8}
    runtime = LanguageModel(tmp_path / "lm.safetensors")
    assert [w.outputs for w in runtime.blocks[0].feed.up.matrices] == [8, 50]
    assert runtime.blocks[1].query.outputs == 8
    assert np.allclose(runtime.score(ROWS), [by_jax(model, row) for row in ROWS], atol=2e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_codes_are_near_and_the_same_on_all_kernels(network, tmp_path):
    model = write(tmp_path / "lm.safetensors", NETWORKS[network], values="int8", keep=0.5)
    found = {}
    for kernels in (*native.SETS, "reference"):
        try:
            found[kernels] = LanguageModel(tmp_path / "lm.safetensors", kernels).score(ROWS)
        except ValueError:
            continue
    first = next(iter(found.values()))
    assert all(np.allclose(first, other, atol=1e-3) for other in found.values())
    labels = np.array([len(row) + 1 for row in ROWS])
    expected = np.array([by_jax(model, row) for row in ROWS])
    assert np.all(np.abs(first - expected) / labels < 0.15)  # nats a label: activations are codes too


def test_pasts_are_not_changed_by_what_comes_after(tmp_path):
    write(tmp_path / "lm.safetensors", CONFIG)
    runtime = LanguageModel(tmp_path / "lm.safetensors")
    ((_, past),) = runtime.after([0], [runtime.start()])
    one = runtime.after([3, 4], [past, past])
    other = runtime.after([4], [past])
    assert np.allclose(one[1][0], other[0][0], atol=1e-6)
    assert past.count == 1


def test_dense_forms_say_the_same(tmp_path):
    model = write(tmp_path / "lm.safetensors", CONFIG, keep=0.3)
    found = LanguageModel(tmp_path / "lm.safetensors", form="float32").score(ROWS)
    assert np.allclose(found, [by_jax(model, row) for row in ROWS], atol=2e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"layers": 3}, "blocks/2"),
        ({"width": 48}, "where 12 x 48 is expected"),
        ({"heads": 5}, "model.heads"),
        ({"network": "gru"}, "model.network"),
        ({"layers": 10**9}, "model.layers"),
        ({"width": "wide"}, "model.width"),
    ],
)
def test_a_file_whose_config_lies_is_one_line(change, says, tmp_path):
    write(tmp_path / "lm.safetensors", CONFIG)
    params, said = formats.load(tmp_path / "lm.safetensors")
    formats.save(tmp_path / "bad.safetensors", params, config=said | {"model": said["model"] | change})
    with pytest.raises(formats.FormatError, match=says):
        LanguageModel(tmp_path / "bad.safetensors")


def test_other_files_are_refused(tmp_path):
    formats.save(tmp_path / "m.safetensors", {"w": np.ones((2, 2), np.float32)})
    with pytest.raises(ValueError, match="holds no language model"):
        LanguageModel(tmp_path / "m.safetensors")


def test_a_stream_without_end_remembers_its_last_labels(tmp_path, monkeypatch):
    """One layer with rotary positions and a window of n labels says what it says of the last n + 1 alone."""
    monkeypatch.setattr("csp.runtime.lm.REMEMBERED", 5)
    config = dataclasses.replace(CONFIG, layers=1)
    write(tmp_path / "lm.safetensors", config)
    runtime = LanguageModel(tmp_path / "lm.safetensors")
    row = np.random.default_rng(0).integers(1, TOKENS.size, 40).tolist()
    past = runtime.start()
    for label in row:
        ((log_K, past),) = runtime.after([label], [past])
        assert past.layers[0].shape[1] <= 5
    short = runtime.start()
    for label in row[-6:]:
        ((last_K, short),) = runtime.after([label], [short])
    assert np.allclose(log_K, last_K, atol=1e-4)
