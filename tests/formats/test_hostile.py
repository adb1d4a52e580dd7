"""FAULTS 28-41: what a file from a stranger may try. All of it ends in FormatError, and allocates next to nothing."""

import json
import os
import random
import time
import tracemalloc
import zlib

import models
import numpy as np
import pytest

from csp import formats
from csp.formats import FormatError, tensor
from csp.formats.header import LONGEST
from csp.formats.manifest import digest


def assemble(pieces: dict, manifest: dict | str | None = None, data: bytes = b"") -> bytes:
    head = dict(pieces)
    if manifest is not None:
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        head["__metadata__"] = {"format": "csp", "csp": text, "digest": digest(text)}
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + data


def take_apart(raw: bytes) -> tuple[dict, dict, bytes]:
    """(pieces, manifest, data) of a valid file."""
    length = int.from_bytes(raw[:8], "little")
    head = json.loads(raw[8 : 8 + length])
    return head, json.loads(head.pop("__metadata__")["csp"]), raw[8 + length :]


def refused(tmp_path, raw: bytes, message: str | None = None, most: float = 2e6) -> str:
    """The file is refused in one line, quickly, without memory."""
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(raw)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(FormatError, match=message) as raised:
        formats.verify(path)
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < most + 3 * len(raw)
    assert seconds < 5  # not a measurement: nothing here may hang
    assert "\n" not in str(raised.value)
    assert "hostile.safetensors" in str(raised.value)
    return str(raised.value)


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> dict[str, bytes]:
    """A file of one tensor "w" in each codec, with and without codes and archives."""
    folder, found = tmp_path_factory.mktemp("valid"), {}
    for codec in (*models.CODECS, "factors"):
        for values in (None, "int8", "int4"):
            for archive in (False, True):
                w = models.banked(3, 8, 3, 5)
                path = formats.save(folder / "m", {"w": w}, codec, values=values, archive=archive, overwrite=True)
                found[f"{codec} {values}{' archived' if archive else ''}"] = path.read_bytes()
    return found


def test_no_header_is_believed(tmp_path):
    refused(tmp_path, b"", "0 bytes are too few")
    refused(tmp_path, b"1234567", "7 bytes are too few")
    for length in (2**63, 2**40, LONGEST + 1, 100):
        refused(tmp_path, length.to_bytes(8, "little") + b"{}", f"claims {length} bytes")
    for depth in (10**3, 10**5, 10**6):
        text = b"[" * depth
        refused(tmp_path, len(text).to_bytes(8, "little") + text, "nested too deeply|no JSON", most=3e7)
    refused(tmp_path, (2).to_bytes(8, "little") + b"\xff\xfe", "no UTF-8")
    refused(tmp_path, (2).to_bytes(8, "little") + b"[]", "no JSON object")
    refused(tmp_path, b"PK\x03\x04" + bytes(100), "claims|no UTF-8|no JSON")  # a zip file
    refused(tmp_path, b"\x80\x04\x95" + bytes(100), "claims|no UTF-8|no JSON")  # a pickle


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
PIECES = {
    "a hole": ({"w": F32, "v": F32 | {"data_offsets": [12, 20]}}, "a hole or an overlap"),
    "an overlap": ({"w": F32, "v": F32 | {"data_offsets": [4, 12]}}, "a hole or an overlap"),
    "out of the file": ({"w": F32 | {"shape": [8], "data_offsets": [0, 32]}}, "32 bytes, the file has 20"),
    "trailing bytes": ({"w": F32}, "8 bytes, the file has 20"),
    "backwards": ({"w": F32 | {"data_offsets": [8, 0]}}, "'w' takes -8 bytes"),
    "negative": ({"w": F32 | {"data_offsets": [-8, 0]}}, "'w': data_offsets .* are no two positions"),
    "fractional": ({"w": F32 | {"data_offsets": [0.0, 8.0]}}, "are no two positions"),
    "true": ({"w": F32 | {"shape": [True, 2]}}, "is no list of sizes"),
    "a negative size": ({"w": F32 | {"shape": [-2]}}, "is no list of sizes"),
    "an overflow": ({"w": F32 | {"shape": [2**32, 2**32 + 1]}}, "larger than any memory"),
    "a huge nothing": ({"w": F32 | {"shape": [2**62, 0], "data_offsets": [0, 0]}}, "larger than any memory"),
    "another dtype": ({"w": F32 | {"dtype": "F7"}}, "'w' has dtype 'F7'"),
    "no dtype": ({"w": {"shape": [2], "data_offsets": [0, 8]}}, "'w' has other fields"),
    "one field more": ({"w": F32 | {"pickle": 1}}, "'w' has other fields"),
    "a path": ({"../../w": F32}, "is no name of a tensor"),
    "a root": ({"/etc/passwd": F32}, "is no name of a tensor"),
    "no name": ({"": F32}, "is no name of a tensor"),
    "a line break": ({"a\nb": F32}, "is no name of a tensor"),
}


@pytest.mark.parametrize("case", PIECES)
def test_no_piece_is_believed(case, tmp_path):
    pieces, message = PIECES[case]
    refused(tmp_path, assemble(pieces, data=bytes(20)), message)


def test_a_key_stands_once_at_every_level(tmp_path):
    one = json.dumps(F32)
    for text in (f'{{"w":{one},"w":{one}}}', '{"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}'):
        refused(tmp_path, len(text).to_bytes(8, "little") + text.encode() + bytes(8), "stands twice")
    refused(tmp_path, assemble({"w": F32}, '{"version":1,"version":1}', bytes(8)), "'version' stands twice")


def test_a_number_is_within_reason(valid, tmp_path):
    pieces, manifest, data = take_apart(valid["bitmask None"])
    for number, message in (("1" * 5000, "an integer of 5000 digits"), ("1e999", "1e999 is beyond all numbers")):
        text = json.dumps(manifest | {"config": "@"}).replace('"@"', number)
        refused(tmp_path, assemble(pieces, text, data), message)
    text = assemble({"w": F32 | {"shape": "@"}})[8:].replace(b'"@"', b"[" + b"1" * 5000 + b"]")
    refused(tmp_path, len(text).to_bytes(8, "little") + text, "an integer of 5000 digits")


def test_nothing_has_factors_of_no_rank(tmp_path):
    nothing = forge("values", lambda x: x[:0], "factors", rank=10**30, shape=[0, 0], stored=0, nonzero=0)
    refused(tmp_path, nothing, "'w' has factors of rank 1000")
    refused(tmp_path, forge("values", lambda x: x[:0], "factors", rank=0, shape=[], stored=0, nonzero=0), "rank 0, of")


def lie(raw: bytes, **changes) -> bytes:
    """The file with another entry of "w" in its manifest."""
    pieces, manifest, data = take_apart(raw)
    manifest["tensors"]["w"] |= changes
    return assemble(pieces, manifest, data)


LIES = {
    "codec": ({"codec": "zip"}, "'w' has a codec"),
    "no codec": ({"codec": None}, "'w' has a codec"),
    "values": ({"values": "int2"}, "'w' has values of a type"),
    "stored": ({"stored": -1}, "'w' has a count"),
    "too many": ({"stored": 10**6}, "'w' stores 1000000 numbers"),
    "true": ({"nonzero": True}, "'w' has a count"),
    "digest": ({"digest": "0" * 64}, "'w': its digest is not that of its bytes"),
    "no digest": ({"digest": ""}, "'w' has no digest"),
    "shape": ({"shape": [5, 24]}, "'w'"),
    "larger": ({"shape": [24, 500]}, "'w'"),
    "parts": ({"parts": {"values": {}}}, "'w' has other parts|'w#"),
    "a path": ({"notes": {"a": 1}}, "'w' has notes"),
    "unknown": ({"script": "rm"}, "'w' has other fields"),
    "a list for a type": ({"dtype": []}, "'w' has values of a type"),
}


@pytest.mark.parametrize("case", LIES)
def test_no_entry_is_believed(case, valid, tmp_path):
    changes, message = LIES[case]
    refused(tmp_path, lie(valid["n_of_m int8"], **changes), message)


def test_a_manifest_of_the_future_is_named(valid, tmp_path):
    pieces, manifest, data = take_apart(valid["bitmask None"])
    refused(tmp_path, assemble(pieces, manifest | {"version": 2}, data), "version 2, this csp reads 1: upgrade")
    refused(tmp_path, assemble(pieces, manifest | {"more": 2}, data), "other keys")
    refused(tmp_path, assemble(pieces, manifest | {"version": True}, data), "version True, this csp reads 1")
    refused(tmp_path, assemble(pieces, manifest | {"tied": {"v": "u"}}, data), "'v' is tied to 'u'")
    refused(tmp_path, assemble(pieces, manifest | {"tied": {"v": []}}, data), r"'v' is tied to '\[\]'")
    refused(tmp_path, assemble(pieces, "[" * 10**5, data), "nested too deeply|no JSON", most=3e7)
    refused(
        tmp_path, assemble(pieces | {"x": F32 | {"shape": [0], "data_offsets": [0, 0]}}, manifest, data), "'x' stands"
    )


def forge(part: str, change, codec: str, values: str | None = None, **fields) -> bytes:
    """A file whose part was changed, with the digest and offsets that belong to it."""
    entry, parts = tensor.encode(models.banked(3, 8, 3, 5), codec, values)
    parts = {name: x.copy() for name, x in parts.items()}
    parts[part] = change(parts[part])
    plain = entry._replace(digest=tensor.digest(parts))._asdict()
    entry_fields = plain.pop("fields")
    del plain["notes"]
    manifest = {"version": 1, "orientation": "in,out", "tied": {}, "config": None, "about": {}}
    manifest["tensors"] = {"w": plain | entry_fields | fields}
    pieces, data = {}, b""
    for name, x in sorted(parts.items(), key=lambda item: -item[1].itemsize):
        where = [len(data), len(data) + x.nbytes]
        key = f"w#{name}"
        pieces[key] = {"dtype": tensor.NAMES[x.dtype], "shape": list(x.shape), "data_offsets": where}
        data += x.tobytes()
    return assemble(pieces, manifest, data)


def put(at, value):
    def change(x):
        x = x.copy()
        x[at] = value
        return x

    return change


def test_what_is_forged_with_its_digest_is_checked_too(tmp_path):
    nan, m8 = np.float32(np.nan), {"n": 3, "m": 8}
    for raw, message in [
        (forge("mask", put(0, 255), "bitmask"), "'w': its mask has .* bits set, for 45 values"),
        (forge("offsets", put(1, 99), "bitmask"), "'w': its row offsets do not count its mask"),
        (forge("mask", lambda x: x[:-1], "bitmask"), "'w': 14 bytes do not hold 120 numbers"),
        (forge("places", put(slice(None), 0), "n_of_m", **m8), "'w': the positions of a group are not ascending"),
        (forge("places", put(0, 255), "n_of_m", **m8), "'w': the positions of a group are not ascending"),
        (forge("places", lambda x: x, "n_of_m", n=9, m=8), "'w': 9:8 is no structure"),
        (forge("places", lambda x: x, "n_of_m", n=3, m=0), "'w': 3:0 is no structure"),
        (forge("gaps", put(slice(None), 255), "indices"), "'w': its gaps name 0 entries|'w': the padding"),
        (forge("gaps", lambda x: x, "indices", bits=9), "'w': .* gaps of 9 bits"),
        (forge("gaps", lambda x: x, "indices", gaps=10**9), "'w': 1000000000 gaps"),
        (forge("values", put(0, nan), "bitmask"), "'w': it has NaN or infinite weights"),
        (forge("values", lambda x: x[:-1], "bitmask"), "'w': its values are not 45"),
        (forge("values", lambda x: x.astype(np.float64), "bitmask"), "'w': its values are not 45 of the type"),
        (forge("values", put(0, -128), "bitmask", "int8"), "'w': a code lies below -127"),
        (forge("values", put(0, 0x88), "bitmask", "int4"), "'w': a code lies below -7"),
        (forge("values", put(-1, 0xF7), "bitmask", "int4"), "'w': the padding behind the last int4"),
        (forge("scale", put(0, 0), "bitmask", "int8"), "'w': a scale is zero, negative or not finite"),
        (forge("scale", put(0, -1), "bitmask", "int8"), "'w': a scale is zero"),
        (forge("scale", put(0, nan), "bitmask", "int8"), "'w': a scale is zero"),
        (forge("scale", lambda x: x[:-1], "bitmask", "int8"), "'w': its scale are not 5"),
        (forge("values", lambda x: x, "factors", rank=4), "'w': 145 values are no factors of rank 4"),
        (forge("values", lambda x: x, "factors", rank=10**9), "'w' has factors of rank 1000000000"),
        (forge("values", put(0, nan), "factors"), "'w': it has NaN or infinite weights"),
    ]:
        refused(tmp_path, raw, message)


def test_a_gap_never_leads_beyond_the_tensor(tmp_path):
    def last(x):
        wide = np.unpackbits(x, bitorder="little")
        wide[:] = 1
        wide[::4] = 0
        return np.packbits(wide, bitorder="little")

    refused(tmp_path, forge("gaps", last, "indices"), "'w': its gaps (lead to|name)|'w': the padding")


def test_an_archive_cannot_explode(valid, tmp_path):
    pieces, manifest, _ = take_apart(valid["dense None archived"])
    bomb = zlib.compress(bytes(10**8), 9)
    for packed in (bomb, bomb[: len(bomb) // 2], b"", b"\x00" * 40):
        raw = np.frombuffer(packed, np.uint8)
        manifest["tensors"]["w"]["digest"] = tensor.digest({"values": raw})
        pieces["w#values"] = {"dtype": "U8", "shape": [len(raw)], "data_offsets": [0, len(raw)]}
        refused(tmp_path, assemble(pieces, manifest, packed), "'w': its archive")
    manifest["tensors"]["w"]["parts"]["values"]["shape"] = [10**9]
    refused(tmp_path, assemble(pieces, manifest, b"\x00" * 40), "'w': its archived part values claims more")


def test_a_declared_size_over_the_limit_is_refused_before_memory_is_taken(tmp_path):
    raw = forge("gaps", lambda x: x, "indices", shape=[2**20, 2**20], stored=45)
    refused(tmp_path, raw, "take 4398046511104 bytes, the limit is")
    for codec in models.CODECS:  # an axis of 2^48 and one of none
        raw = formats.save(
            tmp_path / "e.safetensors", {"w": np.zeros((3, 0), np.float32)}, codec, overwrite=True
        ).read_bytes()
        pieces, manifest, data = take_apart(raw)
        manifest["tensors"]["w"]["shape"] = [2**48, 0]
        (tmp_path / "e.safetensors").write_bytes(assemble(pieces, manifest, data))
        formats.verify(tmp_path / "e.safetensors")
    path = formats.save(tmp_path / "m.safetensors", {"w": np.ones((100, 100), np.float32)})
    with pytest.raises(FormatError, match="take 40000 bytes, the limit is 1000"):
        formats.open(path, limit=1000)


def test_only_regular_files_are_opened(tmp_path):
    with pytest.raises(FormatError, match="no regular file"):
        formats.open(tmp_path)
    with pytest.raises(FormatError, match="no regular file"):
        formats.open("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="no regular file"):
        formats.open(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="loop"):
        formats.open(tmp_path / "loop")


def test_truncation_anywhere_is_noticed(valid, tmp_path):
    for raw in valid.values():
        for length in {*range(0, len(raw), 37), *range(len(raw) - 20, len(raw))}:
            refused(tmp_path, raw[:length])


@pytest.mark.long
@pytest.mark.parametrize("count", [10_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_no_mutation_yields_other_weights_silently(count, valid, tmp_path):
    """FAULTS 41: files with a few bytes changed, exchanged, cut out or put in."""
    rng = random.Random(count)
    path, unnoticed = tmp_path / "mutant.safetensors", 0
    expected = {}
    for name, raw in valid.items():
        path.write_bytes(raw)
        expected[name] = formats.load(path)[0]["w"].tobytes()
    names = list(valid)
    for number in range(count):
        name = names[number % len(names)]
        raw = mutate(bytearray(valid[name]), rng)
        path.write_bytes(raw)
        try:
            params, _ = formats.load(path, limit=2**24)
        except FormatError:
            continue
        unnoticed += 1
        assert params["w"].tobytes() == expected[name], (name, number)
    assert unnoticed < count / 100  # spaces behind the header, and changes that undo each other


def mutate(raw: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(raw))
        kind = rng.randrange(5)
        if kind == 0:
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            raw[at] = rng.randrange(256)
        elif kind == 2:
            del raw[at : at + rng.randrange(1, 9)]
        elif kind == 3:
            raw[at:at] = rng.randbytes(rng.randrange(1, 9))
        else:
            other = rng.randrange(len(raw))
            raw[at], raw[other] = raw[other], raw[at]
        if not raw:
            return bytes(raw)
    return bytes(raw)
