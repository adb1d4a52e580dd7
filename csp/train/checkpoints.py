"""How does a run survive? Checkpoints: one safetensors file each, whole or not there, with a digest of every byte.

The newest good one is found by looking: there is no pointer to be wrong. One that is damaged is named and passed over.
"""

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from csp.formats import FormatError, header, tensor, writing
from csp.formats.header import Piece

log = logging.getLogger("csp")
VERSION = 3  # of what a training carries
_NAME = re.compile(r"step-(\d{9})\.safetensors")
_DTYPES = tensor.DTYPE_OF | {
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "BOOL": np.dtype(bool),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class Saved(NamedTuple):
    step: int
    path: Path


def save(folder: Path, step: int, tree: Any, about: dict[str, Any], keep: int) -> Path:
    """Writes a checkpoint, then removes the oldest beyond `keep`."""
    path = folder / f"step-{step:09d}.safetensors"
    write(path, tree, {"step": step} | about)
    for old in found(folder)[:-keep]:
        old.path.unlink(missing_ok=True)
    return path


def write(path: Path, tree: Any, about: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    arrays = _flatten(tree)
    pieces, at = {}, 0
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    for name in order:
        x = arrays[name]
        pieces[name] = Piece(_NAMES[x.dtype], x.shape, at, at + x.nbytes)
        at += x.nbytes
    chunks = [np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data for name in order]
    said = json.dumps({"version": VERSION} | about, sort_keys=True)
    head = header.write_header(pieces, {"csp-checkpoint": said, "digest": _digest(said, pieces, chunks)})
    writing.atomically(path, [head, *chunks], overwrite=True)


def found(folder: Path) -> list[Saved]:
    """All checkpoints by step, the newest last; unfinished ones have other names."""
    paths = [path for path in folder.glob("step-*.safetensors") if not path.is_symlink()] if folder.is_dir() else []
    named = [(match, path) for path in paths if (match := _NAME.fullmatch(path.name))]
    return sorted(Saved(int(match[1]), path) for match, path in named)


def newest(folder: Path, strict: bool = False) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole, and what it says of itself; None if there is none at all.

    A damaged one is passed over with a warning, or is an error if `strict`; if all are damaged, that is an error.
    """
    saved = found(folder)
    for one in reversed(saved):
        try:
            return one.path, _read(one.path)[1]
        except FormatError as error:
            if strict:
                raise
            log.warning("%s; going back to the one before", error)
    if saved:
        raise FormatError(f"{folder}: all {len(saved)} checkpoints are damaged: restore one, or train anew elsewhere")
    return None


def load(path: Path, like: Any) -> Any:
    """The tree; everything that does not fit `like` is named at once, and nothing is loaded."""
    arrays, about = _read(path)
    if about["version"] < VERSION:
        raise ValueError(f"{path} is of an older csp: finish its run with that one, or begin another with --out DIR")
    return _fill(path, like, arrays)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        raw = path.read_bytes()
        head = header.parse(raw, len(raw))
        said = head.metadata.get("csp-checkpoint", "")
        parts = {name: raw[head.start + p.begin : head.start + p.end] for name, p in head.pieces.items()}
        order = sorted(head.pieces, key=lambda name: head.pieces[name].begin)
        if _digest(said, head.pieces, [parts[name] for name in order]) != head.metadata.get("digest"):
            raise FormatError("its digest is not that of its bytes: it is damaged")
        about = json.loads(said)
        if about["version"] > VERSION:
            raise FormatError(f"version {about['version']} is newer than this csp: upgrade csp-jax")
    except (FormatError, OSError) as error:
        raise FormatError(f"{path}: {error}") from None
    arrays = {name: np.frombuffer(parts[name], _DTYPES[p.dtype]).reshape(p.shape) for name, p in head.pieces.items()}
    return arrays, about


def _digest(said: str, pieces: dict[str, Piece], chunks: list) -> str:
    hashed = hashlib.blake2b(said.encode(), digest_size=32)
    hashed.update(json.dumps({name: list(p) for name, p in pieces.items()}, sort_keys=True).encode())
    for chunk in chunks:  # in the order of the file, in which empty ones do not matter
        hashed.update(chunk)
    return hashed.hexdigest()


def _flatten(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): _numpy(leaf) for path, leaf in leaves}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _numpy(leaf: Any) -> np.ndarray:
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", np.float32), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _fill(path: Path, like: Any, arrays: dict[str, np.ndarray]) -> Any:
    wanted = _flatten_abstract(like)
    wrong = [f"{name} is missing" for name in wanted if name not in arrays]
    wrong += [f"{name} is unknown" for name in arrays if name not in wanted]
    for name, leaf in wanted.items():
        x = arrays.get(name)
        if x is not None and (x.shape != tuple(leaf.shape) or x.dtype != np.dtype(leaf.dtype)):
            wrong.append(f"{name} is {x.dtype}{list(x.shape)}, not {np.dtype(leaf.dtype)}{list(leaf.shape)}")
    if wrong:
        raise ValueError(f"{path} does not fit this config: {'; '.join(wrong[:8])}")
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in wanted])


def _flatten_abstract(like: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(like)}
