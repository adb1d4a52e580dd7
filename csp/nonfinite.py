"""What becomes of a NaN or infinite gradient?"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from csp.rules import named_leaves

POLICIES = ("drop", "skip", "raise")
Step = Callable[[Any], tuple[Any, Any]]


def finite(g: jax.Array) -> jax.Array:
    """The gradient with zeros for NaN and infinity."""
    return jnp.where(jnp.isfinite(g), g, jnp.zeros((), g.dtype))


def guarded(policy: str, step: Step, gradients: Any, state: Any) -> tuple[Any, Any]:
    """`step(gradients)` under one of the POLICIES; `state` is what stays where the step is skipped.

    "drop" is the step's own business: cleaning what it reads where it reads it costs no pass.
    """
    if policy == "raise":
        _raise_unless_finite(gradients)
        return step(gradients)
    return _skip_unless_finite(step, gradients, state) if policy == "skip" else step(gradients)


def _skip_unless_finite(step: Step, gradients: Any, state: Any) -> tuple[Any, Any]:
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradients)] or [jnp.ones((), bool)]))
    updates, after = jax.eval_shape(step, gradients)

    def skip(_):
        still = jax.tree.map(jnp.zeros_like, updates)
        same = jax.tree.map(lambda x, then: jnp.asarray(x, then.dtype), state, after)  # some moments widen on first use
        return still, same._replace(skipped=state.skipped + 1)

    return lax.cond(finite, step, skip, gradients)


def _raise_unless_finite(gradients: Any) -> None:
    names = [name for name, _ in named_leaves(gradients)]
    bad = [jnp.any(~jnp.isfinite(g)) for g in jax.tree.leaves(gradients)]
    if any(isinstance(b, jax.core.Tracer) for b in bad):
        jax.debug.callback(lambda *flags: _complain(names, flags), *bad)
    else:
        _complain(names, bad)


def _complain(names: list[str], bad: Any) -> None:
    guilty = [repr(name) for name, flag in zip(names, bad, strict=True) if np.any(flag)]
    if guilty:
        raise ValueError(
            f"NaN or infinite gradients in {', '.join(guilty[:4])}{' and others' if len(guilty) > 4 else ''}: "
            'clip them, lower the learning rate, or skip such steps with nonfinite="skip"'
        )
