"""FAULTS 14: a file that any released version wrote is read for ever, bit for bit.

`python tests/formats/test_golden.py` writes the files of this version; those of earlier ones are never written again.
"""

import hashlib
import json
from pathlib import Path

import models
import numpy as np
import pytest

from csp import formats

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("*.safetensors"))


def digests(path: Path) -> dict[str, str]:
    """Of the bytes of each tensor, its dtype and its shape."""
    with formats.open(path) as file:
        found = {name: file.decode(name) for name in file.names}
    return {name: _digest(w) for name, w in found.items()}


def _digest(w) -> str:
    arrays = w if isinstance(w, tuple) else (w,)
    said = "".join(f"{x.dtype} {x.shape} " for x in arrays).encode()
    return hashlib.blake2b(
        said + b"".join(np.ascontiguousarray(x).tobytes() for x in arrays), digest_size=16
    ).hexdigest()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_old_files_are_read_bit_for_bit(path):
    assert digests(path) == json.loads(path.with_suffix(".json").read_text())


def test_every_codec_and_type_is_among_them():
    rows = [row for path in FILES for row in formats.inspect(path)["tensors"]]
    assert {row["codec"] for row in rows} == {*models.CODECS, "factors"}
    assert {row["values"] for row in rows} == {*models.KINDS, "int8", "int4"}


def write() -> None:
    for archive in (False, True):
        params, codec, values = (
            {"tied": {"again": models.sparse((4, 4))}, "scalar": np.asarray(2.5, np.float32)},
            {},
            {},
        )
        for number, name in enumerate((*models.CODECS, "factors")):
            for kind in (*models.KINDS, "int8", "int4"):
                params[f"{name}-{kind}"] = models.banked(3, 8, 3, 5, seed=number).astype(
                    models.KINDS.get(kind, np.float32)
                )
                codec |= {f"{name}-.*": name}
                values |= {f".*-{kind}": kind}
        params["tied"]["once"] = params["tied"]["again"]
        path = GOLDEN / f"version1{'-archive' if archive else ''}.safetensors"
        formats.save(path, params, codec, {"layers": [1, 2]}, values=values, archive=archive)
        path.with_suffix(".json").write_text(json.dumps(digests(path), indent=1) + "\n")


if __name__ == "__main__":
    write()
