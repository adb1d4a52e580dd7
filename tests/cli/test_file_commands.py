"""`csp inspect`, `csp verify` and `csp convert`, as a shell sees them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from csp import formats
from csp.cli import main
from csp.formats import tensor


@pytest.fixture
def model(tmp_path):
    rng = np.random.default_rng(0)
    w = np.where(rng.random((128, 32)) < 0.1, rng.normal(size=(128, 32)), 0).astype(np.float32)
    params = {"encoder": {"kernel": w}, "bias": np.ones(32, np.float32)}
    return formats.save(tmp_path / "m.safetensors", params, "bitmask", {"layers": 2}, about={"family": "f"})


def test_inspect_prints_a_table_and_json(model, capsys):
    assert main(["inspect", str(model)]) == 0
    table = capsys.readouterr().out
    assert "encoder/kernel  128x32" in table
    assert "bitmask f32" in table
    assert main(["inspect", str(model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == formats.inspect(model)


def test_inspect_shows_a_family(model, capsys):
    formats.save(model.parent / "small.safetensors", {"w": np.zeros((9, 9), np.float32)}, about={"family": "f"})
    assert main(["inspect", str(model.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "file",
        "-" * len("small.safetensors"),
        "small.safetensors",
        "m.safetensors",
    ]


def test_verify_says_yes_or_no(model, capsys):
    assert main(["verify", str(model)]) == 0
    assert "2 tensors" in capsys.readouterr().out
    raw = bytearray(model.read_bytes())
    raw[-1] ^= 1
    model.write_bytes(raw)
    assert main(["verify", str(model)]) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "its digest is not that of its bytes" in error


def test_a_family_mixed_from_two_exports_is_refused(model, capsys):
    """FAULTS 39."""
    other = formats.save(model.parent / "other.safetensors", {"w": np.zeros((9, 9), np.float32)}, about={"family": "f"})
    assert main(["verify", str(model.parent)]) == 0
    formats.save(other, {"w": np.zeros((9, 9), np.float32)}, about={"family": "g"}, overwrite=True)
    assert main(["verify", str(model.parent)]) == 5
    assert "mixed from two exports" in capsys.readouterr().err


def test_a_link_in_a_folder_is_refused(model, capsys):
    """FAULTS 17."""
    (model.parent / "link.safetensors").symlink_to(model)
    assert main(["inspect", str(model.parent)]) == 2
    assert "link.safetensors is a link" in capsys.readouterr().err


def test_convert_to_any_codec_and_back(model, capsys):
    small, dense = model.parent / "s.safetensors", model.parent / "d.safetensors"
    assert main(["convert", str(model), "-o", str(small), "--archive"]) == 0
    assert small.stat().st_size < model.stat().st_size
    assert main(["convert", str(small), "-o", str(dense), "--codec", "dense", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["bytes"] == dense.stat().st_size
    params, config = formats.load(model)
    assert np.array_equal(safetensors.numpy.load_file(dense)["encoder/kernel"], params["encoder"]["kernel"])
    assert formats.load(dense)[1] == config == {"layers": 2}
    assert formats.inspect(dense)["about"]["family"] == "f"


def test_convert_keeps_factors_and_the_types_of_numbers(tmp_path):
    rng = np.random.default_rng(0)
    pair = tensor.Pair(*(rng.normal(size=shape).astype(np.float32) for shape in ((32, 3), (3, 24))))
    formats.save(tmp_path / "m.safetensors", {"low": pair, "w": rng.normal(size=(32, 24))}, values="int8")
    assert main(["convert", str(tmp_path / "m.safetensors"), "-o", str(tmp_path / "c.safetensors")]) == 0
    before, after = (formats.inspect(tmp_path / f"{name}.safetensors")["tensors"] for name in "mc")
    assert [(row["codec"], row["values"], row["bytes"]) for row in before] == [
        (row["codec"], row["values"], row["bytes"]) for row in after
    ]
    assert {row["name"]: row["codec"] for row in after}["low"] == "factors"
    assert main(["verify", str(tmp_path / "c.safetensors")]) == 0


def test_misuse_ends_with_2_and_one_line(model, capsys):
    for arguments in (
        ["inspect", "nowhere.safetensors"],
        ["convert", str(model), "-o", str(model)],
        ["convert", str(model), "-o", "nowhere/m.safetensors"],
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith(f"csp {arguments[0]}: ")
    with pytest.raises(FileNotFoundError):
        main(["inspect", "nowhere.safetensors", "--debug"])
    with pytest.raises(SystemExit) as left:
        main(["convert", str(model)])
    assert left.value.code == 2


def test_the_command_is_installed():
    done = subprocess.run([sys.executable, "-m", "csp", "--help"], capture_output=True, text=True, check=True)
    assert all(command in done.stdout for command in ("inspect", "verify", "convert"))
