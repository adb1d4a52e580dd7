"""Which sparse x explains y = A x? The classical problem, and the same problem for the layers of a network."""

from csp.solve.convex import lasso
from csp.solve.layer import admm, least_squares_on_support, trimmed_ista
from csp.solve.sparse import lasso_least_squares, niht, omp, recover, trimmed

__all__ = [
    "admm",
    "lasso",
    "lasso_least_squares",
    "least_squares_on_support",
    "niht",
    "omp",
    "recover",
    "trimmed",
    "trimmed_ista",
]
