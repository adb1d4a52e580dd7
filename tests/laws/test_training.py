"""What holds at every step and at the end of every training, whatever the structure, the metric and the method."""

import jax
import numpy as np
import pytest
import trial

import csp
from csp import structures


@pytest.fixture(params=trial.METHODS, scope="module")
def tried(request) -> trial.Trial:
    return trial.trial(request.param)


def test_the_budget_is_met_to_the_integer(tried):
    params, _ = tried.history[-1]
    for target in tried.targets:
        living = trial.living_units(target.rule.structure, params[target.path])
        kept = target.kept
        if isinstance(target.rule.structure, structures.NofM):
            kept = np.broadcast_to(np.asarray(kept)[..., 0], living.shape)
        np.testing.assert_array_equal(living, kept, err_msg=f"{tried.name} {target.path} {target.rule.metric}")
