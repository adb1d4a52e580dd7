"""What does data say about the weights of a finished model? Inputs and gradients on some of it; and pruning by them.

Every criterion is a worth of entries, or a solver that knows the inputs' Gram matrices:

| criterion    | worth of w, or how                                                     |
|--------------|------------------------------------------------------------------------|
| magnitude    | |w|                                                                    |
| taylor       | sqrt(E |g w|)                                                          |
| fisher       | sqrt(E g^2) |w|                                                        |
| activation   | sqrt(E x^2) |w|, after Wanda                                           |
| movement     | -E g w, summed over a unit                                             |
| second_order | SparseGPT's elimination; of whole units, as admm                       |
| admm         | min |X W' - X W|^2: alternating directions, then conjugate gradients   |

Of rank, a criterion is what an error in each input's row costs: nothing known (magnitude), the Fisher information of
the row, the input's mean square (activation), or the whole Gram matrix (second_order, admm: whitened).
"""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import csp
from csp import lowrank, metrics, oneshot
from csp.lowrank import Factors
from csp.rules import Rule, bind, named_leaves
from csp.structures import NofM
from csp.train.config import ConfigError

GRADIENTS = ("taylor", "fisher", "movement")
GRAMS = ("activation", "second_order", "admm")


class Model(NamedTuple):
    """What calibration needs of a model: losses(params, batch) -> nats for each label, grams(params, batch)."""

    losses: Callable[[Any, Any], Array]
    grams: Callable[[Any, Any], dict[str, Array]]


class Gradients(NamedTuple):
    """Sums over rows of data: g^2, |g w| and -g w, each shaped as the parameters."""

    fisher: Any
    taylor: Any
    movement: Any


def prune(model: Model, params: Any, batches: Sequence[Any], criterion: str, rules: tuple[Rule, ...]) -> Any:
    """The parameters with the rules' budgets, by a criterion on these batches."""
    paths = [target.path for target in bind(params, rules)]
    if criterion == "magnitude":
        return csp.compress(params, *rules)
    if criterion in GRADIENTS:
        found = dict(named_leaves(getattr(_gradients(model, params, batches), criterion)))
        root = (lambda x: x) if criterion == "movement" else jnp.sqrt
        size = jnp.abs if criterion == "fisher" else jnp.ones_like
        weights = dict(named_leaves(params))
        if criterion == "movement":
            moved = metrics.movement()
            rules = tuple(dataclasses.replace(rule, metric=moved) if rule.structure else rule for rule in rules)
        return csp.compress(params, *rules, worth={p: root(found[p]) * size(weights[p]) for p in paths})
    seen = _grams(model, params, batches)
    return csp.compress(params, *rules, gram={p: seen[p] for p in paths}, solver=_SOLVERS[criterion])


def factor(
    model: Model, params: Any, batches: Sequence[Any], criterion: str, saving: float, norms: dict[str, float] | None
) -> tuple[Any, dict[str, float]]:
    """The next rung of a ladder: factors that save this fraction of the bytes, and the norms for the rung after it.

    `check_saving` has let the fraction pass.
    """
    if criterion == "fisher":
        gram = dict(named_leaves(_rows(_gradients(model, params, batches).fisher)))
    elif criterion in GRAMS:
        gram = _grams(model, params, batches)
        gram = {path: jnp.diag(g) for path, g in gram.items()} if criterion == "activation" else gram
    elif criterion == "magnitude":
        gram = None
    else:
        others = ", ".join(("magnitude", "fisher", *GRAMS))
        raise ConfigError(f"sparsity.metric {criterion!r} says nothing of directions: {others} do")
    params, _, norms = lowrank.descend(params, 1 - saving, gram=gram, norms=norms)
    return params, norms


def check_saving(params: Any, saving: float) -> None:
    """Raises a ConfigError where no ranks save so much, before anything is looked at."""
    try:
        lowrank.check(params, 1 - saving)
    except ValueError as error:
        raise ConfigError(f"sparsity.target {saving:g} leaves {1 - saving:g} of the bytes: {error}") from None


_last: dict[str, tuple[bytes, Any]] = {}  # what was seen last of each kind: the cells of a grid ask again


def _remembered(what: str, params: Any, batches: Sequence[Any], look: Callable[[], Any]) -> Any:
    hashed = hashlib.blake2b(digest_size=16)
    for x in jax.tree.leaves((params, list(batches))):
        hashed.update(str(np.shape(x)).encode() + np.asarray(x).tobytes())
    if _last.get(what, (b"",))[0] != hashed.digest():
        _last[what] = (hashed.digest(), look())
    return _last[what][1]


def _gradients(model: Model, params: Any, batches: Sequence[Any]) -> Gradients:
    def look() -> Gradients:
        total = _nothing(params)
        for batch in batches:
            total = _more(model.losses, total, params, batch)
        return total

    return _remembered("gradients", params, batches, look)


def _nothing(params: Any) -> Gradients:
    return Gradients(*(jax.tree.map(jnp.zeros_like, params) for _ in Gradients._fields))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _more(losses: Callable, total: Gradients, params: Any, batch: Any) -> Gradients:
    """Row by row: a row is what the expectation is over."""

    def add(total: Gradients, row: Any) -> tuple[Gradients, None]:
        grads = jax.grad(lambda p: jnp.sum(losses(p, jax.tree.map(lambda x: x[None], row))))(params)
        along = jax.tree.map(jnp.multiply, grads, params)
        return Gradients(
            jax.tree.map(lambda f, g: f + g * g, total.fisher, grads),
            jax.tree.map(lambda t, a: t + jnp.abs(a), total.taylor, along),
            jax.tree.map(jnp.subtract, total.movement, along),
        ), None

    return jax.lax.scan(add, total, batch)[0]


def _grams(model: Model, params: Any, batches: Sequence[Any]) -> dict[str, Array]:
    def look() -> dict[str, Array]:
        total: dict[str, Array] = {}
        for batch in batches:
            for path, gram in model.grams(params, batch).items():
                total[path] = total[path] + gram if path in total else gram
        return total

    return _remembered("grams", params, batches, look)


def _rows(tree: Any) -> Any:
    """Sums over the outputs of each matrix; of two factors, over those of the first."""

    def rows(w: Any) -> Any:
        w = w.u if isinstance(w, Factors) else w
        return jnp.sum(w, -1) if w.ndim > 1 else w

    return jax.tree.map(rows, tree, is_leaf=lambda x: isinstance(x, Factors))


def _second_order(w: Array, gram: Array, project: oneshot.Projection) -> Array:
    single = isinstance(project.structure, NofM) or not project.structure.pooled
    return (oneshot.sparsegpt if single else oneshot.admm)(w, gram, project)


_SOLVERS = {"activation": oneshot.wanda, "second_order": _second_order, "admm": oneshot.admm}
