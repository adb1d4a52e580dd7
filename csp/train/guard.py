"""What may interrupt a run? A signal, which lets it finish its step; another process, which must not join it."""

import fcntl
import os
import signal
from pathlib import Path
from types import FrameType, TracebackType


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Stopped(Exception):
    """The run was asked to stop, and has saved what it has; in `out`, if it can go on from there."""

    out: Path | None = None

    def __str__(self) -> str:
        return super().__str__() + (f"; go on with: csp train --out {self.out} --resume" if self.out else "")


class Stop:
    """`asked` is true after the first SIGTERM or SIGINT; the second one ends the process at once.

    Signals are taken within `with`, and given back after it.
    """

    def __init__(self):
        self.asked = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]
            outer = getattr(before, "__self__", None)  # that of a sweep, which shall not begin another run
            if self.asked and isinstance(outer, Stop):
                outer.asked = True

    def check(self) -> None:
        """For what is long, before there is a step to finish."""
        if self.asked:
            raise Stopped("stopped while the data were read")

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            os._exit(128 + number)
        self.asked = True


class Lock:
    """One process trains in a folder; the lock goes when the process does."""

    def __init__(self, folder: Path):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"{folder} is no folder, or lies in none: choose another --out") from None
        self._file = open(folder / ".lock", "a+")  # noqa: SIM115 # it is held as long as the run
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise ValueError(f"{folder} is in use by process {owner}: wait for it, or choose another --out") from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
