"""A model of features that are given: trained, delivered, tested, and run frame by frame."""

import json

import numpy as np
import pytest

from csp import runtime
from csp.cli import main
from csp.train import session
from csp.train.config import ConfigError, read

RECIPE = """
[data]
train = {manifest}
tokens = "words"
shortest = 0.1
masks = [1, 3, 0, 0]
buckets = 2

[features]
given = true
rate = 100
bins = 4

[model]
head = "ctc"
layers = 1
width = 16
stack = 2

[train]
steps = 8
batch = 4
checkpoint_every = 4
evaluate_every = 4

[sparsity]
target = 0.5
"""


@pytest.fixture
def recipe(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["split\tpath\ttext"]
    for i in range(20):
        np.save(tmp_path / f"{i}.npy", rng.normal(size=(20 + i, 4)).astype(np.float16))
        lines.append(f"{'train' if i < 12 else 'valid' if i < 16 else 'test'}\t{i}.npy\t{'YES' if i % 2 else 'NO'}")
    (tmp_path / "manifest.tsv").write_text("\n".join(lines) + "\n")
    path = tmp_path / "r.toml"
    path.write_text(RECIPE.format(manifest=json.dumps(str(tmp_path / "manifest.tsv"))))
    return path


@pytest.mark.long
def test_a_run_without_recordings(recipe, tmp_path, capsys):
    found = session.train(recipe, tmp_path / "run", quiet=True)
    assert (found["utterances"], found["words"]) == (4, 4)
    model, manifest = tmp_path / "run" / "model.safetensors", tmp_path / "manifest.tsv"
    assert main(["eval", str(tmp_path / "run"), "--manifest", str(manifest), "--split", "test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["wer"] == found["wer"]
    assert main(["bench", str(model), "--repeats", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forms"][0]["rtf"] > 0
    recognizer, y = runtime.Recognizer(model), np.load(tmp_path / "19.npy")
    recognizer.accept_features(y)
    whole = recognizer.finish()
    for frame in y:
        recognizer.accept_features(frame[None])
    assert recognizer.finish() == whole
    with pytest.raises(ValueError, match="hears features, not sound"):
        recognizer.accept(np.zeros(100, np.float32))
    with pytest.raises(ValueError, match="give finite numbers, \\[frames, 4\\]"):
        recognizer.accept_features(np.zeros((3, 5)))


def test_what_needs_recordings_is_refused(recipe):
    for key, value in (("data.noise", "[5, 20]"), ("data.speed", "[0.9, 1.1]"), ("data.synth", '"digits"')):
        with pytest.raises(ConfigError, match="data\\."):
            read(recipe, [(key, value)])
