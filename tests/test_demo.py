"""`python -m csp`: the README's first command."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def _run(*arguments):
    command = [sys.executable, "-m", "csp", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_it_trains_prunes_verifies_and_reports():
    done = _run("--steps", "20")
    assert done.returncode == 0, done.stderr
    assert "compressed sensing" in done.stdout
    assert "8:128" in done.stdout


def test_misuse_ends_with_2_and_one_line():
    done = _run("--steps", "0")
    assert done.returncode == 2
    assert "--steps 0" in done.stderr.splitlines()[-1]
