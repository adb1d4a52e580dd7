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


def test_a_folder_is_locked_until_its_process_is_gone(tmp_path):
    with Lock(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        Lock(tmp_path)
    with Lock(tmp_path):
        pass
    code = "import os, pathlib, sys; from csp.train.guard import Lock; Lock(pathlib.Path(sys.argv[1])); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    with Lock(tmp_path):
        pass
