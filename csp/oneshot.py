"""How is a finished model pruned, without training? Layer by layer, with or without knowledge of the layers' inputs.

With the Gram matrix G = X^T X of a layer's inputs, pruning it is min |X W' - X W|^2 over W' in the budget. A solver is
a function `(w, gram, project) -> w'` of float32 matrices [in, out].
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from csp import lowrank, metrics, rules, select, shrinkage, solve
from csp.adding import euclidean
from csp.rules import Rule, Target
from csp.structures import NofM, Pool, Rank, Structure, keep_count

Solver = Callable[[jax.Array, jax.Array, "Projection"], jax.Array]
_BLOCK = 128  # inputs that sparsegpt chooses among before it compensates
_DAMPING = 1e-2
_ROUNDING = 2e-2  # of the largest eigenvalue: what a Gram matrix in bfloat16 may be wrong by


@dataclasses.dataclass(frozen=True)
class Projection:
    """A structure with its budget for one shape: the constraint, as a function."""

    structure: Structure
    shape: tuple[int, ...]
    kept: jax.typing.ArrayLike | None  # None where the structure fixes it

    def support(self, worth: jax.Array, pool: Pool = euclidean) -> jax.Array:
        """The entries of the most worthy units."""
        units = self.structure.layout(worth, pool)
        kept = self.structure.kept(self.shape, 0.0) if self.kept is None else self.kept
        best = select.above(units, select.cut(units, kept, self.structure.axes), self.structure.axes)
        return self.structure.spread(best, self.shape)

    def __call__(self, w: jax.Array) -> jax.Array:
        return shrinkage.hard(w, self.support(jnp.abs(w)))

    def shrink(self, w: jax.Array, t: jax.Array) -> jax.Array:
        return shrinkage.trimmed(w, self.support(jnp.abs(w)), t)


def compress(
    params: Any,
    *rules_: Rule,
    gram: Mapping[str, jax.Array] | None = None,
    solver: Solver | None = None,
    sparsity: float | None = None,
    worth: Mapping[str, jax.Array] | None = None,
) -> Any:
    """Prunes trained parameters once, to the rules' budgets; what is sparser already stays so.

    Args:
      params: any pytree of arrays.
      *rules_: as for `csp.sparsify`; their metric is magnitude, or activation where a Gram matrix is given.
      gram: path -> X^T X [in, in], from inputs X of that layer. Where one is given, the weights that stay are fitted to
        it. It is positive semi-definite; what rounding took from that, in bfloat16 say, is given back.
      solver: `magnitude`, `wanda`, `sparsegpt`, `admm` or `trimmed` of this module. By default `magnitude` for a
        parameter without Gram matrix, `wanda` for metric activation, and `admm` for the others. A rank has none: it
        takes the truncated singular value decomposition, whitened by the Gram matrix, or scaled by the sizes of the
        inputs alone for metric activation.
      sparsity: for rules that do not say.
      worth: path -> what each entry is worth, by a metric that was observed elsewhere, such as Fisher's; its rule's
        metric says how the worths of a unit add up. Weights stay as they are, where no Gram matrix is given.

    Returns:
      The parameters, pruned; exactly +0.0 where pruned.
    """
    targets = rules.bind(params, rules.complete(rules_, sparsity, params))
    gram, worth = dict(gram or {}), dict(worth or {})
    _check_paths("gram", gram, [t.path for t in targets])
    _check_paths("worth", worth, [t.path for t in targets])
    leaves, treedef = jax.tree.flatten(params)
    for target in targets:
        _check_leaf(target, leaves[target.index])
        _check_options(target, gram.get(target.path), worth.get(target.path), solver)
        if target.path in gram:
            gram[target.path] = _definite(target.path, gram[target.path])
    kept = _joint_budgets(targets, leaves, worth, {} if solver is magnitude else gram)
    for target in targets:
        leaf, share = jnp.asarray(leaves[target.index]), kept.get(target.index)
        w = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        if target.path in worth:
            seen, pool = jnp.asarray(worth[target.path], w.dtype), _metric(target.rule).pool
            new = shrinkage.hard(w, _projection(target, share).support(seen, pool))
            new = _refit(w, gram[target.path].astype(w.dtype), new) if target.path in gram else new
        else:
            new = _prune(target, w, gram.get(target.path), solver, share)
        if not jnp.all(jnp.isfinite(new)):
            raise ValueError(
                f"{target.path!r}: no finite weights were found: is its Gram matrix singular beyond rounding?"
            )
        leaves[target.index] = new.astype(target.dtype)
    return treedef.unflatten(leaves)


def relative_error(w: jax.Array, new: jax.Array, gram: jax.Array) -> jax.Array:
    """|X W' - X W|^2 / |X W|^2."""
    with jax.default_matmul_precision("highest"):
        return jnp.vdot(new - w, gram @ (new - w)) / jnp.vdot(w, gram @ w)


def magnitude(w: jax.Array, gram: jax.Array, project: Projection) -> jax.Array:
    """The nearest weights in the budget; knows nothing of the inputs."""
    return project(w)


def wanda(w: jax.Array, gram: jax.Array, project: Projection) -> jax.Array:
    """After Sun et al. (2023): the worth is |w| times the norm of its input; weights stay as they are.

    Their size alone, where no input was ever other than zero.
    """
    energy = jnp.diag(gram)
    norm = jnp.sqrt(jnp.where(jnp.any(energy > 0), energy, 1))
    return shrinkage.hard(w, project.support(jnp.abs(w) * norm[:, None]))


def sparsegpt(w: jax.Array, gram: jax.Array, project: Projection) -> jax.Array:
    """After Frantar & Alistarh (2023): input by input, what is pruned is made up for by the inputs still to come.

    With U the upper Cholesky factor of G^-1, pruning w_i costs (w_i / U_ii)^2 and moves the rest by -U_i / U_ii w_i.
    Every `_BLOCK` inputs the worth is looked at again, with the weights as they have become.
    """
    if not isinstance(project.structure, NofM) and project.structure.pooled:
        raise ValueError(f"sparsegpt chooses single entries, not {project.structure}: use admm or trimmed")
    size = w.shape[0]
    typical = jnp.mean(jnp.diag(gram))
    damped = gram + jnp.where(typical > 0, _DAMPING * typical, 1) * jnp.eye(size, dtype=gram.dtype)
    upper = jnp.linalg.cholesky(jnp.linalg.inv(damped)).T  # U^T U = G^-1: row i says who makes up for input i
    price = jnp.diag(upper)[:, None]
    first = project.support(jnp.abs(w) / price)
    step = (
        project.structure.m * max(1, _BLOCK // project.structure.m) if isinstance(project.structure, NofM) else _BLOCK
    )
    for begin in range(0, size, step):
        end = min(begin + step, size)
        worth = jnp.abs(w[begin:end]) / price[begin:end]
        kept = None if isinstance(project.structure, NofM) else jnp.sum(first[begin:end])
        keep = dataclasses.replace(project, shape=worth.shape, kept=kept).support(worth)
        w = _eliminate(w, upper, keep, begin)
    return w


def admm(w: jax.Array, gram: jax.Array, project: Projection) -> jax.Array:
    """Alternating directions for the support, conjugate gradients for the weights on it; whole columns exactly."""
    if _is_of_columns(project):
        return _best_columns(w, gram, project)
    return _refit(w, gram, solve.admm(gram, w, project))


def trimmed(w: jax.Array, gram: jax.Array, project: Projection) -> jax.Array:
    """As `admm`, with accelerated trimmed soft thresholding for the support."""
    if _is_of_columns(project):
        return _best_columns(w, gram, project)
    return _refit(w, gram, solve.trimmed_ista(gram, w, project.shrink))


def _is_of_columns(project: Projection) -> bool:
    """Is every unit one or more whole columns?"""
    units = jax.eval_shape(project.structure.layout, jax.ShapeDtypeStruct(project.shape, jnp.float32))
    numbers = jnp.arange(units.size, dtype=jnp.int32).reshape(units.shape)
    owner = project.structure.spread(numbers, project.shape)
    return bool(jnp.all(owner == owner[:1]))


def _best_columns(w: jax.Array, gram: jax.Array, project: Projection) -> jax.Array:
    """Columns do not share an output: the error of dropping some is the sum of their w^T G w, and the others stay."""
    with jax.default_matmul_precision("highest"):
        energy = jnp.maximum(jnp.sum(w * (gram @ w), axis=0), 0)
    return shrinkage.hard(w, project.support(jnp.broadcast_to(jnp.sqrt(energy / len(w)), w.shape)))


def _refit(w: jax.Array, gram: jax.Array, sparse: jax.Array) -> jax.Array:
    return solve.least_squares_on_support(gram, w, sparse != 0)


@jax.jit
def _eliminate(w: jax.Array, upper: jax.Array, keep: jax.Array, begin: jax.Array) -> jax.Array:
    def prune_row(i, w):
        row = begin + i
        error = jnp.where(keep[i], 0, w[row]) / upper[row, row]
        return (w - upper[row][:, None] * error).at[row].set(jnp.where(keep[i], w[row], 0))

    return lax.fori_loop(0, keep.shape[0], prune_row, w)


def _prune(target: Target, w: jax.Array, gram: jax.Array | None, solver: Solver | None, kept: int | None) -> jax.Array:
    rule = target.rule
    gram = None if gram is None else gram.astype(w.dtype)
    if isinstance(target.structure, Rank):
        if gram is None:
            return lowrank.dense(lowrank.factor(w, target.kept))
        if _metric(rule).name == "activation":
            return lowrank.dense(lowrank.factor_scaled(w, target.kept, jnp.sqrt(jnp.diag(gram))))
        return lowrank.dense(lowrank.factor_whitened(w, target.kept, gram))
    project = _projection(target, kept)
    chosen = solver or _solver_for(rule, gram)
    if gram is None and chosen is not magnitude:
        raise ValueError(
            f"{target.path!r}: {_name(chosen)} needs the layer's Gram matrix, gram={{{target.path!r}: X.T @ X}}"
        )
    return project(chosen(w, jnp.eye(1) if gram is None else gram, project))  # the budget holds whatever it found


def _check_options(target: Target, gram: Any, worth: Any, solver: Solver | None) -> None:
    path, shape = target.path, target.shape
    if gram is not None and (len(shape) != 2 or jnp.shape(gram) != (shape[0], shape[0])):
        raise ValueError(
            f"{path!r} has shape {shape} and a Gram matrix of shape {jnp.shape(gram)}: of a matrix [in, out] it is "
            "X.T @ X, [in, in]"
        )
    metric = _metric(target.rule)
    if worth is not None and jnp.shape(worth) != shape:
        raise ValueError(f"{path!r} has shape {shape}, its worth {jnp.shape(worth)}: one number for each entry")
    if worth is not None and metric.signed is None and np.min(np.asarray(worth), initial=0) < 0:
        raise ValueError(f"the worth of {path!r} is negative somewhere: only metrics.movement() has a sign")
    if solver is not None and (worth is not None or metric.name not in ("magnitude", "activation")):
        raise ValueError(
            f"{path!r}: {_name(solver)} is a criterion of its own; leave out the solver, or worth and metric"
        )
    if isinstance(target.structure, Rank) and (worth is not None or solver is not None):
        raise ValueError(f"{path!r}: a rank is chosen by singular values, without worth and solver")


def _check_leaf(target: Target, leaf: Any) -> None:
    if not jnp.all(jnp.isfinite(jnp.asarray(leaf))):
        raise ValueError(f"{target.path!r} has NaN or infinite weights: there is nothing to keep of such a model")


def _name(solver: Solver) -> str:
    return getattr(solver, "__name__", repr(solver))


def _definite(path: str, gram: jax.Array) -> jax.Array:
    """The Gram matrix, without the negative eigenvalues that rounding gives it; dead inputs stay dead.

    Times a power of two, on which no choice depends, so that its largest entry is about 1: in float64, before float32
    makes infinity of large ones and zero of tiny ones.
    """
    exact, dtype = np.asarray(gram, np.float64), jnp.result_type(gram)
    unit = int(np.frexp(np.max(np.abs(exact), initial=0))[1])
    gram = jnp.asarray(np.ldexp(exact, -unit), jnp.promote_types(dtype, jnp.float32))
    values = jnp.linalg.eigvalsh(gram)
    least, most = float(jnp.min(values, initial=0)), float(jnp.max(values, initial=0))
    skew = float(jnp.max(jnp.abs(gram - gram.T), initial=0))
    if max(-least, skew) > _ROUNDING * most:
        raise ValueError(
            f"the Gram matrix of {path!r} is not X.T @ X: it is not symmetric, or has negative eigenvalues "
            f"(from {np.ldexp(least, unit):g} to {np.ldexp(most, unit):g}); compute it in float32"
        )
    lift = -least if -least > len(gram) * float(jnp.finfo(gram.dtype).eps) * most else 0.0
    return gram + lift * jnp.diag(jnp.where(jnp.diag(gram) != 0, 1, 0).astype(gram.dtype))


def _projection(target: Target, kept: int | None) -> Projection:
    kept = None if target.structure.sparsity is not None else (target.kept if kept is None else kept)
    return Projection(target.structure, target.shape, kept)


def _metric(rule: Rule) -> metrics.Metric:
    return rule.metric or metrics.magnitude()


def _solver_for(rule: Rule, gram: jax.Array | None) -> Solver:
    metric = _metric(rule).name
    if metric == "magnitude":
        return magnitude if gram is None else admm
    if metric == "activation" and gram is not None:
        return wanda
    raise ValueError(
        f"rule {rule.pattern!r}: compress sees no gradients and cannot tell {metric}; use magnitude, "
        "or activation with a Gram matrix"
    )


def _joint_budgets(
    targets: list[Target], leaves: list, worth: Mapping[str, jax.Array], gram: Mapping[str, jax.Array]
) -> dict[int, int]:
    """How many units each parameter of a joint budget keeps; where inputs are known, weights count in their units."""

    def entries(target: Target) -> jax.Array:
        size = jnp.abs(jnp.asarray(leaves[target.index], jnp.float32))
        if target.path in gram:
            size = size * jnp.sqrt(jnp.maximum(jnp.diag(gram[target.path]), 0))[:, None]
        return worth.get(target.path, size)

    kept = {}
    for group in sorted({t.group for t in targets if t.rule.budget.joint}):
        mine = [t for t in targets if t.group == group]
        rule = mine[0].rule
        worths = [t.structure.layout(entries(t), _metric(rule).pool) for t in mine]
        total = keep_count(sum(worth.size for worth in worths), rule.target())
        shares = rule.budget.allocate(worths, total)
        kept |= {t.index: int(share) for t, share in zip(mine, shares, strict=True)}
    return kept


def _check_paths(name: str, given: Mapping[str, Any], paths: list[str]) -> None:
    for path in given:
        if path not in paths:
            raise ValueError(
                f"{name} has {path!r}, which no rule prunes: the pruned paths are {', '.join(map(repr, paths))}"
            )
    for path, value in given.items():
        if np.iscomplexobj(value):
            raise ValueError(f"the {name} of {path!r} is complex: real numbers only")
        if not np.all(np.isfinite(np.asarray(value))):
            raise ValueError(f"the {name} of {path!r} has NaN or infinite entries: look at the calibration inputs")
