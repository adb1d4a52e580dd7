"""FAULTS 1-7, 13, 15-18: what a run can still find after anything has happened to its folder."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csp.formats import FormatError
from csp.train import checkpoints

TREE = {
    "w": jnp.arange(6.0).reshape(2, 3),
    "n": jnp.array(3),
    "keep": jnp.array([True, False]),
    "low": jnp.ones(3, jnp.bfloat16),
    "nan": jnp.array([np.nan, np.inf, -0.0]),
    "none": jnp.zeros((0, 2)),
    "list": [jnp.array([2**31], jnp.uint32)],
}


def tree(step: int) -> dict:
    return TREE | {"n": jnp.array(step)}


def write(folder, *steps, keep=9):
    for step in steps:
        checkpoints.save(folder, step, tree(step), {"step": step}, keep)


def newest(folder, **options):
    found = checkpoints.newest(folder, **options)
    return found and (int(checkpoints.load(found[0], TREE)["n"]), found[1]["step"])


def test_every_array_comes_back_bit_for_bit(tmp_path):
    write(tmp_path, 3)
    back = checkpoints.load(checkpoints.found(tmp_path)[0].path, TREE)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(tree(3)), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_the_newest_is_found_by_looking_and_old_ones_go(tmp_path):
    write(tmp_path, 1, 2, 10, keep=2)
    assert [one.step for one in checkpoints.found(tmp_path)] == [2, 10]
    assert newest(tmp_path) == (10, 10)
    assert checkpoints.newest(tmp_path / "nowhere") is None


def test_an_older_one_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "VERSION", 1)
    write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"step-000000001.safetensors is of an older csp: finish its run"):
        checkpoints.load(checkpoints.found(tmp_path)[0].path, TREE)


@pytest.mark.long
@pytest.mark.parametrize("removed", [0, 1])
def test_killed_while_the_oldest_are_removed(removed, tmp_path):
    """FAULTS 2, 18: after the rename the new step counts; it and the best are there, however many old ones are left."""
    write(tmp_path, 1, 2, 3, keep=3)
    checkpoints.write(tmp_path / "best.safetensors", tree(2), {"step": 2})
    code = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(os.path.dirname(__file__))!r})
import test_checkpoints as t
unlink, left = Path.unlink, {removed}
def die(self, **k):
    global left
    left -= 1
    os.kill(os.getpid(), signal.SIGKILL) if left < 0 else unlink(self, **k)
Path.unlink = die
t.write(Path({str(tmp_path)!r}), 4, keep=1)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -9
    assert newest(tmp_path) == (4, 4)
    assert [one.step for one in checkpoints.found(tmp_path)] == [1, 2, 3, 4][removed:]
    checkpoints.load(tmp_path / "best.safetensors", TREE)
    write(tmp_path, 5, keep=1)
    assert [one.step for one in checkpoints.found(tmp_path)] == [5]


@pytest.mark.long
@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_killed_at_any_moment_of_a_save(call, tmp_path):
    """FAULTS 1: SIGKILL leaves the step before, and the next save sweeps what is unfinished."""
    write(tmp_path, 1)
    code = f"""
import builtins, os, signal, sys
from pathlib import Path
import jax.numpy as jnp
sys.path.insert(0, {str(os.path.dirname(__file__))!r})
import test_checkpoints as t
def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)
from csp.formats import writing
class File:
    def __init__(self, *a): self.file = builtins.open(*a)
    def __enter__(self): return self
    def __exit__(self, *a): self.file.close()
    def write(self, chunk): die() if {call!r} == "write" else self.file.write(chunk)
    def __getattr__(self, name): return getattr(self.file, name)
writing.open = die if {call!r} == "open" else File
if {call!r} in ("fsync", "replace"): setattr(writing.os, {call!r}, die)
t.write(Path({str(tmp_path)!r}), 2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert newest(tmp_path) == (1, 1)
    write(tmp_path, 2)
    assert newest(tmp_path) == (2, 2)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("number", [28, 5, 13])
def test_a_full_or_failing_disk_leaves_the_old_one(number, tmp_path, monkeypatch):
    """FAULTS 3, 4, 16."""
    write(tmp_path, 1)

    def fail(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("csp.formats.writing.os.fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        write(tmp_path, 2)
    assert newest(tmp_path) == (1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.safetensors"]


def test_every_flipped_bit_is_noticed_and_the_one_before_is_taken(tmp_path, caplog):
    """FAULTS 5."""
    write(tmp_path, 1, 2)
    path = checkpoints.found(tmp_path)[-1].path
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        raw = bytearray(whole)
        raw[at] ^= 1 << at % 8
        path.write_bytes(raw)
        caplog.clear()
        assert newest(tmp_path) == (1, 1), at
        assert "step-000000002.safetensors: " in caplog.text
    with pytest.raises(FormatError, match=r"step-000000002\.safetensors: "):
        newest(tmp_path, strict=True)


def test_truncated_and_empty_ones_are_passed_over(tmp_path):
    """FAULTS 6."""
    write(tmp_path, 1, 2)
    path = checkpoints.found(tmp_path)[-1].path
    whole = path.read_bytes()
    for length in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert newest(tmp_path) == (1, 1)


def test_when_all_are_damaged_training_does_not_begin_anew(tmp_path):
    """FAULTS 7."""
    write(tmp_path, 1, 2)
    for one in checkpoints.found(tmp_path):
        one.path.write_bytes(one.path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="all 2 checkpoints are damaged"):
        newest(tmp_path)


def test_a_newer_version_is_named(tmp_path, monkeypatch):
    """FAULTS 13."""
    monkeypatch.setattr(checkpoints, "VERSION", 99)
    write(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(FormatError, match="version 99 is newer than this csp: upgrade"):
        checkpoints.newest(tmp_path, strict=True)


def test_all_differences_are_named_at_once(tmp_path):
    """FAULTS 15."""
    write(tmp_path, 1)
    like = TREE | {"w": jnp.zeros((3, 2)), "n": jnp.array(1.0), "more": jnp.ones(1)}
    del like["keep"]
    with pytest.raises(ValueError, match="does not fit") as raised:
        checkpoints.load(checkpoints.found(tmp_path)[0].path, like)
    for part in (
        "w is float32[2, 3], not float32[3, 2]",
        "n is int32[], not float32[]",
        "more is missing",
        "keep is unknown",
    ):
        assert part in str(raised.value)


def test_a_copy_is_as_good_and_a_link_is_not_followed(tmp_path):
    """FAULTS 16, 17."""
    import shutil

    write(tmp_path / "a", 1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert newest(tmp_path / "b") == (1, 1)
    (tmp_path / "b" / "step-000000009.safetensors").symlink_to(tmp_path / "a" / "step-000000001.safetensors")
    assert newest(tmp_path / "b") == (1, 1)
