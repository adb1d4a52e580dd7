"""How is a model saved, opened, loaded, verified and described?"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from csp.formats import header, manifest, reading, tensor, trees, writing
from csp.formats import values as kinds
from csp.formats.errors import FormatError
from csp.formats.manifest import Entry, Manifest

if TYPE_CHECKING:
    from csp.methods import Method
    from csp.rules import Rule

Choice = str | Mapping[str, str]


def save(
    path: str | Path,
    params: Any,
    codec: Choice = "auto",
    config: Any = None,
    *,
    values: Choice | None = None,
    archive: bool = False,
    rules: Sequence["Rule"] = (),
    method: "Method | None" = None,
    notes: Mapping[str, dict[str, str]] | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
) -> Path:
    """Writes a tree of arrays as one safetensors file, whole or not at all.

    -0.0 is stored as +0.0; arrays that are one object are stored once.

    Args:
      path: of the file; its folder exists, and it does not unless `overwrite`.
      params: any tree of float arrays.
      codec: "auto", the smallest for each tensor; "dense", "bitmask", "n_of_m" or "indices"; "factors", by a
        decomposition that loses rounding only; or {pattern: codec}, where the first pattern that matches a whole name
        wins, and "auto" is for the rest. `csp.lowrank.Factors` are stored as factors always.
      config: plain JSON that `load` gives back.
      values: the type of the numbers that are stored, "f32", "bf16", "f16", "int8", "int4", or {pattern: type}; their
        own by default. Vectors keep their own type unless a pattern names them.
      archive: codes every part by its entropy: smaller, and not to be mapped into a runtime.
      rules: what the model was pruned by, for the manifest; N:M is taken from it.
      method: likewise.
      notes: name -> what the manifest shall say of a tensor, in place of what the rules say.
      about: more for the manifest, such as {"family": ..., "tokenizer": ...}: plain JSON.
      overwrite: replace a file that exists.
      allow_nonfinite: NaN and infinite weights are an error unless this is set.
    """
    notes = notes or _provenance(params, rules)
    leaves, tied = _untied(trees.flatten(params))

    def encode(name: str) -> tuple[Entry, dict[str, np.ndarray]]:
        w = _array(name, leaves[name], allow_nonfinite)
        whole = isinstance(values, str) and not isinstance(w, tensor.Pair) and w.ndim < 2
        kind = None if whole else _chosen(values, name, None)
        hint = _n_of_m(notes.get(name, {}))
        return _encode(name, w, _chosen(codec, name, "auto"), kind, hint, archive)

    entries: dict[str, Entry] = {}
    stored: dict[str, np.ndarray] = {}
    for name, (entry, parts) in zip(leaves, _together(encode, leaves), strict=True):
        entries[name] = entry._replace(notes=notes.get(name, {}))
        for part, x in parts.items():
            piece = manifest.piece_name(name, entry, part)
            if piece in stored or piece == header.METADATA:
                raise ValueError(f"{name!r} would be stored as {piece!r}, which is another's place: rename it")
            stored[piece] = x.reshape(entry.shape) if piece == name and x.size == entry.size else x
    more = dict(about or {}) | ({"method": method.name, "steps": method.steps} if method else {})
    metadata = manifest.metadata(Manifest(entries, tied, config, more | {"csp": _version()}))
    _write(Path(path), stored, metadata, overwrite)
    return Path(path)


def open(path: str | Path, *, limit: int = reading.LIMIT, allow_nonfinite: bool = False) -> reading.File:
    """Maps a file and checks its header; tensors are checked and decoded when they are asked for.

    Args:
      path: of a csp file, or of any safetensors file, whose floats are then dense tensors.
      limit: the most bytes that its tensors may take together once decoded.
      allow_nonfinite: NaN and infinite weights are an error unless this is set.
    """
    try:
        return reading.File(Path(path), limit, allow_nonfinite)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None


def load(
    path: str | Path,
    *,
    like: Any = None,
    limit: int = reading.LIMIT,
    allow_nonfinite: bool = False,
    factors: bool = False,
    flat: bool = False,
) -> tuple:
    """(params, config): nested dicts of dense NumPy arrays by the parts of their names, or the tree `like` filled.

    Factors are multiplied out, but where `like` has factors; or stay pairs (u, v), with `factors`. With `flat` it is
    one dict by whole names, such as "encoder/kernel".
    """
    with open(path, limit=limit, allow_nonfinite=allow_nonfinite) as file:
        try:
            decoded = dict(zip(file.manifest.entries, _together(file.decode, file.manifest.entries), strict=True))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from None
        found = {name: decoded[file.manifest.tied.get(name, name)] for name in file.names}
        if like is not None:
            return trees.fill(like, found), file.manifest.config
        if not factors:
            found = {name: trees.dense(w) for name, w in found.items()}
        return found if flat else trees.nest(found), file.manifest.config


def verify(path: str | Path, *, limit: int = reading.LIMIT, allow_nonfinite: bool = False) -> None:
    """Decodes every tensor, and raises FormatError naming the first that is not what the file says."""
    load(path, limit=limit, allow_nonfinite=allow_nonfinite, flat=True)


def inspect(path: str | Path) -> dict[str, Any]:
    """What a file holds, from its header alone: plain JSON."""
    with open(path, limit=2**63) as file:
        rows = [_row(file, name) for name in file.manifest.entries]
        size, dense = Path(path).stat().st_size, sum(row["dense_bytes"] for row in rows)
        return {
            "path": str(path),
            "bytes": size,
            "dense_bytes": dense,
            "ratio": size / max(dense, 1),
            "density": sum(row["nonzero"] for row in rows) / max(sum(row["size"] for row in rows), 1),
            "config": file.manifest.config,
            "about": file.manifest.about,
            "tied": file.manifest.tied,
            "tensors": rows,
        }


def _together(f: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
    """f of each name, on a few threads: NumPy lets go of Python's lock where the time goes."""
    from concurrent.futures import ThreadPoolExecutor  # which takes longer to import than a runtime takes to load

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return list(pool.map(f, names))


def _untied(leaves: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """name -> leaf, each leaf once; and other name -> name of those that stand there twice."""
    kept: dict[str, Any] = {}
    tied: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, leaf in leaves.items():
        header.check_name(name)
        if id(leaf) in first:
            tied[name] = first[id(leaf)]
        else:
            first[id(leaf)] = name
            kept[name] = leaf
    return kept, tied


def _row(file: reading.File, name: str) -> dict[str, Any]:
    entry, size = file.entry(name), file.bytes_of(name)
    dense = entry.size * np.dtype(kinds.FLOATS[entry.dtype]).itemsize
    return {
        "name": name,
        "shape": list(entry.shape),
        "dtype": entry.dtype,
        "structure": entry.notes.get("structure", ""),
        "rule": entry.notes.get("rule", ""),
        "size": entry.size,
        "nonzero": entry.nonzero,
        "density": entry.nonzero / max(entry.size, 1),
        "codec": entry.codec,
        "values": entry.values,
        "bytes": size,
        "dense_bytes": dense,
        "bits_per_weight": 8 * size / max(entry.size, 1),
        "ratio": size / max(dense, 1),
    }


def _provenance(params: Any, rules: Sequence["Rule"]) -> dict[str, dict[str, str]]:
    """name -> notes."""
    if not rules:
        return {}
    from csp.rules import bind

    found = {}
    for t in bind(params, rules):
        metric = {"metric": str(t.rule.metric)} if t.rule.metric else {}
        found[t.path] = {"rule": t.rule.pattern, "structure": str(t.rule.structure), **metric}
    return found


def _n_of_m(notes: Mapping[str, str]) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+):(\d+)", notes.get("structure", ""))
    return (int(found[1]), int(found[2])) if found and int(found[2]) <= 256 else None


def _chosen(choice: Choice | None, name: str, rest: str | None) -> Any:
    if not isinstance(choice, Mapping):
        return choice or rest
    return next((value for pattern, value in choice.items() if re.fullmatch(pattern, name)), rest)


def _array(name: str, leaf: Any, allow_nonfinite: bool) -> np.ndarray | tensor.Pair:
    if isinstance(leaf, tuple):
        return tensor.Pair(*(_one_array(name, factor, allow_nonfinite) for factor in leaf))
    return _one_array(name, leaf, allow_nonfinite)


def _one_array(name: str, leaf: Any, allow_nonfinite: bool) -> np.ndarray:
    w = np.asarray(leaf)
    try:
        kinds.natural(w.dtype)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    if not allow_nonfinite and not tensor.finite(w):
        raise ValueError(f"{name!r} has NaN or infinite weights: mend the model, or save with allow_nonfinite=True")
    return w


def _encode(name, w, codec, kind, hint, archive) -> tuple[Entry, dict[str, np.ndarray]]:
    if kind is not None and kind not in kinds.TYPES:
        raise ValueError(f"values {kind!r} are none of {', '.join(map(repr, kinds.TYPES))}")
    try:
        entry, parts = tensor.encode(w, codec, kind, hint, archive)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from None
    tensor.check(w, entry, parts)
    return entry, parts


def _write(path: Path, stored: Mapping[str, np.ndarray], metadata: Mapping[str, str], overwrite: bool) -> None:
    pieces, at = {}, 0
    order = sorted(stored, key=lambda name: -stored[name].dtype.itemsize)  # so that every piece is aligned
    for name in order:
        x = stored[name]
        pieces[name] = header.Piece(tensor.NAMES[x.dtype], x.shape, at, at + x.nbytes)
        at += x.nbytes
    head = header.write_header(pieces, metadata)
    chunks = [head, *(np.ascontiguousarray(stored[name]).reshape(-1).view(np.uint8).data for name in order)]
    writing.atomically(path, chunks, overwrite)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("csp-jax")
    except PackageNotFoundError:
        return "unknown"
