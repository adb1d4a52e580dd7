"""The same run on several devices, and in several processes: the masks bit for bit, losses to a tolerance."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import RECIPE

from csp.train import ConfigError, checkpoints, logs, mesh, session

OPTIONS = ["--train.steps", "6", "--train.checkpoint_every", "3", "--train.evaluate_every", "0"]
CODE = "import csp.cli, sys; sys.exit(csp.cli.main(sys.argv[1:]))"
SPLIT = """
import jax
from csp.train import mesh
mesh.SMALLEST, place = 64, mesh.Placement.state
def state(self, tree):
    placed = place(self, tree)
    assert [x for x in jax.tree.leaves(placed.params) if not x.is_fully_replicated], "nothing is split"
    return placed
mesh.Placement.state = state
"""
STOPPED_AND_NOT = (
    SPLIT
    + """
import sys
sys.path.insert(0, sys.argv[4])
from ran import StopAt, history, weights
from csp.train import session
from pathlib import Path
recipe, out, options = Path(sys.argv[1]), Path(sys.argv[2]), eval(sys.argv[3])
session.train(recipe, out / "a", options, quiet=True)
own, session.Stop = session.Stop, lambda: StopAt(4)
try:
    session.train(recipe, out / "b", options, quiet=True)
except session.Stopped:
    session.Stop = own
    session.train(None, out / "b", options, resume=True, quiet=True)
    assert weights(out / "a") == weights(out / "b")
    assert history(out / "a") == history(out / "b") and len(history(out / "a")) > 1
    assert (out / "a" / "model.safetensors").read_bytes() == (out / "b" / "model.safetensors").read_bytes()
    print("alike")
"""
)


@pytest.fixture(scope="module")
def recipe_file(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("several") / "tiny.toml"
    path.write_text(RECIPE.format(corpus=json.dumps(str(corpus))))
    return path


@pytest.fixture(scope="module")
def alone(recipe_file):
    out = recipe_file.parent / "alone"
    session.train(recipe_file, out, list(zip([o[2:] for o in OPTIONS[::2]], OPTIONS[1::2], strict=True)), quiet=True)
    return out


def devices_of(count):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def start(recipe, out, devices, *more, **environment):
    command = [
        sys.executable,
        "-c",
        SPLIT + CODE if "--train.shard" in more else CODE,
        "train",
        str(recipe),
        "--out",
        str(out),
        *OPTIONS,
        "--train.devices",
        "0",
        *more,
    ]
    return subprocess.Popen(
        command,
        env=devices_of(devices) | environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def ended(process):
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


def alike(a, b):
    """Supports bit for bit, weights and losses to a tolerance."""
    left, right = (checkpoints._read(checkpoints.newest(out / "checkpoints")[0])[0] for out in (a, b))
    assert left.keys() == right.keys()
    for name in left:
        if name.startswith("params/"):
            assert np.array_equal(left[name] != 0, right[name] != 0), name
            assert np.allclose(left[name], right[name], rtol=1e-3, atol=1e-5), name
    losses = [[r["loss"] for r in logs.records(out / "metrics.jsonl") if "loss" in r] for out in (a, b)]
    assert losses[0]
    assert np.allclose(*losses, rtol=1e-4)


@pytest.mark.long
def test_four_devices_prune_as_one_and_one_goes_on_where_they_were(recipe_file, alone, tmp_path, caplog):
    """Large parameters are split; the checkpoint of step 3 goes on, on one device, with a warning (FAULTS 9)."""
    out = tmp_path / "run"
    ended(start(recipe_file, out, 4, "--train.shard", "true"))
    alike(alone, out)
    checkpoints.found(out / "checkpoints")[-1].path.unlink()
    named = [(o[2:], v) for o, v in zip(OPTIONS[::2], OPTIONS[1::2], strict=True)]
    one = [("train.devices", "1"), ("train.shard", "false")]
    session.train(recipe_file, out, [*named, *one], resume=True, quiet=True)
    assert "not bit for bit the same" in caplog.text
    alike(alone, out)


def test_who_joins_nobody_is_told_how(monkeypatch):
    def alone(*where):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", alone)
    monkeypatch.delenv("CSP_COORDINATOR", raising=False)
    with pytest.raises(ConfigError, match="set CSP_COORDINATOR=host:port, CSP_PROCESSES=n and CSP_PROCESS=i"):
        mesh.join()
    monkeypatch.setenv("CSP_COORDINATOR", "localhost:1")
    with pytest.raises(ConfigError, match="set CSP_PROCESSES and CSP_PROCESS to numbers too"):
        mesh.join()


@pytest.mark.slow
def test_four_devices_stopped_and_resumed_are_never_stopped(recipe_file, tmp_path):
    """FAULTS 8, with all that a key, a position or an average decides: every array and the log, bit for bit."""
    options = {"steps": 7, "batch": 8, "accumulate": 2, "ema": 0.5, "devices": 0, "shard": "true"}
    options = [(f"train.{key}", str(value)) for key, value in options.items()]
    options += [("data.speed", "[0.9, 1.1]"), ("data.noise", "[5, 20]"), ("data.masks", "[2, 8, 1, 2]")]
    options += [("data.memory", "1000"), ("data.buckets", "2"), ("model.dtype", "bfloat16")]
    command = [sys.executable, "-c", STOPPED_AND_NOT, recipe_file, tmp_path, repr(options), Path(__file__).parent]
    done = subprocess.run(list(map(str, command)), env=devices_of(4), capture_output=True, text=True)
    assert done.stdout == "alike\n", done.stderr


@pytest.mark.slow
def test_four_devices_without_splitting_parameters(recipe_file, alone, tmp_path):
    ended(start(recipe_file, tmp_path / "run", 4))
    alike(alone, tmp_path / "run")


@pytest.mark.long
def test_two_processes_prune_as_one(recipe_file, alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {"CSP_COORDINATOR": address, "CSP_PROCESSES": "2"}
    both = [
        start(recipe_file, tmp_path / "run", 1, "--train.distributed", "true", CSP_PROCESS=str(i), **environment)
        for i in range(2)
    ]
    for process in both:
        ended(process)
    alike(alone, tmp_path / "run")
    assert (tmp_path / "run" / "report.json").exists()
