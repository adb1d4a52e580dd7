"""csp: compressed-sensing pruning for JAX."""

from csp import budgets as budgets
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
from csp.sparsify import settle as settle
from csp.sparsify import sparsify as sparsify
