"""How is the library of kernels built? By `pip install` with a C++ compiler; without one csp is slow, not broken.

Every source is compiled anew each time, with flags of its own, and linked under a name without Python's version. Used
by pyproject.toml and by tests, and imported without csp.
"""

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

FLAGS = ["-std=c++17", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno", "-fno-exceptions", "-fno-rtti"]
FLAGS += ["-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi", "-Wno-unused-function"]
FLAGS += ["-Wno-maybe-uninitialized"]  # GCC 12 suspects its own headers
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mprefer-vector-width=512"]
SOURCES = {"library.cpp": [], "portable.cpp": []}
X86 = {"avx2.cpp": ["-mavx2"], "avx512.cpp": AVX512, "vbmi.cpp": [*AVX512, "-mavx512vbmi", "-mavx512vbmi2"]}


def compile_library(folder: Path, out: Path, more: tuple[str, ...] = (), machine: str = "", compiler: str = "") -> None:
    """The shared library `out` of the sources in `folder`; `more` are flags for every one of them."""
    compiler = compiler or os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), "")
    if not compiler:
        raise CompileError("no C++ compiler: csp will run its slow kernels of NumPy")
    x86 = (machine or platform.machine()).lower() in ("x86_64", "amd64")
    define = f'-DCSP_SOURCE="{source_digest(folder)}"'
    with tempfile.TemporaryDirectory() as scratch:
        objects = []
        for name, flags in (SOURCES | (X86 if x86 else {})).items():
            objects.append(str(Path(scratch, name).with_suffix(".o")))
            _call(compiler, *FLAGS, *flags, *more, define, "-c", str(folder / name), "-o", objects[-1])
        _call(compiler, "-shared", *more, *objects, "-o", str(out))


def source_digest(folder: Path) -> str:
    """Of every file of the folder: a library built of other sources is not loaded."""
    import hashlib

    hashed = hashlib.blake2b(digest_size=16)
    for path in sorted([*folder.glob("*.cpp"), *folder.glob("*.h")]):
        hashed.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return hashed.hexdigest()


def _call(compiler: str, *arguments: str) -> None:
    done = subprocess.run([*compiler.split(), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise CompileError(f"{compiler} failed: {done.stderr.strip()[-2000:]}")


class Build(build_ext):
    """The extension "csp.runtime._kernels", which is no Python module but a library that ctypes loads."""

    def build_extension(self, ext) -> None:
        out = Path(self.get_ext_fullpath(ext.name))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.unlink(missing_ok=True)
        compile_library(Path(ext.sources[0]).parent, out)

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split("."))) + ".so"

    def get_export_symbols(self, ext) -> list[str]:
        return []


class Wheel(bdist_wheel):
    """One wheel serves every Python of a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]
