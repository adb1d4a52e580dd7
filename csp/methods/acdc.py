"""Alternating compressed / decompressed training, after Peste et al. (2021)."""

import numpy as np

from csp import schedules
from csp.methods.method import Clock, Method, clock_for, truncate


def acdc(steps: int, warmup: float = 0.1, cycles: int = 5, compressed: float = 0.5, finish: float = 0.25) -> Method:
    """Dense warm-up, then `cycles` of a compressed and a dense phase, then compressed to the end.

    A compressed phase begins with the projection; a dense one lifts the mask: what was pruned starts again from zero,
    without momentum.

    Args:
      steps: the length of training.
      warmup: the fraction of the training before the first compressed phase.
      cycles: how many compressed phases before the last.
      compressed: the fraction of each cycle that is compressed.
      finish: the fraction of the training that the last compressed phase takes.
    """
    if cycles < 1 or not 0 < compressed < 1:
        raise ValueError(f"acdc needs cycles >= 1 and 0 < compressed < 1, got {cycles} and {compressed}")
    if warmup + finish > 1:
        raise ValueError(f"acdc has no time for its cycles: warmup + finish <= 1 is needed, got {warmup} and {finish}")
    first, last = (clock_for(steps, x, x).end for x in (warmup, 1 - finish))
    step = np.arange(last + 1)
    phase = (step - first) * cycles / max(last - first, 1) % 1
    progress = ((step >= first) & (phase < compressed)) | (step == last)
    changes = [int(t) for t in np.flatnonzero(np.diff(progress, prepend=False))]
    ramp = schedules.phases([0.0, *(float(progress[t]) for t in changes)], changes)
    return Method("acdc", steps, Clock(tuple(sorted({*changes, last}))), ramp=ramp, project_rank=truncate)
