"""What becomes of a NaN or infinite gradient, or of activations that are?"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from csp.rules import named_leaves

POLICIES = ("drop", "skip", "raise")
Step = Callable[[Any, Any], tuple[Any, Any]]


def finite(g: jax.Array) -> jax.Array:
    """The array with zeros for NaN and infinity."""
    return jnp.where(jnp.isfinite(g), g, jnp.zeros((), g.dtype))


def guarded(policy: str, step: Step, gradients: Any, activations: Any, state: Any) -> tuple[Any, Any]:
    """`step(gradients, activations)` under one of the POLICIES; `state` is what stays where the step is skipped.

    "drop" is the step's own business: cleaning what it reads where it reads it costs no pass.
    """
    if policy == "raise":
        _raise_unless_finite(gradients, activations)
        return step(gradients, activations)
    if policy == "skip":
        return _skip_unless_finite(step, gradients, activations, state)
    return step(gradients, activations)


def _skip_unless_finite(step: Step, gradients: Any, activations: Any, state: Any) -> tuple[Any, Any]:
    seen = jax.tree.leaves((gradients, activations))
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in seen] or [jnp.ones((), bool)]))
    updates, after = jax.eval_shape(step, gradients, activations)

    def skip(*_):
        still = jax.tree.map(jnp.zeros_like, updates)
        same = jax.tree.map(lambda x, then: jnp.asarray(x, then.dtype), state, after)  # some moments widen on first use
        return still, same._replace(skipped=state.skipped + 1)

    return lax.cond(finite, step, skip, gradients, activations)


def _raise_unless_finite(gradients: Any, activations: Any) -> None:
    seen = [(f"the gradient of {name!r}", g) for name, g in named_leaves(gradients)]
    seen += [(f"the activations of {name!r}", a) for name, a in named_leaves(activations)]
    names, bad = [name for name, _ in seen], [jnp.any(~jnp.isfinite(x)) for _, x in seen]
    if any(isinstance(b, jax.core.Tracer) for b in bad):
        jax.debug.callback(lambda *flags: _complain(names, flags), *bad)
    else:
        _complain(names, bad)


def _complain(names: list[str], bad: Any) -> None:
    guilty = [name for name, flag in zip(names, bad, strict=True) if np.any(flag)]
    if guilty:
        raise ValueError(
            f"NaN or infinity in {', '.join(guilty[:4])}{' and others' if len(guilty) > 4 else ''}: "
            'clip them, lower the learning rate, or skip such steps with nonfinite="skip"'
        )
