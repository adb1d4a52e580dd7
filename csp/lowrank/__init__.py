"""Which few directions of a matrix are worth keeping, how many, and how to get there while training."""

from csp.lowrank.factors import (
    Factors,
    apply,
    dense,
    factor,
    factor_randomised,
    factor_scaled,
    factor_whitened,
    spectrum,
    truncate,
    truncate_whitened,
)
from csp.lowrank.ladder import Rung, check, descend, ladder
from csp.lowrank.ranks import ranks_for_budget, worthwhile
from csp.structures import rank_for

__all__ = [
    "Factors",
    "Rung",
    "apply",
    "check",
    "dense",
    "descend",
    "factor",
    "factor_randomised",
    "factor_scaled",
    "factor_whitened",
    "ladder",
    "rank_for",
    "ranks_for_budget",
    "spectrum",
    "truncate",
    "truncate_whitened",
    "worthwhile",
]
