"""Where the wrapper cannot stand, it says so, and where it can instead."""

import jax.numpy as jnp
import optax
import pytest

import csp
from csp import Rule, methods, structures

RULE = Rule("w", structures.entries(), sparsity=0.75)
PARAMS = {"w": jnp.arange(1.0, 33.0).reshape(8, 4), "b": jnp.ones(4)}


def sparse(inner, *rules):
    return csp.sparsify(inner, *(rules or (RULE,)), method=methods.gradual(6))


def parted(inner):
    """An optimizer that is complete for the vector only."""
    return sparse(
        optax.partition({"m": inner, "v": optax.sgd(0.1)}, {"w": "m", "b": "v"}),
        Rule("b", structures.entries(), sparsity=0.5),
        RULE,
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: optax.chain(sparse(optax.sgd(1.0)), optax.scale(0.1)), "follows sparsify"),
        (lambda: optax.named_chain(("a", sparse(optax.sgd(1.0))), ("b", optax.scale(0.1))), "follows sparsify"),
        (lambda: sparse(optax.scale_by_adam()), "uphill"),
        (lambda: parted(optax.scale_by_adam()), "updates of 'w' point uphill"),
        (lambda: sparse(optax.MultiSteps(optax.sgd(0.1), 2)), "goes around the whole"),
        (lambda: sparse(optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()), "goes around the whole"),
        (lambda: sparse(sparse(optax.sgd(0.1))), "twice"),
        (lambda: sparse(optax.contrib.schedule_free(optax.sgd(0.1), 0.1)), "averages the weights"),
        (lambda: optax.contrib.schedule_free(sparse(optax.sgd(0.1)), 0.1), "averages the weights"),
        (lambda: sparse(0.1), "wraps an optax optimizer"),
    ],
)
def test_what_would_undo_the_zeros_is_refused(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build().init(PARAMS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "build",
    [
        lambda: optax.chain(optax.clip(1.0), sparse(optax.sgd(1.0))),
        lambda: optax.named_chain(("a", optax.clip(1.0)), ("b", sparse(optax.sgd(1.0)))),
        lambda: sparse(optax.chain(optax.clip(1.0), optax.scale_by_adam(), optax.scale_by_learning_rate(0.1))),
        lambda: optax.MultiSteps(sparse(optax.sgd(0.1)), 2),
        lambda: parted(optax.adam(0.1)),
    ],
)
def test_what_works_is_not(build):
    build().init(PARAMS)
