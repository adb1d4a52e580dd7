"""How does a file come to be whole or not at all?

Everything is written to a temporary file in the same folder, forced to the disk, and renamed: whatever interrupts it,
the final name holds the old file or the new one. Temporary files of a process of this machine that is gone are swept by
the next save.
"""

import contextlib
import glob
import os
import socket
from collections.abc import Iterable
from pathlib import Path


def atomically(path: Path, chunks: Iterable[bytes | memoryview], overwrite: bool) -> None:
    """Writes the chunks to `path`; an error leaves nothing behind."""
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: create it, or write {path.name} elsewhere")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another name, or ask to overwrite it")
    _sweep(folder, path.name)
    temporary = folder / f"{_prefix(path.name)}{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # writes do not say which file they are of
        raise
    _sync_folder(folder)


def _prefix(name: str) -> str:
    """Of temporary files: other machines may write to the same folder, and have processes of the same number."""
    return f".{name}.{socket.gethostname()}."


def _sweep(folder: Path, name: str) -> None:
    for orphan in folder.glob(f"{glob.escape(_prefix(name))}*.tmp"):
        process = orphan.name.removeprefix(_prefix(name)).removesuffix(".tmp")
        if process.isdecimal() and not _alive(int(process)):
            with contextlib.suppress(OSError):
                orphan.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
