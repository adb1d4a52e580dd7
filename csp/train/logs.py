"""What does a run say while it trains? A line for a person, and a JSON line for a program."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from csp.formats import writing


class Metrics:
    """metrics.jsonl: one record a line; a resumed run drops what the run that it resumes wrote after its checkpoint."""

    def __init__(self, path: Path, step: int, tensorboard: bool = False):
        self.path = path
        self._board = _board(path.parent / "tensorboard") if tensorboard else None
        if path.is_file():
            before = path.read_text()
            kept = [line + "\n" for line in before.splitlines() if (at := _step(line)) is not None and at <= step]
            if (after := "".join(kept)) != before:
                writing.atomically(path, [after.encode()], overwrite=True)
        self._file: TextIO = path.open("a")

    def write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in (record | record.get("wall", {})).items():
                if isinstance(value, int | float) and name not in ("step", "time"):
                    self._board.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter  # pyrefly: ignore  # where it is installed
    except ImportError:
        raise ValueError("train.tensorboard needs tensorboardX: pip install tensorboardX") from None
    return SummaryWriter(str(folder))


def _step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None  # the last line of a run that was killed


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if _step(line) is not None]


def reached(path: Path) -> int:
    """The last step of a log; 0 of one that is not there."""
    return max((record["step"] for record in records(path)), default=0) if path.is_file() else 0


class Progress:
    """A line that is rewritten on a terminal; a line every ten seconds elsewhere."""

    def __init__(self, total: int, say: Callable[[str], None] | None = None):
        self.total, self.say = total, say
        self.live = say is None and sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def show(self, step: int, facts: dict[str, str]) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._start = step, now
        if now - self._last < (0.2 if self.live else 10) and step < self.total:
            return
        self._last = now
        pace = (now - self._start) / max(step - self._first, 1)
        left = _clock(pace * (self.total - step)) if step > self._first else "?"
        bar = "#" * (24 * step // max(self.total, 1))
        text = "  ".join([f"[{bar:<24}] {step}/{self.total}", *(f"{k} {v}" for k, v in facts.items()), f"{left} left"])
        if self.live:
            print(f"\r\x1b[K{text}", end="\n" if step == self.total else "", file=sys.stderr, flush=True)
        else:
            (self.say or _plain)(text)

    def interrupt(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr)
        (self.say or _plain)(text)


def _plain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
