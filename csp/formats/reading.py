"""How is a file read, without believing it?

`open` maps the file into memory and checks its header and manifest; a tensor is checked, and only then decoded, when it
is asked for. Nothing larger than the caller's limit is ever allocated.
"""

import builtins
import os
import stat
from pathlib import Path
from types import TracebackType

import numpy as np

from csp.formats import header, manifest, tensor
from csp.formats.errors import FormatError
from csp.formats.manifest import Entry, Manifest
from csp.formats.values import FLOATS

LIMIT = 16 * 2**30  # bytes of decoded tensors, all together
_DTYPES = tensor.DTYPE_OF | {
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "BOOL": np.dtype(np.uint8),
}


class File:
    """An open file: `names`, `entry`, `decode` and `packed`. Use it in a `with` statement."""

    def __init__(self, path: Path, limit: int, allow_nonfinite: bool):
        self.path, self.allow_nonfinite = path, allow_nonfinite
        size = _size(path)
        with builtins.open(path, "rb") as file:
            first = file.read(8)
            length = header.header_length(first, size)
            self._header = header.parse(first + file.read(length), size)
        self._bytes = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
        self.manifest = manifest.read(self._header) or self._plain()
        dense = sum(entry.size * np.dtype(FLOATS[entry.dtype]).itemsize for entry in self.manifest.entries.values())
        if dense > limit:
            raise FormatError(f"its tensors take {dense} bytes, the limit is {limit}: raise limit= if you trust it")

    def __enter__(self) -> "File":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._bytes = np.zeros(0, np.uint8)

    @property
    def names(self) -> list[str]:
        """Every tensor's name, those of tied ones too."""
        return sorted([*self.manifest.entries, *self.manifest.tied])

    def entry(self, name: str) -> Entry:
        found = self.manifest.entries.get(self.manifest.tied.get(name, name))
        if found is None:
            raise KeyError(f"{self.path} has no tensor {name!r}; it has {', '.join(map(repr, self.names[:4]))}, ...")
        return found

    def decode(self, name: str) -> np.ndarray | tensor.Pair:
        """The dense tensor, or its factors, checked."""
        entry, name = self.entry(name), self.manifest.tied.get(name, name)
        with _naming(name):
            if entry.digest:
                return tensor.decode(entry, self._parts(name, entry), self.allow_nonfinite)
            w = self._piece(name)
            if not self.allow_nonfinite and not tensor.finite(w):
                raise FormatError("it has NaN or infinite weights: allow_nonfinite=True reads them")
            return w

    def packed(self, name: str) -> tuple[Entry, dict[str, np.ndarray]]:
        """The parts as they are stored, checked, without a dense tensor."""
        entry, name = self.entry(name), self.manifest.tied.get(name, name)
        with _naming(name):
            parts = self._parts(name, entry)
            return entry, tensor.unpack(entry, parts)[0] if entry.digest else parts

    def numbers(self, name: str) -> tuple[Entry, tensor.Numbers]:
        """The values and where they stand, checked, without a dense tensor."""
        entry, name = self.entry(name), self.manifest.tied.get(name, name)
        with _naming(name):
            if entry.digest:
                return entry, tensor.numbers(entry, self._parts(name, entry), self.allow_nonfinite)
            return entry, tensor.Numbers(np.asarray(self.decode(name)).reshape(-1), None, None)

    def bytes_of(self, name: str) -> int:
        """What the tensor takes in the file."""
        entry, name = self.entry(name), self.manifest.tied.get(name, name)
        pieces = [self._header.pieces[manifest.piece_name(name, entry, part)] for part in entry.parts]
        return sum(piece.end - piece.begin for piece in pieces)

    def _parts(self, name: str, entry: Entry) -> dict[str, np.ndarray]:
        return {part: self._piece(manifest.piece_name(name, entry, part), flat=True) for part in entry.parts}

    def _piece(self, name: str, flat: bool = False) -> np.ndarray:
        piece, start = self._header.pieces[name], self._header.start
        if start + piece.end > len(self._bytes):
            raise FormatError("it was truncated while it was read")
        dtype = _DTYPES[piece.dtype]
        x = np.asarray(self._bytes[start + piece.begin : start + piece.end])
        if x.ctypes.data % dtype.itemsize:
            x = x.copy()
        x = x.view(dtype)
        return x if flat else x.reshape(piece.shape).copy()

    def _plain(self) -> Manifest:
        """Of a file that is not csp's: its floats as dense tensors without a digest."""
        entries = {}
        for name, piece in self._header.pieces.items():
            kind = next((kind for kind, dtype in manifest.DTYPES.items() if dtype == piece.dtype), None)
            if kind:
                size = header.entries(piece.shape)
                entries[name] = Entry("dense", kind, kind, piece.shape, size, size, "", {"values": {}}, {}, {})
        return Manifest(entries, {}, None, {})


class _naming:
    """Puts the tensor's name before what is wrong with it."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, FormatError):
            raise FormatError(f"{self.name!r}: {error}") from None
        if isinstance(error, MemoryError):
            raise FormatError(f"{self.name!r}: not enough memory for it") from None


def _size(path: Path) -> int:
    """Of a regular file; a device or a pipe could block for ever."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise FormatError("it is no regular file")
    return status.st_size
