"""Where can the wrapper stand? Around a complete optimizer, and with nothing after it that rescales what it returns."""

import operator
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp

from csp.rules import Target, named_leaves

_UNDOING = {"schedule_free": "averages", "lookahead": "averages", "mechanize": "rescales"}
_OUTSIDE = "optax.MultiSteps(csp.sparsify(optimizer, ...), every_k_schedule=k)"


def refuse_type(inner: Any) -> None:
    import optax  # here, not above: see csp.sparsify

    if isinstance(inner, optax.MultiSteps):
        raise ValueError(f"gradient accumulation goes around the whole: write {_OUTSIDE}")
    if not (callable(getattr(inner, "init", None)) and callable(getattr(inner, "update", None))):
        raise ValueError(f"sparsify wraps an optax optimizer such as optax.adamw(1e-3), got {inner!r}")


def refuse_optimizer(inner: Any, state: Any, params: Any, targets: Sequence[Target]) -> None:
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
    for target in {target.group: target for target in reversed(targets)}.values():  # the first of each rule
        if _passes_gradients(inner, params, target.index):
            raise ValueError(
                f"the optimizer's updates of {target.path!r} point uphill at full length: its learning rate must not "
                "come later. sparsify wraps the complete optimizer, csp.sparsify(optax.chain(..., "
                "optax.scale_by_learning_rate(1e-3)), ...); to climb, negate the loss"
            )


def refuse_strangers(params: Any) -> None:
    """Functions and the like, which an equinox module has among its leaves."""
    for path, leaf in named_leaves(params):
        if not is_array(leaf):
            raise ValueError(
                f"{path!r} is no array but {leaf!r}: give the arrays alone, such as "
                "eqx.filter(model, eqx.is_inexact_array)"
            )


def is_array(leaf: Any) -> bool:
    """Or a number, which is one without dimensions."""
    return hasattr(leaf, "dtype") or isinstance(leaf, bool | int | float | complex)


def looks_for_nan(state: Any) -> bool:
    """Is the optimizer an `optax.apply_if_finite`, or a chain with one? Elsewhere it guards some parameters alone."""
    links = state if type(state) is tuple else (state,)
    return any(type(link).__name__ == "ApplyIfFiniteState" for link in links)


def refuse_surroundings() -> None:
    """A chain in which something follows, or schedule_free and the like around: all rescale or average the update."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_qualname if frame.f_globals.get("__name__", "").startswith("optax.") else ""
        around = name.split(".")[0]
        if around in _UNDOING:
            raise ValueError(
                f"{around} {_UNDOING[around]} the weights and destroys their zeros: use sparsify without it, and "
                "project an average afterwards with csp.compress"
            )
        if _something_follows(name, frame):
            raise ValueError(
                f"something follows sparsify in this optax.{around} and would rescale its updates, so that no weight "
                "reaches zero: put the whole chain inside, csp.sparsify(optax.chain(...), ...); optimizers of other "
                "parameters stand beside it in optax.partition"
            )
        frame = frame.f_back


def _something_follows(name: str, frame: FrameType) -> bool:
    """Is this the initialisation of a chain, and not at its last link?"""
    if name.startswith("chain.") and name.endswith("<genexpr>"):
        return operator.length_hint(frame.f_locals.get(".0", ())) > 0
    if name.startswith("named_chain.") and "transforms" in frame.f_locals:
        return frame.f_locals.get("name") != frame.f_locals["transforms"][-1][0]
    return False


def _state_names(state: Any) -> set[str]:
    names: set[str] = set()

    def note(node):
        names.add(type(node).__name__)
        return False

    jax.tree.flatten(state, is_leaf=note)
    return names


def _passes_gradients(inner: Any, params: Any, index: int) -> bool:
    """Does a first step on a miniature of the parameters follow the gradient of this one, at its full length?

    A complete optimizer opposes it, or stands still while its learning rate warms up. Whoever maximises follows it in
    small steps. Compiled, so that all but the one parameter's update is dropped.
    """

    def update(small):
        updates, _ = inner.update(small, inner.init(small), small)
        return jnp.mean(jax.tree.leaves(updates)[index].astype(jnp.float32))

    with jax.ensure_compile_time_eval():
        small = jax.tree.map(lambda p: jnp.ones([min(n, 2) for n in jnp.shape(p)], jnp.result_type(p)), params)
        try:
            return float(jax.jit(update)(small)) > 0.3
        except Exception:  # an optimizer that cannot work on the miniature is given the benefit of the doubt
            return False
