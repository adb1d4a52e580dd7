"""What does a file say of its tensors? One JSON object under the key "csp" of the header's metadata, and its digest."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from csp.formats import codecs, values
from csp.formats.errors import FormatError
from csp.formats.header import Header, check_name, check_shape, strict_json

VERSION = 1
ORIENTATION = "in,out"
DTYPES = {"f64": "F64", "f32": "F32", "bf16": "BF16", "f16": "F16"}
ARCHIVED = ("F64", "F32", "BF16", "F16", "I8", "U8", "U32", "U64")  # what a part may have been
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"codec", "values", "dtype", "shape", "stored", "nonzero", "digest", "parts"}


class Entry(NamedTuple):
    """One tensor: how it is stored, and what it is."""

    codec: str
    values: str  # the type of the stored numbers
    dtype: str  # of the tensor
    shape: tuple[int, ...]
    stored: int  # how many numbers are
    nonzero: int  # how many of the tensor's entries are not zero
    digest: str  # of its parts, in the order of their names
    parts: dict[str, dict[str, Any]]  # name -> {} as it stands in the file, or {"dtype", "shape"} of an archived one
    fields: dict[str, int]  # of the codec
    notes: dict[str, str]  # structure, rule, method: whatever made it

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of what the codec saw: the last axis is the outputs."""
        rows = 1
        for n in self.shape[:-1]:
            rows *= n
        return (rows, self.shape[-1]) if self.shape else (1, 1)

    @property
    def size(self) -> int:
        rows, cols = self.matrix
        return rows * cols


class Manifest(NamedTuple):
    entries: dict[str, Entry]
    tied: dict[str, str]  # another name of a tensor -> its name
    config: Any
    about: dict[str, Any]  # csp's version, the family, the tokenizer: whatever else was given


def write(manifest: Manifest) -> str:
    tensors = {}
    for name, entry in manifest.entries.items():
        plain = entry._asdict()
        del plain["fields"], plain["notes"]
        tensors[name] = plain | entry.fields | ({"notes": entry.notes} if entry.notes else {})
    whole = {
        "version": VERSION,
        "orientation": ORIENTATION,
        "tensors": tensors,
        "tied": manifest.tied,
        "config": manifest.config,
        "about": manifest.about,
    }
    try:
        return json.dumps(whole, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"config and about are plain JSON, of finite numbers and strings: {error}") from None


def read(header: Header) -> Manifest | None:
    """None: a plain safetensors file of any origin."""
    keys = {"format", "csp", "digest"}
    if not keys & set(header.metadata) - {"format"} and header.metadata.get("format") != "csp":
        return None
    if not keys <= set(header.metadata):
        raise FormatError(f"its metadata lacks {min(keys - set(header.metadata))!r}, which a csp file has")
    text = header.metadata["csp"]
    if digest(text) != header.metadata["digest"]:
        raise FormatError("the digest of its manifest is not that of its text: damaged")
    whole = strict_json(text.encode("utf-8", "surrogatepass"), "manifest")
    version = whole.get("version") if isinstance(whole, dict) else None
    if type(version) is not int or version != VERSION:
        raise FormatError(f"its manifest has version {str(version)[:20]}, this csp reads {VERSION}: upgrade csp-jax")
    if set(whole) != {"version", "orientation", "tensors", "tied", "config", "about"}:
        raise FormatError(f"its manifest has other keys than those of version {VERSION}")
    if whole["orientation"] != ORIENTATION or not all(isinstance(whole[k], dict) for k in ("tensors", "tied", "about")):
        raise FormatError("its manifest has keys of the wrong kind")
    entries = {name: _entry(name, fields) for name, fields in whole["tensors"].items()}
    _check_pieces(entries, header)
    tied = whole["tied"]
    for other, name in tied.items():
        check_name(other)
        if not isinstance(name, str) or name not in entries or other in entries:
            raise FormatError(f"{other!r} is tied to {str(name)[:60]!r}, which is no tensor of this file")
    return Manifest(entries, tied, whole["config"], whole["about"])


def metadata(manifest: Manifest) -> dict[str, str]:
    text = write(manifest)
    return {"format": "csp", "csp": text, "digest": digest(text)}


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()


def piece_name(name: str, entry: Entry, part: str) -> str:
    """A dense tensor stands under its own name, so that any reader finds it, and nothing else does."""
    plain = part == "values" and entry.codec == "dense" and not entry.parts["values"]
    return name if plain else f"{name}#{part}"


def _entry(name: str, given: Any) -> Entry:
    check_name(name)
    codec = given.get("codec") if isinstance(given, dict) else None
    if not isinstance(codec, str) or codec not in codecs.NAMES:
        raise FormatError(f"{name!r} has a codec that this csp does not know")
    if set(given) - {"notes"} != _FIELDS | set(codecs.FIELDS[codec]):
        raise FormatError(f"{name!r} has other fields than a {codec} tensor of version {VERSION}")
    numbers = [given[key] for key in ("stored", "nonzero", *codecs.FIELDS[codec])]
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise FormatError(f"{name!r} has a count that is negative or no integer")
    if given["values"] not in values.TYPES or given["dtype"] not in tuple(DTYPES):
        raise FormatError(f"{name!r} has values of a type that this csp does not know")
    if not isinstance(given["digest"], str) or not _DIGEST.fullmatch(given["digest"]):
        raise FormatError(f"{name!r} has no digest")
    notes = given.get("notes", {})
    if not isinstance(notes, dict) or not all(isinstance(v, str) for v in notes.values()):
        raise FormatError(f"{name!r} has notes that are no strings")
    wanted = {*codecs.PARTS[codec], "values", *(["scale"] if given["values"] in values.TOP else [])}
    parts = given["parts"]
    if not isinstance(parts, dict) or set(parts) != wanted or not all(isinstance(p, dict) for p in parts.values()):
        raise FormatError(f"{name!r} has other parts than a {codec} tensor of {given['values']}")
    entry = Entry(
        codec=codec,
        values=given["values"],
        dtype=given["dtype"],
        shape=check_shape(name, given["shape"]),
        stored=given["stored"],
        nonzero=given["nonzero"],
        digest=given["digest"],
        parts={part: _archived(name, fields) for part, fields in parts.items()},
        fields={key: given[key] for key in codecs.FIELDS[codec]},
        notes=notes,
    )
    if codec == "factors" and (len(entry.shape) < 2 or entry.fields["rank"] > max(entry.matrix)):
        raise FormatError(f"{name!r} has factors of rank {str(entry.fields['rank'])[:20]}, of shape {entry.shape}")
    most = 2 * entry.size if codec == "factors" else entry.size
    if not entry.nonzero <= entry.stored <= most:
        raise FormatError(f"{name!r} stores {entry.stored} numbers for {entry.nonzero} non-zeros of {entry.size}")
    return entry


def _archived(name: str, fields: dict) -> dict[str, Any]:
    if not fields:
        return {}
    if set(fields) != {"dtype", "shape"} or fields["dtype"] not in ARCHIVED:
        raise FormatError(f"{name!r} has an archived part of no known type")
    return {"dtype": fields["dtype"], "shape": check_shape(name, fields["shape"])}


def _check_pieces(entries: Mapping[str, Entry], header: Header) -> None:
    """The manifest and the header speak of the same pieces."""
    wanted = [piece_name(name, entry, part) for name, entry in entries.items() for part in entry.parts]
    if len(set(wanted)) < len(wanted):
        raise FormatError("two tensors of its manifest share a piece")
    if set(wanted) != set(header.pieces):
        odd = min(set(wanted) ^ set(header.pieces))
        raise FormatError(f"{odd!r} stands in the header or in the manifest, and not in both")
