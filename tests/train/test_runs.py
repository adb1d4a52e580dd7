"""Whole runs: stopped and gone on with, gone wrong and gone back, and everything that is delivered at the end."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from ran import StopAt, changed, history, weights

from csp.cli import main
from csp.formats import FormatError
from csp.train import checkpoints, guard, loop, modelfile, session
from csp.train.config import ConfigError
from csp.train.guard import Lock, Stopped
from csp.train.listening import Listening
from csp.train.task import Judged


@pytest.mark.long
def test_rows_per_second_are_of_the_steps_since_the_last_look(recipe, tmp_path, monkeypatch):
    """Of a window that the stage's end cuts short as well; validation takes no part of it."""
    told = []
    monkeypatch.setattr(loop.Run, "look", lambda self, stage, rules, state, info, seconds: told.append(seconds))
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks), time=time.time))
    monkeypatch.setattr(loop, "EVERY", 5)
    session.train(recipe, tmp_path / "run", quiet=True)
    assert told == [1, 1, 1]


@pytest.mark.long
@pytest.mark.parametrize("looks", [2, 7, 11])
def test_stopped_and_resumed_is_never_stopped(looks, whole, recipe, tmp_path, monkeypatch):
    """FAULTS 8: in mid-epoch, at a refresh, after the freeze: every array, and the log, bit for bit."""
    monkeypatch.setattr(session, "Stop", lambda: StopAt(looks))
    monkeypatch.setattr(loop.Run, "seconds", 1e4)
    with pytest.raises(Stopped, match="stopped at step"):
        session.train(recipe, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    found = session.train(None, tmp_path / "run", resume=True, quiet=True)
    assert 1e4 < found["seconds"] < 2e4
    assert weights(tmp_path / "run") == weights(whole[0])
    assert history(tmp_path / "run") == history(whole[0])
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (whole[0] / "model.safetensors").read_bytes()


@pytest.mark.long
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
    assert f"go on with: csp train --out {out} --resume" in said
    assert checkpoints.newest(out / "checkpoints") is not None


def test_a_signal_while_the_data_are_read_ends_with_75(recipe, tmp_path, monkeypatch, capsys):
    class Asked(guard.Stop):
        def __enter__(self):
            self.asked = True
            return super().__enter__()

    monkeypatch.setattr(session, "Stop", Asked)
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 75
    assert "stopped while the data were read; go on with: csp train" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
def test_a_run_directory_belongs_to_one_run(whole, recipe, tmp_path, corpus):
    """FAULTS 10, 12."""
    out = whole[0]
    with pytest.raises(ConfigError, match=r"holds a run: --resume goes on with it, --out DIR begins another"):
        session.train(recipe, out)
    with pytest.raises(ConfigError, match=r"was begun with another train.batch: .*--train.batch VALUE"):
        session.train(changed(recipe, "batch = 4", "batch = 8"), out, resume=True)
    with Lock(tmp_path / "run"), pytest.raises(ValueError, match=rf"is in use by process {os.getpid()}"):
        session.train(recipe, tmp_path / "run")


@pytest.mark.long
def test_other_data_under_a_run_is_noticed(whole, recipe, tmp_path, corpus, monkeypatch):
    """FAULTS 10."""
    shutil.copytree(whole[0], tmp_path / "run")
    monkeypatch.setattr("csp.train.corpus.Corpus.digest", lambda self: "other")
    with pytest.raises(ConfigError, match="was trained on other recordings or transcripts"):
        session.train(recipe, tmp_path / "run", resume=True, quiet=True)


def test_other_data_and_other_cores_are_said(caplog, monkeypatch):
    """FAULTS 9, 10: sums are cut differently for another number of cores; who names the data means it."""
    many = 1 + guard.cores()
    monkeypatch.setattr(guard, "cores", lambda: many)
    others = session._machine()
    monkeypatch.undo()
    at = (Path("step-4"), {"data": "a", "machine": others})
    session._same(at, {"data": "a", "machine": others}, [])
    assert not caplog.text
    session._same(at, {"data": "b", "machine": session._machine()}, ["data.train"])
    assert "resuming on jax" in caplog.text
    assert f"begun on {others}: not bit for bit the same" in caplog.text
    with pytest.raises(ConfigError, match=r"was trained on other recordings or transcripts: .* name data.train anew"):
        session._same(at, {"data": "b", "machine": others}, ["train.batch"])


@pytest.mark.long
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


def test_a_full_disk_is_said_with_the_file_and_the_cure(recipe, tmp_path, capsys, monkeypatch):
    """FAULTS 3: before step 0, and exit 7; a write that fails does not say by itself which file it is of."""

    def full(handle):
        raise OSError(28, "No space left on device")

    out = tmp_path / "run"
    monkeypatch.setattr("csp.formats.writing.os.fsync", full)
    assert main(["train", str(recipe), "--out", str(out)]) == 7
    assert f"{out}/config.toml: No space left on device: free some space" in capsys.readouterr().err
    assert not list(out.glob("*.t*"))


@pytest.mark.long
def test_a_full_disk_takes_nothing_from_a_run_that_goes_on(recipe, tmp_path, capsys, monkeypatch):
    """What was written is as it was, and goes on when there is room."""
    out = tmp_path / "run"
    monkeypatch.setattr(session, "Stop", lambda: StopAt(7))
    with pytest.raises(Stopped):
        session.train(recipe, out, [("train.checkpoint_every", "100")], quiet=True)
    monkeypatch.undo()
    path = checkpoints.found(out / "checkpoints")[-1].path
    path.unlink()  # the log is ahead of what is left
    before = {name: (out / name).read_bytes() for name in ("config.toml", "metrics.jsonl", "inputs.json")}
    with monkeypatch.context() as patch:
        patch.setattr("csp.formats.writing.os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "full")))
        assert main(["train", "--out", str(out), "--resume", "--train.keep", "2"]) == 7
    assert {name: (out / name).read_bytes() for name in before} == before
    assert main(["train", "--out", str(out), "--resume", "--train.keep", "2"]) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(recipe, tmp_path, capsys):
    """FAULTS 16."""
    (tmp_path / "shut").mkdir(mode=0o500)
    assert main(["train", str(recipe), "--out", str(tmp_path / "shut" / "run")]) == 7
    assert "choose a place that you may read and write" in capsys.readouterr().err


def test_a_run_without_its_checkpoints_does_not_begin_again(whole, recipe, tmp_path):
    """FAULTS 7: it would lose its log, silently."""
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(FormatError, match=r"has no checkpoint, but its log reaches step 12: restore them, or --out"):
        session.train(recipe, tmp_path / "run", resume=True, quiet=True)
    assert history(tmp_path / "run") == history(whole[0])


def judged(monkeypatch, values):
    """Validation says these, one after the other."""
    left = iter(values)
    monkeypatch.setattr(
        Listening, "judge", lambda self, params, data: Judged(value := next(left), {"valid_wer": value}, "")
    )


@pytest.mark.long
def test_the_best_is_delivered_and_patience_ends(recipe, tmp_path, monkeypatch):
    """Among those within the budget; a run that is killed while it delivers trains no further when it goes on."""
    overrides = [("train.evaluate_every", "1"), ("train.patience", "2"), ("sparsity.options", "{freeze = 0.5}")]
    overrides += [("decode.values", "f32")]
    judged(monkeypatch, [0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.5, 0.6, 0.7, None])  # within the budget from step 6 on
    deliver, at_7 = session.deliver, []
    keep = checkpoints.write

    def kept(path, tree, about):
        if path.name == "best.safetensors" and about["step"] == 7:
            at_7.append({key: np.asarray(w) for key, w in checkpoints._flatten(tree).items()})
        return keep(path, tree, about)

    monkeypatch.setattr(checkpoints, "write", kept)
    monkeypatch.setattr(session, "deliver", lambda *rest: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError, match="killed"):
        session.train(recipe, tmp_path / "run", overrides, quiet=True)
    monkeypatch.setattr(session, "deliver", deliver)
    found = session.train(recipe, tmp_path / "run", overrides, resume=True, quiet=True)
    steps = [record["step"] for record in history(tmp_path / "run") if "valid_wer" in record]
    assert steps == list(range(1, 10))
    assert found["valid"] == 0.5
    model = checkpoints._flatten(modelfile.load(tmp_path / "run" / "model.safetensors").params)
    assert model.keys() == at_7[0].keys()
    assert all(np.array_equal(model[name], at_7[0][name]) for name in model)
