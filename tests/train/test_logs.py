"""What is logged, what of it survives a kill, and what a person sees."""

import json
import sys
import types

import pytest

from csp.train import logs


def test_a_resumed_log_goes_back_to_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')  # killed in the middle of a line
    metrics = logs.Metrics(path, 2)
    metrics.write({"step": 3, "loss": 0.5})
    metrics.close()
    assert [record["step"] for record in logs.records(path)] == [1, 2, 3]
    assert logs.records(path)[-1] == {"step": 3, "loss": 0.5}


def test_tensorboard_gets_the_numbers(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    metrics = logs.Metrics(tmp_path / "metrics.jsonl", 0, tensorboard=True)
    metrics.write({"step": 7, "loss": 0.5, "wall": {"utterances_per_second": 3.0, "time": 1.0}})
    metrics.close()
    assert written == [("loss", 0.5, 7), ("utterances_per_second", 3.0, 7), "closed"]
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"train\.tensorboard needs tensorboardX: pip install"):
        logs.Metrics(tmp_path / "metrics.jsonl", 0, tensorboard=True)


def test_progress_says_how_far_and_how_long(monkeypatch):
    said, now = [], [0.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    progress = logs.Progress(100, said.append)
    for step in (0, 10, 20, 100):
        now[0] = float(step)
        progress.show(step, {"loss": "1.0"})
    assert len(said) == 3  # a line each ten seconds, and the last
    assert "20/100  loss 1.0  1:20 left" in said[1]
    assert said[2].startswith("[########################] 100/100")
    json.dumps(said)
