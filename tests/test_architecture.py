"""The tree is the architecture: imports point one way, the core is light, files stay short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = (
    "select",
    "tiling",
    "adding",
    "structures",
    "metrics",
    "shrinkage",
    "schedules",
    "budgets",
    "rules",
    "moments",
    "methods",
    "sharding",
    "nonfinite",
    "placement",
    "state",
    "views",
    "driver",
    "sparsify",
    "solve",
    "lowrank",
    "oneshot",
    "formats",
    "report",
    "speech",
    "runtime",
    "models",
    "train",
    "cli",
)
FILES = sorted((ROOT / "csp").rglob("*.py"))
CORE = {"jax", "optax", "numpy", "ml_dtypes", "csp"}
MORE = {"models": {"flax"}, "runtime": {"setuptools"}, "train": {"flax"}, "speech": {"espeakng_loader"}}
LAZY = {"onnxruntime", "sklearn", "soundfile", "soxr", "sentencepiece", "matplotlib", "tensorboardX"}


def _part(path: Path) -> str:
    return path.relative_to(ROOT / "csp").parts[0].removesuffix(".py")


def _imports(path: Path):
    """(module, is it at the top of the file) for every import."""
    tree = ast.parse(path.read_text())
    top = set(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "csp":
            yield from ((f"csp.{alias.name}", node in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, node in top


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    part = _part(path)
    if part in ("__init__", "__main__"):
        return
    for module, _ in _imports(path):
        if module.startswith("csp."):
            target = module.split(".")[1]
            assert target == part or ORDER.index(target) < ORDER.index(part), f"{part} must not import {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_not_core_is_imported_where_it_is_needed(path):
    for module, at_top in _imports(path):
        name = module.split(".")[0]
        if name not in sys.stdlib_module_names:
            allowed = CORE | MORE.get(_part(path), set())
            assert name in allowed or (name in LAZY and not at_top), f"{path.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short_and_say_what_question_they_answer(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "no first lines"
    assert len(text.splitlines()) <= 320


def test_import_brings_no_heavy_library():
    """Nor does any name of it."""
    heavy = ("flax", "orbax", "sklearn", "matplotlib", "soundfile")
    code = f"import sys, csp; [getattr(csp, n) for n in csp.__all__]; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
