"""csp: compressed-sensing pruning for JAX.

The public names, each imported when it is first used: reading a model file must not wait for jax.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csp import budgets as budgets
    from csp import formats as formats
    from csp import lowrank as lowrank
    from csp import methods as methods
    from csp import metrics as metrics
    from csp import schedules as schedules
    from csp import select as select
    from csp import shrinkage as shrinkage
    from csp import solve as solve
    from csp import structures as structures
    from csp.oneshot import compress as compress
    from csp.report import density as density
    from csp.report import report as report
    from csp.report import verify as verify
    from csp.rules import BudgetError as BudgetError
    from csp.rules import Rule as Rule
    from csp.sparsify import sparsify as sparsify
    from csp.state import settle as settle

MODULES = ["budgets", "formats", "lowrank", "methods", "metrics"]
MODULES += ["schedules", "select", "shrinkage", "solve", "structures"]
HOMES = {
    "compress": "oneshot",
    "density": "report",
    "report": "report",
    "verify": "report",
    "BudgetError": "rules",
    "Rule": "rules",
    "settle": "state",
    "sparsify": "sparsify",
}
__all__ = [*MODULES, *HOMES]  # pyrefly: ignore[unsupported-dunder-all]


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return importlib.import_module(f"csp.{name}")
    if name not in HOMES:
        raise AttributeError(f"module 'csp' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"csp.{HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(types.ModuleType):
    """Importing the file csp/sparsify.py must not put the module where the function `csp.sparsify` is expected."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in HOMES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
