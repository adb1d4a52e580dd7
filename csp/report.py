"""What was asked, what was reached, and how many bytes is that?"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csp import budgets, rules, structures
from csp.formats import tensor
from csp.placement import is_array
from csp.rules import BudgetError, Rule, Target, named_leaves
from csp.state import Note, digest, read_ledger
from csp.structures import Structure


class Row(NamedTuple):
    """One parameter of a report; fractions of zeros, for structure rank of bytes saved."""

    path: str
    shape: tuple[int, ...]
    structure: str  # "" where the parameter is left alone
    rule: int | None
    asked: float | None
    reached: float
    violation: float | None  # of |W|_1, cut away by the last refresh so far: the freeze, once training is over
    bytes: dict[str, int]  # predicted, for each codec that fits; values keep their dtype

    @property
    def smallest(self) -> str:
        return min(self.bytes, key=lambda codec: self.bytes[codec])


class Report(NamedTuple):
    rows: list[Row]

    def total(self, chosen: Callable[[Row], int]) -> int:
        return sum(chosen(row) for row in self.rows)

    def __str__(self) -> str:
        return f"{_table(self.rows)}\n\n{_codecs(self.rows)}"

    def to_json(self) -> list[dict]:
        return [row._asdict() | {"codec": row.smallest} for row in self.rows]


def density(params: Any, total: bool = False) -> dict[str, float] | float:
    """The fraction of non-zeros of every array, or of all of them together."""
    counts = {name: (int(np.count_nonzero(leaf)), leaf.size) for name, leaf in _numbers(params)}
    if total:
        return sum(n for n, _ in counts.values()) / max(sum(size for _, size in counts.values()), 1)
    return {name: n / max(size, 1) for name, (n, size) in counts.items()}


def report(params: Any, state: Any = None) -> Report:
    """A table of all parameters: structure, asked, reached, violation before the freeze, bytes per codec.

    Args:
      params: the parameters.
      state: the optimizer state that has a `csp.sparsify` somewhere in it; without it the table says what is there, not
        what was asked.
    """
    notes = {note.digest: note for note in read_ledger(state)} if state is not None else {}
    return Report([_row(name, leaf, notes.get(digest(name))) for name, leaf in _numbers(params)])


def _numbers(params: Any) -> list[tuple[str, np.ndarray]]:
    """All arrays but the keys of random numbers; functions and other leaves of a module are none."""
    leaves = [(name, leaf) for name, leaf in named_leaves(params) if is_array(leaf) and not _is_key(leaf)]
    return [(name, np.asarray(leaf)) for name, leaf in leaves]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jax.dtypes.result_type(leaf), jax.dtypes.extended)


def verify(params: Any, *rules_: Rule, sparsity: float | None = None, exact: bool = True) -> None:
    """Raises `csp.BudgetError`, naming every tensor that misses its budget or is not finite; counts units in integers.

    Args:
      params: the parameters after training.
      *rules_: the rules given to `csp.sparsify`; none for its short form.
      sparsity: the sparsity given to its short form, or to rules without one.
      exact: a tensor with fewer living units than its budget misses it too.
    """
    targets = rules.bind(params, rules.complete(rules_, sparsity, params))
    leaves = jax.tree.leaves(params)
    misses = [
        f"{t.path!r} has NaN or infinite weights" for t in targets if not tensor.finite(np.asarray(leaves[t.index]))
    ]
    for group in sorted({t.group for t in targets}):
        mine = [t for t in targets if t.group == group]
        if mine[0].rule.budget.joint:
            misses += _missed_together(mine, leaves, exact)
        else:
            misses += [miss for t in mine if (miss := _missed(t, np.asarray(leaves[t.index]), exact))]
    if misses:
        raise BudgetError("; ".join(misses))


def _living(structure: Structure, leaf: np.ndarray) -> np.ndarray:
    """How many units live, for each competition."""
    units = structure.layout(jnp.asarray(leaf != 0, jnp.float32), jnp.max)
    return np.sum(np.asarray(units) > 0, axis=structure.axes, keepdims=True)


def _missed(target: Target, leaf: np.ndarray, exact: bool) -> str:
    if target.is_rank:
        rank = numerical_rank(leaf)
        return f"{target.path!r} has rank {rank}, its budget is {target.kept}" if rank > target.kept else ""
    living, kept = _living(target.structure, leaf), np.asarray(target.kept)
    wrong = (living != kept) if exact else (living > kept)
    if not wrong.any():
        return ""
    if living.size == 1:
        return f"{target.path!r} keeps {living.item()} of {target.structure}, its budget is {kept.item()}"
    return f"{target.path!r} misses {target.structure} in {int(wrong.sum())} of {living.size} groups"


def _missed_together(targets: list[Target], leaves: list, exact: bool) -> list[str]:
    structure = targets[0].structure
    each = [int(_living(structure, np.asarray(leaves[t.index])).sum()) for t in targets]
    living = sum(each)
    units = sum(int(structure.sizes(t.shape)) for t in targets)
    kept = structures.keep_count(units, targets[0].rule.target())
    budget = targets[0].rule.budget
    share = (budget.floor if isinstance(budget, budgets.Joint) else 0.0) * kept / max(units, 1)
    least = [math.floor(share * int(structure.sizes(t.shape))) for t in targets]
    few = [
        f"{t.path!r} keeps {own} of {structure}, the floor of its budget is {floor}"
        for t, own, floor in zip(targets, each, least, strict=True)
        if exact and own < floor - 1  # the allocation rounds in float32
    ]
    if living == kept or (living < kept and not exact):
        return few
    paths = ", ".join(repr(t.path) for t in targets)
    return [f"{paths} together keep {living} of {structure}, their budget is {kept}", *few]


def numerical_rank(leaf: np.ndarray) -> int:
    """The largest rank in the batch, counting singular values that rounding cannot have made.

    Rounding every entry to the dtype adds a matrix of independent errors, of less than eps times a typical entry each,
    whose norm is that times sqrt(m) + sqrt(n); a truncation computed in float32 adds some eps of the largest. A matrix
    that is not finite counts as a full one.
    """
    if not leaf.size:
        return 0
    (m, n), wide = leaf.shape[-2:], leaf.astype(np.float64)
    if not tensor.finite(wide):
        return min(m, n)
    values = np.linalg.svd(wide, compute_uv=False)
    typical = np.sqrt(np.mean(wide**2, axis=(-2, -1)))[..., None]
    rounded = float(jnp.finfo(leaf.dtype).eps) * typical * (math.sqrt(m) + math.sqrt(n))
    computed = 32 * float(np.finfo(np.promote_types(leaf.dtype, np.float32)).eps) * values.max(-1, keepdims=True)
    return int((values > np.maximum(rounded, computed)).sum(axis=-1).max(initial=0))


def _row(name: str, leaf: np.ndarray, note: Note | None) -> Row:
    structure = None if note is None else note.structure
    zeros = 1 - np.count_nonzero(leaf) / max(leaf.size, 1)
    rank = numerical_rank(leaf) if isinstance(structure, structures.Rank) else None
    return Row(
        path=name,
        shape=leaf.shape,
        structure="" if structure is None else str(structure),
        rule=None if note is None else note.rule,
        asked=None if note is None else note.asked,
        reached=float(zeros) if rank is None else _saved(rank, leaf.shape),
        violation=None if note is None or rank is not None else note.violation,  # nobody measures a rank's
        bytes=_bytes(leaf, structure, rank),
    )


def _saved(rank: int, shape: tuple[int, ...]) -> float:
    """The fraction of the bytes that factors save: none where they would be larger than the matrix."""
    return max(0.0, 1 - rank * sum(shape[-2:]) / math.prod(shape[-2:]))


def _bytes(leaf: np.ndarray, structure: Structure | None, rank: int | None) -> dict[str, int]:
    """What it takes in each codec of `csp.formats`, values in their dtype."""
    if leaf.ndim < 2 or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return {"dense": leaf.nbytes}
    sizes = tensor.sizes(leaf, hint=(structure.n, structure.m) if isinstance(structure, structures.NofM) else None)
    if not isinstance(structure, structures.NofM):
        sizes.pop("n_of_m", None)
    if rank is not None:
        sizes["factors"] = rank * sum(leaf.shape[-2:]) * math.prod(leaf.shape[:-2]) * leaf.dtype.itemsize
    return sizes


def _table(rows: list[Row]) -> str:
    head = ("path", "shape", "structure", "asked", "reached", "violation", "dense", "smallest", "codec")
    body = [
        _cells(row.path, "x".join(map(str, row.shape)) or "-", row.structure or "left alone", [row]) for row in rows
    ]
    sums = [_cells(name, "", "", part) for name, part in _parts(rows)]
    return _drawn([head, None, *body, None, *sums], left=(0, 1, 2, 8))


def _parts(rows: list[Row]) -> list[tuple[str, list[Row]]]:
    """What each rule has, and all."""
    ruled = sorted({row.rule for row in rows if row.rule is not None})
    return [(f"rule {n}", [row for row in rows if row.rule == n]) for n in ruled] + [("total", rows)]


def _codecs(rows: list[Row]) -> str:
    """What all would take in each codec; those that it does not fit stay dense."""
    codecs = list(dict.fromkeys(codec for row in rows for codec in row.bytes))
    sums = [
        (name, *(_human(sum(row.bytes.get(codec, row.bytes["dense"]) for row in part)) for codec in codecs))
        for name, part in _parts(rows)
    ]
    return _drawn([("bytes in", *codecs), None, *sums], left=(0,))


def _drawn(lines: Sequence[Sequence[str] | None], left: tuple[int, ...]) -> str:
    """Columns, those of `left` flush left; None is a rule across."""
    widths = [max(map(len, column)) for column in zip(*(line for line in lines if line), strict=True)]
    return "\n".join(_line(line, widths, left) if line else "-" * (sum(widths) + 2 * len(widths) - 2) for line in lines)


def _cells(name: str, shape: str, structure: str, rows: list[Row]) -> tuple[str, ...]:
    """Of several rows the means, by size: what is left alone is asked for nothing, and has no violation."""
    single = rows[0] if len(rows) == 1 and structure else None
    reached = _mean([(row.reached, row) for row in rows])
    asked = _mean([(row.asked or 0.0, row) for row in rows]) if any(row.asked is not None for row in rows) else ""
    violation = _mean([(row.violation, row) for row in rows if row.violation is not None])
    dense, smallest = sum(r.bytes["dense"] for r in rows), sum(r.bytes[r.smallest] for r in rows)
    codec = single.smallest if single else f"{dense / max(smallest, 1):.1f}x smaller"
    return name, shape, structure, asked, reached, violation, _human(dense), _human(smallest), codec


def _mean(values: list[tuple[float, Row]]) -> str:
    sizes = [max(math.prod(row.shape), 1) for _, row in values]
    total = sum(value * size for (value, _), size in zip(values, sizes, strict=True))
    return f"{total / sum(sizes):.4f}" if values else ""


def _human(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _line(cells: Iterable[str], widths: list[int], left: tuple[int, ...]) -> str:
    return "  ".join(
        c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    )
