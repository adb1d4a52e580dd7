"""What a run delivers at its end, and what other commands make of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from ran import StopAt, changed, weights

from csp import formats, models
from csp.cli import main
from csp.train import checkpoints, modelfile, objective, plots, session
from csp.train.config import ConfigError
from csp.train.guard import Stopped


def test_a_run_delivers_what_it_promised(whole):
    out, found = whole
    for name in ("config.toml", "metrics.jsonl", "model.safetensors", "report.json", "report.md", "checkpoints"):
        assert (out / name).exists(), name
    keys = {"wer", "wer_low", "wer_high", "words", "density", "bytes", "dense_bytes", "rtf"}
    assert keys <= set(json.loads((out / "report.json").read_text()))
    files = formats.inspect(out / "model.safetensors")
    assert found["bytes"] == files["bytes"]
    assert found["pruned_density"] == pytest.approx(0.25, abs=0.01)
    model = modelfile.load(out / "model.safetensors")
    assert model.tokens.units[0] == "EIGHT"
    with formats.open(out / "model.safetensors") as file:
        pruned = {name for name in file.names if file.entry(name).notes.get("structure") == "entries"}
    assert {"model/encoder/layers/0/input", "model/transducer/from_encoder/kernel"} <= pruned
    assert not any("embedding" in name or "output" in name for name in pruned)


@pytest.mark.long
def test_several_targets_are_several_finished_files(recipe, tmp_path, monkeypatch):
    """One run, every size: each file is within its own budget, all are one family, after a stop as well."""
    out = tmp_path / "run"
    path = changed(recipe, "target = 0.75", "targets = [0.5, 0.75]")
    found = session.train(path, out, quiet=True)
    assert [row["target"] for row in found["models"]] == [0.5, 0.75]
    assert [row["pruned_density"] for row in found["models"]] == pytest.approx([0.5, 0.25], abs=0.01)
    assert main(["verify", str(out)]) == 0
    assert {formats.inspect(p)["about"]["target"] for p in out.glob("*.safetensors")} == {0.5, 0.75}
    assert len((out / "report.md").read_text().split("model-0-0.5.safetensors")) == 2
    monkeypatch.setattr(session, "Stop", lambda: StopAt(9))
    with pytest.raises(Stopped):
        session.train(path, tmp_path / "stopped", quiet=True)
    monkeypatch.undo()
    resumed = session.train(path, tmp_path / "stopped", resume=True, quiet=True)
    assert weights(tmp_path / "stopped") == weights(out)
    assert [row["target"] for row in resumed["models"]] == [0.5, 0.75]


@pytest.mark.long
def test_a_trained_model_is_pruned_and_trained_on(whole, recipe, tmp_path, capsys):
    out, _ = whole
    model = out / "model.safetensors"
    assert main(["prune", str(model), "--sparsity", "0.9", "-o", str(tmp_path / "p.safetensors")]) == 0
    rows = formats.inspect(tmp_path / "p.safetensors")["tensors"]
    kernel = next(row for row in rows if row["name"] == "model/encoder/layers/0/recurrent")
    assert kernel["nonzero"] <= round(0.1 * kernel["size"])
    low = tmp_path / "low.safetensors"
    assert main(["prune", str(model), "--structure", "rank", "--sparsity", "0.5", "-o", str(low)]) == 0
    entry = next(row for row in formats.inspect(low)["tensors"] if row["name"] == "model/encoder/layers/0/recurrent")
    assert entry["codec"] == "factors"
    assert entry["bytes"] < 0.5 * entry["dense_bytes"]
    w = formats.load(low)[0]["model"]["encoder"]["layers"]["0"]["recurrent"]
    assert np.linalg.matrix_rank(w) * sum(w.shape) <= 0.5 * w.size
    assert np.array_equal(modelfile.load(low).params["encoder"]["layers"][0]["recurrent"], w)
    capsys.readouterr()
    assert main(["prune", str(out), "--sparsity", "1.5", "-o", str(tmp_path / "x.safetensors")]) == 2
    assert capsys.readouterr().err.count("sparsity.target 1.5 must lie in [0, 1]\n") == 1
    arguments = ["prune", str(model), "--sparsity", "0.9", "--config", str(recipe), "--out-run", str(tmp_path / "on")]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["pruned_density"] == pytest.approx(0.1, abs=0.01)


@pytest.mark.long
def test_averages_are_delivered_on_the_support(recipe, tmp_path):
    overrides = [("train.ema", "0.5"), ("decode.values", "f32"), ("model.dtype", "bfloat16"), ("train.accumulate", "2")]
    overrides.append(("train.evaluate_every", "0"))
    found = session.train(recipe, tmp_path / "run", overrides, quiet=True)
    assert found["pruned_density"] == pytest.approx(0.25, abs=0.01)
    arrays, _ = checkpoints._read(checkpoints.newest(tmp_path / "run" / "checkpoints")[0])
    given = checkpoints._flatten(modelfile.load(tmp_path / "run" / "model.safetensors").params)
    moved = 0
    for name, w in given.items():
        last, average = arrays[f"params/{name}"], arrays[f"average/{name}"]
        assert np.array_equal(w, np.where(last != 0, average, 0)), name
        moved += not np.array_equal(w, last)
    assert moved


@pytest.mark.long
def test_a_teacher_is_followed(whole, recipe, tmp_path):
    overrides = [("train.teacher", json.dumps(str(whole[0] / "model.safetensors")))]
    taught = session.train(recipe, tmp_path / "run", overrides, quiet=True)
    assert weights(tmp_path / "run") != weights(whole[0])
    assert taught["refused"] == 0


def test_the_distance_from_a_teacher_is_that_of_its_own_features(whole):
    """Kullback and Leibler's, in NumPy, frame by frame; a teacher normalises as it learned to."""
    teacher = modelfile.load(whole[0] / "model.safetensors")
    own = modelfile.setup(teacher.setup.config, teacher.setup.structure, jnp.full(8, 0.5), jnp.full(8, 3.0), teacher)
    params = jax.tree.map(lambda w: 0.9 * w, teacher.params)
    y = jax.random.normal(jax.random.key(0), (2, 24, 8))  # frames of our own features
    frames = jnp.array([24, 9])
    theirs = (y * 3.0 + 0.5 - teacher.setup.mean) / teacher.setup.deviation
    p, counts = models.apply(own.structure, teacher.params, "frame_logits", theirs, frames)
    q, _ = models.apply(own.structure, params, "frame_logits", y, frames)
    p, q = (np.asarray(scipy.special.log_softmax(x, -1), np.float64) for x in (p, q))
    expected = [np.sum(np.exp(p[i, :n]) * (p[i, :n] - q[i, :n])) for i, n in enumerate(np.asarray(counts))]
    np.testing.assert_allclose(objective._distance(own, params, y, frames), expected, rtol=1e-4)


def test_a_teacher_that_says_other_things_is_refused(whole, recipe, tmp_path):
    said = [("train.teacher", json.dumps(str(whole[0] / "model.safetensors")))]
    for changed_, what in [
        (("data.tokens", "characters"), "vocabulary"),
        (("features.bins", "9"), "features"),
        (("model.stack", "3"), r"model\.stack"),
    ]:
        with pytest.raises(ConfigError, match=rf"train\.teacher .*model\.safetensors has another {what}"):
            session.train(recipe, tmp_path / what.replace("\\", ""), [*said, changed_], quiet=True)
    with pytest.raises(ConfigError, match=r"train\.teacher: the transducer has no CTC head to compare"):
        session.train(recipe, tmp_path / "head", [*said, ("model.ctc_weight", "0.0")], quiet=True)


@pytest.mark.long
def test_a_mask_that_is_given_stays(whole, recipe, tmp_path):
    """Whatever its shares are: here other ones in every matrix."""
    first = modelfile.load(whole[0] / "model.safetensors")
    draw = np.random.default_rng(0)

    def thinned(w):
        return np.where(draw.uniform(size=w.shape) < draw.uniform(0.2, 0.9), w, 0) if w.ndim > 1 else w

    params = jax.tree.map(thinned, jax.tree.map(np.asarray, first.params))
    sparse = modelfile.save(tmp_path / "sparse.safetensors", first.setup, params, first.tokens)
    before = modelfile.load(sparse).params
    overrides = [("train.init", json.dumps(str(sparse))), ("sparsity.method", "static"), ("sparsity.budget", "init")]
    path = changed(recipe, "target = 0.75", "")
    session.train(path, tmp_path / "run", [*overrides, ("decode.values", "f32")], quiet=True)
    after = modelfile.load(tmp_path / "run" / "model.safetensors").params
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert not np.array_equal(old, new)
    for layer in ("input", "recurrent"):
        old, new = (tree["encoder"]["layers"][key][layer] for tree, key in ((before, 0), (after, 0)))
        np.testing.assert_array_equal(np.asarray(old) != 0, np.asarray(new) != 0)


def test_the_other_commands_read_a_run(whole, corpus, tmp_path, capsys):
    out, found = whole
    assert main(["eval", str(out), "--manifest", str(corpus), "--split", "test", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["wer"], again["words"]) == (found["wer"], found["words"])
    assert main(["export", str(out), "-o", str(tmp_path / "e.safetensors")]) == 0
    exported = formats.load(tmp_path / "e.safetensors")[0]["model"]["encoder"]["layers"]["0"]["input"]
    assert 0.24 < np.count_nonzero(exported) / exported.size < 0.26
    capsys.readouterr()
    recording = sorted((corpus.parent / "test").glob("*.flac"))[0]
    assert main(["transcribe", str(out), str(recording), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(recording)
    assert main(["plot", str(out), "-o", str(tmp_path / "pictures")]) == 0
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"quality.png", "training.png", "layers.png"}


def test_runs_of_two_kinds_share_no_picture(tmp_path):
    for name, report in (("a", {"wer": 0.1, "models": [{}]}), ("b", {"perplexity": 9.0, "models": [{}]})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report))
    with pytest.raises(ValueError, match="name folders of one kind"):
        plots.find([tmp_path])
    for damaged in ("{}", "[1, 2", "[]", '{"models": []}'):
        (tmp_path / "report.json").write_text(damaged)
        with pytest.raises(
            formats.FormatError, match=r"report.json is no report of a run: remove it, csp train --resume"
        ):
            plots.find([tmp_path])
