"""FAULTS 11, 12: signals, the second one too, and two processes in one folder."""

import signal
import subprocess
import sys

import pytest

from csp.train.guard import Lock, Stop

CODE = """
import os, signal, sys, time
from csp.train.guard import Stop
with Stop() as stop:
    for _ in range({times}):
        os.kill(os.getpid(), signal.{name})
    print("asked" if stop.asked else "not asked", flush=True)
"""


@pytest.mark.long
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_first_signal_asks_and_the_second_ends(name):
    once = subprocess.run([sys.executable, "-c", CODE.format(times=1, name=name)], capture_output=True, text=True)
    assert (once.returncode, once.stdout) == (0, "asked\n")
    twice = subprocess.run([sys.executable, "-c", CODE.format(times=2, name=name)], capture_output=True, text=True)
    assert (twice.returncode, twice.stdout) == (128 + getattr(signal, name), "")


def test_signals_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    with Stop():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


SAVING = """
import os, signal, sys
from pathlib import Path
from csp.formats import writing
from csp.train.guard import Stop
fsync = os.fsync
def hit(handle):
    writing.os.fsync = fsync
    for _ in range({times}):
        os.kill(os.getpid(), signal.SIGTERM)
    fsync(handle)
with Stop() as stop:
    writing.os.fsync = hit
    writing.atomically(Path(sys.argv[1]), [b"new"], overwrite=True)
    print("asked" if stop.asked else "not asked", flush=True)
"""


@pytest.mark.long
@pytest.mark.parametrize(("times", "code", "left"), [(1, 0, b"new"), (2, 128 + signal.SIGTERM, b"old")])
def test_signals_within_a_save(times, code, left, tmp_path):
    """The first lets it finish; the second ends at once, and what was there is there."""
    (tmp_path / "file").write_bytes(b"old")
    command = [sys.executable, "-c", SAVING.format(times=times), str(tmp_path / "file")]
    assert subprocess.run(command, capture_output=True).returncode == code
    assert (tmp_path / "file").read_bytes() == left


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ValueError, match=r"is no folder, or lies in none: choose another --out"):
            Lock(path)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_is_locked_until_its_process_is_gone(tmp_path):
    with Lock(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        Lock(tmp_path)
    with Lock(tmp_path):
        pass
    code = "import os, pathlib, sys; from csp.train.guard import Lock; Lock(pathlib.Path(sys.argv[1])); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    with Lock(tmp_path):
        pass
