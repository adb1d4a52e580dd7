"""Compressed-sensing pruning, after Zhen et al. (2021): induce sparsity and reduce the compression error, as one
problem.

Training solves min L(W) + lambda T(W), where T, the compression error, is how far W is from what will be stored. Three
choices, each a value, make a method of it:

- where the *iterate* lives: `dual()` trains the projection of a dense shadow; `trimmed()` shrinks the weights
  themselves, all but those that will stay; `ista()` shrinks all of them, with lambda under control;
- how `trimmed` and `ista` *shrink*: `decoupled()`, one threshold for all, or in the rule's `metric()`;
- the path of the budget: one ramp down from dense, or several `cycles` of compressing and decompressing.
"""

import itertools

from csp import schedules
from csp.methods.dual import dual
from csp.methods.method import Iterate, Method, clock_for


def compressed_sensing(
    steps: int,
    iterate: Iterate | None = None,
    begin: float = 0.05,
    full: float = 0.5,
    freeze: float = 0.9,
    cycles: int = 1,
    every: int | None = None,
) -> Method:
    """Dense until `begin`, compression until `freeze`, then a fixed support: fractions of the training.

    Args:
      steps: the length of training.
      iterate: `dual()`, the default, `trimmed()` or `ista()`.
      begin: the end of the dense warm-up.
      full: where the budget is reached; from here to `freeze` the support still lives, at full sparsity.
      freeze: the last projection; nothing comes back to life after it.
      cycles: how many times the budget is ramped down from dense.
      every: steps between two refreshes of the support; a hundredth of the training by default, at most 40.
    """
    if not 0 <= begin <= full <= freeze <= 1:
        raise ValueError(f"compressed_sensing needs 0 <= begin <= full <= freeze <= 1, got {begin}, {full}, {freeze}")
    if cycles < 1:
        raise ValueError(f"compressed_sensing needs cycles >= 1, got {cycles}")
    clock = clock_for(steps, begin, freeze, every, most=40)
    plain = Method("compressed_sensing", steps, clock, _teeth(begin * steps, full * steps, cycles))
    return (iterate or dual())(plain)


def _teeth(begin: float, end: float, cycles: int) -> schedules.Schedule:
    """`cycles` cubic ramps from 0 to 1, one after the other; 1 after the last. No ramp is shorter than a step."""
    edges = [round(begin + (end - begin) * i / cycles) for i in range(cycles + 1)]
    edges = sorted(set(edges)) if edges[-1] > edges[0] else edges[:2]
    ramps = [schedules.cubic(1.0, 0, b - a) for a, b in itertools.pairwise(edges)]
    return schedules.joined([schedules.constant(0.0), *ramps], edges[:-1])
