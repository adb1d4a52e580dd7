"""How does one training run deliver a family of sizes?

Down a ladder of budgets: truncate, fine-tune, hand out a model, go on. Each size starts from the factors that
the last one has learned; the dense matrices are factored once and never formed again.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csp.lowrank import factors as low
from csp.lowrank import ranks as budgets
from csp.rules import NOT_BY_DEFAULT, is_matrix, path_names

SELECT = rf"(?!(?i:{NOT_BY_DEFAULT})$).*"


class Rung(NamedTuple):
    """One finished model of a ladder.

    Attributes:
        fraction: the budget asked for, as a fraction of the dense bytes of the selected tensors.
        params: the tuned parameters, with `Factors` in the place of each factored matrix.
        ranks: the rank of each selected tensor by path; min(in, out) says that it is still dense.
        bytes: what the selected tensors take, at most the budget.
    """

    fraction: float
    params: Any
    ranks: dict[str, int]
    bytes: int


def ladder(
    params: Any,
    rungs: Sequence[float],
    tune: Callable[[Any, float], Any],
    select: str = SELECT,
    gram: Mapping[str, Any] | None = None,
) -> Iterator[Rung]:
    """Incremental low rank: at each rung truncate to the budget, tune, and yield the model.

    The ranks of a rung come from one global budget (`ranks_for_budget`) over the current spectra, each divided by
    the norm that its tensor had before the first rung. A tensor stays dense while the budget has room for more
    than its last worthwhile rank.

    No optimizer state outlives a rung: its moments were measured in a basis that truncation rotates and shortens.
    Let `tune` make a fresh one, with a short warm-up of the learning rate.

    Args:
        params: a pytree whose matrices are [..., in, out].
        rungs: descending fractions in (0, 1) of the dense bytes of the selected tensors.
        tune: (params, fraction) -> params, which trains as it likes and keeps the structure; `apply` runs a matrix
            and its factors alike. For a ladder without training: `lambda params, fraction: params`.
        select: the matrices to factor, a regular expression for the whole of a path joined by "/"; by default all
            but embeddings, positions and output layers. What is no matrix is never selected.
        gram: X^T X by path for every selected tensor, or its diagonal (see `factor_whitened`).

    Returns:
        An iterator of `Rung`. Bad arguments are refused at the call, before anything is trained.

    Example:
        >>> params = {"layer": {"kernel": jnp.eye(8), "bias": jnp.zeros(8)}}
        >>> for rung in ladder(params, (0.75, 0.5), lambda params, fraction: params, select="layer/.*"):
        ...     print(rung.fraction, rung.ranks, rung.bytes)
        0.75 {'layer/kernel': 3} 192
        0.5 {'layer/kernel': 2} 128
    """
    rungs = tuple(rungs)
    _check_rungs(rungs)
    tensors = _selected(params, select)
    grams = _grams(gram, tensors)
    total = sum(map(budgets.dense_bytes, tensors.values()))
    budgets.check_budget(tensors, budgets.share(rungs[-1], total))
    return _descend(params, rungs, tune, tensors, grams)


def _grams(gram: Mapping[str, Any] | None, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    missing = [] if gram is None else [path for path in tensors if path not in gram]
    if missing:
        raise ValueError(f"no Gram matrix for {missing}: give one for every selected tensor, or select fewer")
    return dict.fromkeys(tensors) if gram is None else gram


def _descend(params, rungs, tune, tensors, gram) -> Iterator[Rung]:
    norms = None
    for fraction in rungs:
        params, ranks, norms = _descended(params, fraction, tensors, gram, norms)
        params = _tuned(tune, params, fraction)
        yield Rung(fraction, params, ranks, sum(x.nbytes for x in jax.tree.leaves(_pick(params, tensors))))


def descend(
    params: Any,
    fraction: float,
    select: str = SELECT,
    gram: Mapping[str, Any] | None = None,
    norms: Mapping[str, float] | None = None,
) -> tuple[Any, dict[str, int], dict[str, float]]:
    """One rung of a ladder, for a training loop of one's own: (params, ranks by path, norms for the next rung).

    `norms` are those of the tensors before the first rung; the other arguments are those of `ladder`.
    """
    tensors = check(params, fraction, select)
    return _descended(params, fraction, tensors, _grams(gram, tensors), norms)


def check(params: Any, fraction: float, select: str = SELECT) -> dict[str, jax.ShapeDtypeStruct]:
    """The tensors of a rung, by path; a ValueError where no ranks take so few bytes, known from shapes alone."""
    _check_rungs((fraction,))
    tensors = _selected(params, select)
    total = sum(map(budgets.dense_bytes, tensors.values()))
    budgets.check_budget(tensors, budgets.share(fraction, total))
    return tensors


def _descended(params, fraction, tensors, gram, norms):
    spectra = _spectra(params, tensors, gram)
    norms = norms or {path: float(np.linalg.norm(s)) or 1.0 for path, s in spectra.items()}
    total = sum(map(budgets.dense_bytes, tensors.values()))
    worth = {path: s / norms[path] for path, s in spectra.items()}
    ranks = budgets.ranks_for_budget(worth, tensors, budgets.share(fraction, total))
    return _truncated(params, ranks, gram), ranks, norms


def _spectra(params: Any, tensors: Mapping[str, Any], gram: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {
        path: np.asarray(low.spectrum(leaf, gram[path]), np.float64) for path, leaf in _pick(params, tensors).items()
    }


def _truncated(params: Any, ranks: Mapping[str, int], gram: Mapping[str, Any]) -> Any:
    shrunk = [
        _shrink(leaf, ranks[name], gram[name]) if name in ranks else leaf
        for _, name, leaf in path_names(params, _is_factors)
    ]
    return jax.tree.unflatten(jax.tree.structure(params, is_leaf=_is_factors), shrunk)


def _shrink(w: Any, rank: int, gram: Any) -> Any:
    if isinstance(w, low.Factors):
        return low.truncate(w, rank) if gram is None else low.truncate_whitened(w, rank, gram)
    if rank == min(w.shape[-2:]):
        return w
    return low.factor(w, rank) if gram is None else low.factor_whitened(w, rank, gram)


def _tuned(tune: Callable[[Any, float], Any], params: Any, fraction: float) -> Any:
    tuned = tune(params, fraction)
    given, got = jax.tree.structure(params), jax.tree.structure(tuned)
    if given != got:
        raise ValueError(f"tune must return the parameters with the structure it was given, {given}, not {got}")
    return tuned


def _selected(params: Any, select: str) -> dict[str, jax.ShapeDtypeStruct]:
    matrices = {
        path: x
        for path, x in _by_path(params).items()
        if is_matrix(getattr(x, "shape", ())) and jnp.issubdtype(x.dtype, jnp.floating)
    }
    selected = {path: x for path, x in matrices.items() if re.fullmatch(select, path)}
    if not selected:
        nearest = difflib.get_close_matches(select, matrices, cutoff=0.0)
        raise ValueError(f"select {select!r} matches no matrix; the nearest are {', '.join(nearest) or 'none'}")
    for path, x in selected.items():
        if isinstance(x, low.Factors) and not budgets.worthwhile(x.shape, x.rank):
            raise ValueError(
                f"factors of rank {x.rank} of {path!r} {x.shape} save nothing: replace them by `dense(factors)`"
            )
    return {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in selected.items()}


def _pick(params: Any, paths: Mapping[str, Any]) -> dict[str, Any]:
    return {path: leaf for path, leaf in _by_path(params).items() if path in paths}


def _by_path(params: Any) -> dict[str, Any]:
    return {name: leaf for _, name, leaf in path_names(params, _is_factors)}


def _is_factors(x: Any) -> bool:
    return isinstance(x, low.Factors)


def _check_rungs(rungs: tuple[float, ...]) -> None:
    if not rungs or not all(0 < rung < 1 for rung in rungs):
        raise ValueError(f"rungs {rungs}: give one or more fractions of the dense bytes, each in (0, 1)")
    if any(after >= before for before, after in itertools.pairwise(rungs)):
        raise ValueError(f"rungs {rungs} must descend: what was truncated does not grow back, sort them")
