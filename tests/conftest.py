"""How do the tests compile? Fast, rather than to fast code: they run most programs once, and compile hundreds.

Set before jax starts, also for the processes that tests start. Your own XLA_FLAGS go before these.
"""

import os

os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import pytest


@pytest.fixture
def x64():
    """Oracles in float64."""
    with jax.enable_x64(True):
        yield


def pytest_collection_modifyitems(items) -> None:
    """The longest tests first, so that no worker is left with them at the end."""
    first = ("test_several", "test_runs", "test_language.py")
    items.sort(key=lambda item: not any(name in item.nodeid for name in first))
