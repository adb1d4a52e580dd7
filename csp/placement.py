"""Where can the wrapper stand? Around a complete optimizer, and with nothing after it that rescales what it returns."""

import sys
from typing import Any

import jax
import jax.numpy as jnp

_OUTSIDE = "optax.MultiSteps(csp.sparsify(optimizer, ...), every_k_schedule=k)"


def refuse_type(inner: Any) -> None:
    import optax  # here, not above: see csp.sparsify

    if isinstance(inner, optax.MultiSteps):
        raise ValueError(f"gradient accumulation goes around the whole: write {_OUTSIDE}")
    if not (callable(getattr(inner, "init", None)) and callable(getattr(inner, "update", None))):
        raise ValueError(f"sparsify wraps an optax optimizer such as optax.adamw(1e-3), got {inner!r}")


def refuse_optimizer(inner: Any, state: Any, params: Any) -> None:
    """States of transformations that undo the zeros, and optimizers that are not complete."""
    for name in _state_names(state):
        if name == "MultiStepsState":
            raise ValueError(f"gradient accumulation goes around the whole: write {_OUTSIDE}")
        if name == "SparsifyState":
            raise ValueError("sparsify is wrapped twice: give all rules to one csp.sparsify")
        if name in ("ScheduleFreeState", "LookaheadState"):
            raise ValueError(
                f"{name.removesuffix('State')} averages the weights and destroys their zeros: wrap its base "
                "optimizer alone, and project the average after training with csp.compress"
            )
    if _goes_uphill(inner, params):
        raise ValueError(
            "the optimizer's updates point uphill, so its learning rate must come later: sparsify wraps the complete "
            "optimizer, csp.sparsify(optax.chain(..., optax.scale_by_learning_rate(1e-3)), ...)"
        )


def refuse_surroundings() -> None:
    """A chain in which something follows, or schedule_free and lookahead around: all rescale or average the update."""
    frame = sys._getframe(2)
    while frame is not None:
        module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_qualname
        if module.startswith("optax.") and name.startswith(("schedule_free", "lookahead")):
            raise ValueError(
                f"{name.split('.')[0]} averages the weights and destroys their zeros: use sparsify without "
                "it, and average and project afterwards with csp.compress"
            )
        if module.startswith("optax.") and name.startswith("chain."):
            _refuse_followers(frame.f_locals)
        frame = frame.f_back


def _refuse_followers(chain: dict) -> None:
    links = chain.get("init_fns", ())
    own = [i for i, init in enumerate(links) if getattr(init, "__module__", "").startswith("csp.")]
    if own and own[0] < len(links) - 1:
        raise ValueError(
            "something follows sparsify in this optax.chain and would rescale its updates, so that no weight reaches "
            "zero: put the whole chain inside, csp.sparsify(optax.chain(...), ...)"
        )


def _state_names(state: Any) -> set[str]:
    names: set[str] = set()

    def note(node):
        names.add(type(node).__name__)
        return False

    jax.tree.flatten(state, is_leaf=note)
    return names


def _goes_uphill(inner: Any, params: Any) -> bool:
    """Does a first step on a miniature of the parameters follow the gradient instead of opposing it?"""
    with jax.ensure_compile_time_eval():
        small = jax.tree.map(lambda p: jnp.ones([min(n, 2) for n in jnp.shape(p)], jnp.result_type(p)), params)
        try:
            updates, _ = inner.update(small, inner.init(small), small)
            along = [float(jnp.sum(u.astype(jnp.float32))) for u in jax.tree.leaves(updates)]
        except Exception:  # an optimizer that cannot work on the miniature is given the benefit of the doubt
            return False
    return sum(along) > 0
