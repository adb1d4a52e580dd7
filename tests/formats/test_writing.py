"""FAULTS 1-4, 16 for model files: whatever interrupts a save, the final name holds the old file or the new one."""

import errno
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from csp import formats
from csp.formats import writing

OLD, NEW = {"w": np.zeros((8, 8), np.float32)}, {"w": np.ones((8, 8), np.float32)}


def save_in_a_process_that_dies(path: Path, call: str) -> None:
    """Killed when the save calls this function of `os` (or writes)."""
    code = f"""
        import os, signal, sys
        import numpy as np
        from csp import formats
        from csp.formats import writing
        def die(*arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        if {call!r} == "write":
            class Dying:
                def __init__(self, file): self.file = file
                def __enter__(self): return self
                def __exit__(self, *rest): pass
                def write(self, chunk):
                    self.file.write(bytes(chunk)[: len(chunk) // 2]); self.file.flush(); die()
            writing.open = lambda *arguments: Dying(open(*arguments))
        else:
            setattr(writing.os, {call!r}, die)
        formats.save(sys.argv[1], {{"w": np.ones((8, 8), np.float32)}}, overwrite=True)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_killed_save_leaves_the_old_file_and_the_next_one_sweeps(call, tmp_path):
    path = formats.save(tmp_path / "m.safetensors", OLD)
    save_in_a_process_that_dies(path, call)
    assert not formats.load(path)[0]["w"].any()
    assert len(list(tmp_path.iterdir())) == 2  # and an orphan
    formats.save(path, NEW, overwrite=True)
    assert formats.load(path)[0]["w"].all()
    assert list(tmp_path.iterdir()) == [path]


def test_another_machine_s_temporary_files_are_left_alone(tmp_path):
    """It may be writing, under a process number that is nobody's here."""
    theirs = tmp_path / ".m.safetensors.elsewhere.999999999.tmp"
    theirs.write_text("half")
    formats.save(tmp_path / "m.safetensors", OLD)
    assert theirs.exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_or_broken_disk_leaves_nothing_behind(call, number, tmp_path, monkeypatch):
    path = formats.save(tmp_path / "m.safetensors", OLD)

    def fail(*arguments):
        raise OSError(number, os.strerror(number))  # as writes do, without a name

    monkeypatch.setattr(writing.os, call, fail)
    with pytest.raises(OSError, match=rf"{os.strerror(number)}: '{path}'"):
        formats.save(path, NEW, overwrite=True)
    monkeypatch.undo()
    assert not formats.load(path)[0]["w"].any()
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_of_a_living_process_is_left_alone(tmp_path):
    other = tmp_path / f".m.safetensors.{socket.gethostname()}.{os.getppid()}.tmp"
    other.write_bytes(b"")
    formats.save(tmp_path / "m.safetensors", OLD)
    assert other.exists()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no folder: create it"):
        formats.save(tmp_path / "nowhere" / "m.safetensors", OLD)
