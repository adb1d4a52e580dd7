"""How the library is built: one wheel for every Python, no stale code, no instruction where it does not belong."""

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from csp.runtime import native

ROOT = Path(__file__).parent.parent.parent
NATIVE = ROOT / "csp" / "runtime" / "native"
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("csp_build", NATIVE.parent / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_digests_are_the_same(build):
    assert build.source_digest(NATIVE) == native.source_digest(NATIVE)


@pytest.mark.long
@needs_compiler
def test_warnings_are_errors(build, tmp_path):
    build.compile_library(NATIVE, tmp_path / "k.so", ("-Werror",))
    assert (tmp_path / "k.so").stat().st_size > 10_000


def test_a_compiler_that_fails_is_an_error_that_pip_survives(build, tmp_path):
    with pytest.raises(build.CompileError, match="false failed"):
        build.compile_library(NATIVE, tmp_path / "k.so", compiler="false")


@pytest.mark.long
@needs_compiler
@pytest.mark.skipif(not shutil.which("nm"), reason="no nm")
def test_sets_share_no_function_and_export_none(build, tmp_path):
    """A function that two sets share is taken from one of them: the others would run its instructions."""
    build.compile_library(NATIVE, tmp_path / "k.so")
    said = subprocess.run(["nm", "-D", "--defined-only", str(tmp_path / "k.so")], capture_output=True, text=True)
    names = {line.split()[-1] for line in said.stdout.splitlines()}
    assert {name for name in names if name.startswith("csp_")} == {
        "csp_kernels",
        "csp_source",
        "csp_count",
        "csp_fill",
        "csp_fill_dense",
    }
    whole = subprocess.run(["nm", str(tmp_path / "k.so")], capture_output=True, text=True).stdout
    assert not [line for line in whole.splitlines() if line.split()[-2:-1] in (["W"], ["V"], ["u"]) and "csp" in line]


@needs_compiler
def test_the_portable_file_has_no_wide_instruction(build, tmp_path):
    if not shutil.which("objdump"):
        pytest.skip("no objdump")
    for name in ("portable.cpp", "library.cpp"):
        flags = [*build.FLAGS, '-DCSP_SOURCE=""', "-c", str(NATIVE / name), "-o", str(tmp_path / "o.o")]
        subprocess.run(["c++", *flags], check=True, capture_output=True)
        code = subprocess.run(["objdump", "-d", str(tmp_path / "o.o")], capture_output=True, text=True).stdout
        assert "zmm" not in code
        assert "ymm" not in code


@pytest.mark.slow
@needs_compiler
def test_a_wheel_serves_every_python_and_replaces_a_stale_library(tmp_path):
    """Needs the network or a mirror for setuptools."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", "runs", "data", ".venv", "*.so"))
    stale = tree / "build" / "lib.linux-x86_64-cpython-311" / "csp" / "runtime"
    stale.mkdir(parents=True)
    (stale / "_kernels.so").write_bytes(b"stale")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(tree)], check=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert "-py3-none-" in wheel.name
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
        assert packed.read("csp/runtime/_kernels.so")[:4] == b"\x7fELF"
    assert {f"csp/runtime/native/{path.name}" for path in NATIVE.iterdir()} <= names


@pytest.mark.slow
@needs_compiler
def test_kernels_and_packing_are_clean_under_sanitizers(build, tmp_path):
    """AddressSanitizer and UndefinedBehaviorSanitizer watch the tests of the kernels, and 2,000 spoiled matrices."""
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g")
    build.compile_library(NATIVE, tmp_path / "_kernels.so", flags)
    asan = subprocess.run(["c++", "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    code = f"""
import sys
from pathlib import Path
from csp.runtime import native
native.LIBRARY = Path({str(tmp_path / "_kernels.so")!r})
native.source_digest = lambda folder: {build.source_digest(NATIVE)!r}
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", {str(Path(__file__).parent / "test_kernels.py")!r},
    {str(Path(__file__).parent / "test_hostile_matrices.py")!r}, "-k", "not without_a_library and not other_sources"]))
"""
    environment = {"LD_PRELOAD": asan, "ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64-static")),
    reason="needs Debian's g++-aarch64-linux-gnu and qemu-user-static",
)
def test_arm_gives_the_same_bits(build, tmp_path):
    """The portable kernels for 64-bit Arm, on an emulator, against the same for this machine."""
    found = []
    for compiler, run in (("c++", []), ("aarch64-linux-gnu-g++", ["qemu-aarch64-static"])):
        program = tmp_path / compiler.replace("+", "p")
        sources = [NATIVE / "portable.cpp", Path(__file__).parent / "driver.cpp"]
        others = [] if run else [tmp_path / f"{name}.o" for name in ("avx2", "avx512", "vbmi")]
        for path in others:
            source = NATIVE / f"{path.stem}.cpp"
            flags = [*build.FLAGS, *build.X86[source.name], "-c", str(source), "-o", str(path)]
            subprocess.run([compiler, *flags], check=True)
        flags = [*build.FLAGS, "-I", str(NATIVE), '-DCSP_SOURCE=""', "-static", "-o", str(program)]
        library = NATIVE / "library.cpp"
        subprocess.run([compiler, *flags, *map(str, [*sources, library, *others])], check=True)
        done = subprocess.run([*run, str(program)], capture_output=True, text=True, check=True)
        found.append(done.stdout)
    assert found[0] == found[1] != ""
