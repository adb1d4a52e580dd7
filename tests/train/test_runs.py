"""Whole runs: stopped and gone on with, gone wrong and gone back, and everything that is delivered at the end."""

import json
import os
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from csp import formats
from csp.cli import main
from csp.train import checkpoints, guard, logs, loop, modelfile, session
from csp.train.config import ConfigError
from csp.train.guard import Lock, Stopped


def weights(out) -> dict[str, bytes]:
    found = checkpoints.newest(out / "checkpoints")
    arrays, _ = checkpoints._read(found[0])
    return {name: x.tobytes() for name, x in arrays.items()}


def history(out) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "wall"} for record in logs.records(out / "metrics.jsonl")]


@pytest.fixture(scope="session")
def whole(corpus, tmp_path_factory):
    """A run that was never stopped."""
    from conftest import RECIPE

    folder = tmp_path_factory.mktemp("whole")
    recipe = folder / "tiny.toml"
    recipe.write_text(RECIPE.format(corpus=json.dumps(str(corpus))))
    return folder / "run", session.train(recipe, folder / "run", quiet=True)


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


class StopAt(guard.Stop):
    """Asked to stop after so many looks."""

    def __init__(self, looks: int):
        super().__init__()
        self.left = looks

    @property
    def asked(self) -> bool:
        self.left -= 1
        return self.left < 0

    @asked.setter
    def asked(self, value: bool) -> None:
        pass


@pytest.mark.parametrize("looks", [2, 7, 11])
def test_stopped_and_resumed_is_never_stopped(looks, whole, recipe, tmp_path, monkeypatch):
    """FAULTS 8: in mid-epoch, at a refresh, after the freeze: every array, and the log, bit for bit."""
    monkeypatch.setattr(session, "Stop", lambda: StopAt(looks))
    with pytest.raises(Stopped, match="stopped at step"):
        session.train(recipe, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    session.train(None, tmp_path / "run", resume=True, quiet=True)
    assert weights(tmp_path / "run") == weights(whole[0])
    assert history(tmp_path / "run") == history(whole[0])
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (whole[0] / "model.safetensors").read_bytes()


def test_signals_save_and_say_how_to_go_on(recipe, tmp_path):
    """FAULTS 11: SIGTERM during compilation or a step; exit 75, and a line."""
    code = "import csp.cli, sys; sys.exit(csp.cli.main(sys.argv[1:]))"
    out = tmp_path / "run"
    command = [sys.executable, "-c", code, "train", str(recipe), "--out", str(out), "--train.steps", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (out / "checkpoints" / "step-000000000.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert f"go on with: csp train {recipe} --out {out} --resume" in said
    assert checkpoints.newest(out / "checkpoints") is not None


def test_killed_runs_go_on(whole, recipe, tmp_path):
    """SIGKILL loses at most the interval."""
    code = f"""
import os, signal, sys
from csp.train import loop, session
look = loop.Run.judge
def die(self, *rest):
    os.kill(os.getpid(), signal.SIGKILL)
loop.Run.judge = die
session.train({str(recipe)!r}, {str(tmp_path / "run")!r}, quiet=True)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    saved = [one.step for one in checkpoints.found(tmp_path / "run" / "checkpoints")]
    assert saved == [0, 4]  # killed at step 6
    session.train(recipe, tmp_path / "run", resume=True, quiet=True)
    assert weights(tmp_path / "run") == weights(whole[0])
    assert history(tmp_path / "run") == history(whole[0])


def test_a_damaged_newest_checkpoint_is_passed_over(whole, recipe, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(session, "Stop", lambda: StopAt(9))
    with pytest.raises(Stopped):
        session.train(recipe, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    path = checkpoints.found(tmp_path / "run" / "checkpoints")[-1].path
    path.write_bytes(path.read_bytes()[:-1])
    session.train(recipe, tmp_path / "run", resume=True, quiet=True)
    assert "going back to the one before" in caplog.text
    assert weights(tmp_path / "run") == weights(whole[0])


def test_a_run_directory_belongs_to_one_run(whole, recipe, tmp_path, corpus):
    """FAULTS 10, 12."""
    out = whole[0]
    with pytest.raises(ConfigError, match=r"holds a run: --resume goes on with it, --out DIR begins another"):
        session.train(recipe, out)
    with pytest.raises(ConfigError, match=r"was begun with another train.batch: .*--train.batch VALUE"):
        session.train(_changed(recipe, "batch = 4", "batch = 8"), out, resume=True)
    with Lock(tmp_path / "run"), pytest.raises(ValueError, match=rf"is in use by process {os.getpid()}"):
        session.train(recipe, tmp_path / "run")


def _changed(recipe, old, new):
    path = recipe.with_name("other.toml")
    path.write_text(recipe.read_text().replace(old, new))
    return path


def test_other_data_under_a_run_is_noticed(whole, recipe, tmp_path, corpus, monkeypatch):
    """FAULTS 10."""
    import shutil

    shutil.copytree(whole[0], tmp_path / "run")
    monkeypatch.setattr("csp.train.corpus.Corpus.digest", lambda self: "other")
    with pytest.raises(ConfigError, match="was trained on other recordings or transcripts"):
        session.train(recipe, tmp_path / "run", resume=True, quiet=True)


def test_nan_in_a_row_go_back_and_then_give_up(recipe, tmp_path, monkeypatch, caplog):
    """FAULTS 20: never accepted, retried at half the rate, exit 6."""
    make = loop.step.make

    def broken(*arguments):
        take = make(*arguments)

        def step(state, batch):
            x = jnp.where(state.step >= 5, jnp.nan, 1.0)
            params = {**state.params, "ctc": {"output": {k: v * x for k, v in state.params["ctc"]["output"].items()}}}
            after, info = take(state._replace(params=params), batch)
            return after, info

        return step

    monkeypatch.setattr(loop.step, "make", broken)
    overrides = [("train.bad_steps", "2"), ("train.retries", "2"), ("train.evaluate_every", "0")]
    with pytest.raises(
        loop.Diverged, match=r"2 steps in a row were refused, 2 retries did not help: lower train.learning_rate"
    ):
        session.train(recipe, tmp_path / "run", overrides, quiet=True)
    assert caplog.text.count("back to step-000000004.safetensors at learning rate x 0.5") == 1
    assert caplog.text.count("back to step-000000004.safetensors at learning rate x 0.25") == 1
    assert checkpoints.newest(tmp_path / "run" / "checkpoints")[1]["step"] == 4


def test_several_targets_are_several_finished_files(recipe, tmp_path):
    """One run, every size: each file is within its own budget, and all are one family."""
    out = tmp_path / "run"
    path = _changed(recipe, "target = 0.75", "targets = [0.5, 0.75]")
    found = session.train(path, out, quiet=True)
    assert [row["target"] for row in found["models"]] == [0.5, 0.75]
    assert [row["pruned_density"] for row in found["models"]] == pytest.approx([0.5, 0.25], abs=0.01)
    assert main(["verify", str(out)]) == 0
    assert {formats.inspect(p)["about"]["target"] for p in out.glob("*.safetensors")} == {0.5, 0.75}
    assert len((out / "report.md").read_text().split("model-0-0.5.safetensors")) == 2


def test_stopped_in_the_second_of_two_stages(recipe, tmp_path, monkeypatch):
    path = _changed(recipe, "target = 0.75", "targets = [0.5, 0.75]")
    session.train(path, tmp_path / "a", quiet=True)
    monkeypatch.setattr(session, "Stop", lambda: StopAt(9))
    with pytest.raises(Stopped):
        session.train(path, tmp_path / "b", quiet=True)
    monkeypatch.undo()
    found = session.train(path, tmp_path / "b", resume=True, quiet=True)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert [row["target"] for row in found["models"]] == [0.5, 0.75]


def test_a_trained_model_is_pruned_and_trained_on(whole, recipe, tmp_path, capsys):
    out, _ = whole
    model = out / "model.safetensors"
    assert main(["prune", str(model), "--sparsity", "0.9", "-o", str(tmp_path / "p.safetensors")]) == 0
    rows = formats.inspect(tmp_path / "p.safetensors")["tensors"]
    kernel = next(row for row in rows if row["name"] == "model/encoder/layers/0/recurrent")
    assert kernel["nonzero"] <= round(0.1 * kernel["size"])
    arguments = ["prune", str(model), "--sparsity", "0.9", "--config", str(recipe), "--out-run", str(tmp_path / "on")]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["pruned_density"] == pytest.approx(0.1, abs=0.01)


def test_averages_are_delivered_on_the_support(recipe, tmp_path):
    overrides = [("train.ema", "0.5"), ("decode.values", "f32"), ("model.dtype", "bfloat16"), ("train.accumulate", "2")]
    found = session.train(recipe, tmp_path / "run", overrides, quiet=True)
    assert found["pruned_density"] == pytest.approx(0.25, abs=0.01)


def test_a_teacher_is_followed(whole, recipe, tmp_path):
    overrides = [("train.teacher", json.dumps(str(whole[0] / "model.safetensors")))]
    taught = session.train(recipe, tmp_path / "run", overrides, quiet=True)
    assert weights(tmp_path / "run") != weights(whole[0])
    assert taught["refused"] == 0


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


def test_sweeps_go_on_where_they_were(recipe, tmp_path, capsys, monkeypatch):
    arguments = [
        "sweep",
        str(recipe),
        "--out",
        str(tmp_path / "grid"),
        "--sparsity",
        "0.5,0.75",
        "--method",
        "gradual,dense",
    ]
    assert main([*arguments, "--json"]) == 0
    records = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(r["method"], round(r["sparsity"], 2)) for r in records] == [
        ("gradual", 0.5),
        ("gradual", 0.75),
        ("dense", 0.0),
    ]
    monkeypatch.setattr(session, "train", None)  # nothing is left to train
    assert main([*arguments, "--json"]) == 0
    assert json.loads((tmp_path / "grid" / "results.json").read_text()) == records


def test_seeds_are_trained_together_as_they_are_alone(recipe, whole, tmp_path, capsys):
    """In one program; sums differ in their last bits, so that losses agree to rounding."""
    arguments = ["sweep", str(recipe), "--out", str(tmp_path / "row"), "--seeds", "0,1", "--together", "--json"]
    assert main(arguments) == 0
    records = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [record["seed"] for record in records] == [0, 1]
    out, found = whole
    losses = [{r["step"]: r["loss"] for r in history(run) if "loss" in r} for run in (tmp_path / "row" / "0", out)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert (records[0]["words"], records[0]["bytes"]) == (found["words"], pytest.approx(found["bytes"], rel=0.02))
    other = [r["loss"] for r in history(tmp_path / "row" / "1") if "loss" in r]
    assert other[-1] != pytest.approx(losses[0][12], rel=1e-3)
    assert records[0]["command"] == "csp train configs/tiny.toml --train.seed 0"


def test_mistakes_end_with_one_line_and_their_code(recipe, tmp_path, capsys, corpus):
    def said(*arguments) -> tuple[int, str]:
        code = main([str(a) for a in arguments])
        return code, capsys.readouterr().err.strip().splitlines()[-1]

    code, line = said("train", recipe, "--out", tmp_path / "a", "--train.stepz", "3")
    assert code == 2
    assert "'train.stepz' is no key; the nearest is train.steps" in line
    code, line = said("train", recipe, "--out", tmp_path / "b", "--data.train", "nowhere.tsv")
    assert code == 4
    assert "nowhere.tsv is no manifest and no folder" in line
    code, line = said("train", recipe, "--out", tmp_path / "c", "--sparsity.structure", "blobs")
    assert code == 2
    assert "structure 'blobs' is none of" in line
    code, line = said("train", "--resume")
    assert code == 2
    code, line = said("eval", tmp_path, "--manifest", corpus)
    assert code == 2
    assert "model.safetensors" in line
    (tmp_path / "bad.safetensors").write_bytes(b"no model")
    code, line = said("transcribe", tmp_path / "bad.safetensors", "a.wav")
    assert code == 5
    assert main(["data", "check", str(corpus)]) == 0


def test_no_permission_and_no_space_are_said(recipe, tmp_path, capsys, monkeypatch):
    """FAULTS 3, 16: before step 0, with the file's name, and exit 7."""

    def full(handle):
        raise OSError(28, "No space left on device", "step-000000000.safetensors")

    monkeypatch.setattr("csp.formats.writing.os.fsync", full)
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 7
    assert "step-000000000.safetensors: No space left on device" in capsys.readouterr().err
