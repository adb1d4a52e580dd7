"""Binding structure, metric, sparsity and budget to parameters by path.

A path is the names on the way to a leaf, joined by "/". The first rule whose pattern matches the *whole* path wins. A
rule that matches nothing is an error. Vectors and scalars that a rule matches together with matrices are left alone:
biases and norms are never worth pruning, nor are depthwise kernels, [..., 1, channels] of three dimensions or more. A
rule that matches nothing but such parameters means them, and prunes them.
"""

import dataclasses
import difflib
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from csp import budgets, metrics, structures
from csp.schedules import Schedule

_MODULES = r"(.*/)?[^/]*(embed|(?<!com)position|pos_enc)[^/]*(/.*)?"  # with all that is in them; no composition
_NAMES = r"bias|(?<![a-z])scale(?![a-z])|(?<!ab)norm(?!alizer)|lm_head|logits|output(?!_?gate)"
_LAST = rf"(.*/)?[^/]*({_NAMES})[^/]*(/[^/]*)?"  # a leaf or its module
NOT_BY_DEFAULT = rf"{_MODULES}|{_LAST}"


class BudgetError(ValueError):
    """A budget that cannot be met, or was not."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """What happens to the parameters whose path matches `pattern`; structure None leaves them alone.

    Args:
      pattern: a regular expression for the whole path, e.g. "encoder/.*/kernel".
      structure: see `csp.structures`; None to leave the parameters alone.
      metric: see `csp.metrics`; by default the one that the method prefers, magnitude for most.
      sparsity: the final fraction of zeros, or an optax schedule of it; None where the structure fixes it (N of M).
      budget: see `csp.budgets`: which of the matching parameters gives how much; uniform by default.
    """

    pattern: str
    structure: structures.Structure | None = None
    metric: metrics.Metric | None = None
    sparsity: float | Schedule | None = None
    budget: budgets.Budget = dataclasses.field(default_factory=budgets.uniform)

    def __post_init__(self):
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"rule {self.pattern!r} is not a regular expression: {error}") from None
        if self.structure is not None and not isinstance(self.structure, structures.Structure):
            raise ValueError(
                f"rule {self.pattern!r} needs a structure such as csp.structures.entries(), got {self.structure!r}"
            )
        if not isinstance(self.metric, metrics.Metric | None):
            raise ValueError(f"rule {self.pattern!r} needs a metric such as csp.metrics.adam(), got {self.metric!r}")
        if self.structure is not None:
            self._check_sparsity(self.structure)
            check_sign(f"rule {self.pattern!r}", self.budget, self.metric or metrics.magnitude())
        elif self.sparsity is not None or self.metric is not None or self.budget != budgets.uniform():
            raise ValueError(
                f"rule {self.pattern!r} says how to prune, but not in which units: give it a structure such as "
                "csp.structures.entries(); without one it leaves its parameters alone"
            )

    def _check_sparsity(self, structure: structures.Structure):
        given = self.sparsity
        if isinstance(given, int | float | np.number) and not isinstance(given, bool):
            if not (math.isfinite(given) and 0 <= given <= 1):
                raise BudgetError(
                    f"rule {self.pattern!r} asks for sparsity {given}: it is a fraction of zeros between 0 and 1"
                )
            self.target()
        elif given is not None and not callable(given):
            raise ValueError(f"rule {self.pattern!r} needs a number or a schedule as sparsity, got {given!r}")
        if not isinstance(self.budget, budgets.Budget):
            raise ValueError(f"rule {self.pattern!r} needs a budget such as csp.budgets.erk(), got {self.budget!r}")
        if structure.sparsity is not None and not isinstance(self.budget, budgets.Uniform):
            raise ValueError(f"rule {self.pattern!r}: {self.structure} fixes every tensor's budget; leave budget out")
        if isinstance(self.structure, structures.Rank) and not isinstance(self.budget, budgets.Uniform | budgets.Given):
            raise ValueError(
                f"rule {self.pattern!r}: rank works with budgets.uniform() and budgets.given(); "
                "for ranks from one global budget use csp.lowrank.ladder"
            )

    def target(self, steps: int | None = None) -> float:
        """The final sparsity, as an exact Python float."""
        fixed = None if self.structure is None else self.structure.sparsity
        asked = final_value(self.pattern, self.sparsity, steps) if callable(self.sparsity) else self.sparsity
        if asked is None and fixed is None:
            raise BudgetError(f"rule {self.pattern!r} has no sparsity: give it one, e.g. sparsity=0.9")
        if asked is not None and fixed is not None and abs(asked - fixed) > 1e-6:
            raise BudgetError(
                f"rule {self.pattern!r} asks {self.structure} for sparsity {asked}, but it has {fixed:g}: "
                "leave sparsity out or choose another n_of_m"
            )
        return _decimal(asked if fixed is None else fixed)


def check_sign(what: str, budget: budgets.Budget, metric: metrics.Metric) -> None:
    """Not every budget knows what to do with a worth below zero."""
    if metric.signed is not None and not budget.signed:
        raise ValueError(
            f"{what}: this budget squares worths, and those of metric {metric} have a sign: use budgets.global_(), or "
            "another metric"
        )


def final_value(pattern: str, schedule: Schedule, steps: int | None, what: str = "the end of training") -> float:
    """The value a schedule has settled at after so many steps; an error if it moves later."""
    with jax.ensure_compile_time_eval():
        last = 2**30
        probe = [last] if steps is None else [steps, 2 * steps + 1, *(at for n in range(31) if (at := 2**n) > steps)]
        values = [_decimal(schedule(at)) for at in probe]
    if not 0 <= values[0] <= 1:
        raise BudgetError(f"rule {pattern!r}: its schedule ends at {values[0]}, which is no fraction of zeros")
    if any((later := value) != values[0] for value in values):
        raise BudgetError(
            f"rule {pattern!r}: its schedule still moves after step {steps}, {what} "
            f"({values[0]:g} there, {later:g} later): end it at or before that step"
        )
    return values[0]


def _decimal(value: Any) -> float:
    """A float32 scalar as the shortest decimal that names it: 0.9, not 0.89999998."""
    return float(value) if isinstance(value, float | int) else float(str(np.float32(value)))


class Target(NamedTuple):
    """One parameter that a rule prunes: everything about it that is known before training."""

    index: int  # in the flattened parameters
    key_path: tuple
    path: str
    shape: tuple[int, ...]
    dtype: Any
    rule: Rule
    structure: structures.Structure
    group: int  # the number of its rule
    sparsity: float  # its own final sparsity, after the budget has been shared out
    kept: Any  # the units that stay, an integer or one for each group

    @property
    def is_rank(self) -> bool:
        return isinstance(self.structure, structures.Rank)


def path_name(path: Sequence[Any]) -> str:
    """("encoder", 0, .kernel) as "encoder/0/kernel"; the ".value" of a flax.nnx variable is not part of its name."""
    wrapped = len(path) > 1 and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == "value"
    return _joined(path[:-1] if wrapped else path)


def _joined(path: Sequence[Any]) -> str:
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def path_names(params: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[tuple[tuple, str, Any]]:
    """(key path, name, leaf) for every leaf, in jax's order. A ".value" that has siblings is a name like others."""
    flat = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_leaf)
    held = Counter(path[:-1] for path, _ in flat)
    return [(path, path_name(path) if held[path[:-1]] == 1 else _joined(path), leaf) for path, leaf in flat]


def named_leaves(params: Any) -> list[tuple[str, Any]]:
    """(path, leaf) for every leaf, in jax's order."""
    return [(name, leaf) for _, name, leaf in path_names(params)]


def is_matrix(shape: Sequence[int]) -> bool:
    """Two dimensions that mix inputs; of more dimensions a depthwise kernel, of one input a channel, is no matrix."""
    return len(shape) >= 2 and min(shape[-2:]) > 0 and (shape[-2] > 1 or len(shape) == 2)


def bind(params: Any, rules: Sequence[Rule], steps: int | None = None) -> list[Target]:
    """The parameters that the rules prune, with their exact budgets."""
    flat = path_names(params)
    owners = [
        next((n for n, rule in enumerate(rules) if re.fullmatch(rule.pattern, path)), None) for _, path, _ in flat
    ]
    targets = []
    for number, rule in enumerate(rules):
        mine = [i for i, owner in enumerate(owners) if owner == number]
        matched = [path for _, path, _ in flat if re.fullmatch(rule.pattern, path)]
        if not matched:
            raise ValueError(_no_match(rule.pattern, [path for _, path, _ in flat]))
        if rule.structure is not None and not mine:
            raise ValueError(
                f"rule {rule.pattern!r} comes too late: earlier rules have all that it matches, such as "
                f"{matched[0]!r}; put it before them"
            )
        if rule.structure is not None:
            targets += _bind_rule(rule, number, [(i, *flat[i]) for i in _worth_pruning(mine, flat)], steps)
    return sorted(targets, key=lambda target: target.index)


def _worth_pruning(mine: list[int], flat: list) -> list[int]:
    shapes = {i: jnp.shape(flat[i][2]) for i in mine if jnp.size(flat[i][2]) > 0}
    matrices = [i for i, shape in shapes.items() if is_matrix(shape)]
    return matrices or [i for i, shape in shapes.items() if shape] or list(shapes)


def _bind_rule(rule: Rule, number: int, mine: list, steps: int | None) -> list[Target]:
    structure = rule.structure
    assert structure is not None  # bind asks for no others
    for _, _, path, leaf in mine:
        _check_dtype(path, leaf)
        structure.check(path, jnp.shape(leaf))
    shapes = {path: jnp.shape(leaf) for _, _, path, leaf in mine}
    if len(shapes) < len(mine):
        raise ValueError(f"two parameters of rule {rule.pattern!r} have one path, among {sorted(shapes)}: rename one")
    _check_units(rule, structure, shapes)
    sparsity = rule.target(steps)
    try:
        shares = rule.budget.share(structure, shapes, sparsity)
    except ValueError as error:
        raise BudgetError(f"rule {rule.pattern!r}: {error}") from None
    return [
        Target(i, key_path, path, shapes[path], jnp.asarray(leaf).dtype, rule, structure, number, *shares[path])
        for i, key_path, path, leaf in mine
    ]


def _check_units(rule: Rule, structure: structures.Structure, shapes: dict[str, tuple[int, ...]]) -> None:
    sizes = {path: int(np.max(structure.sizes(shape), initial=0)) for path, shape in shapes.items()}
    paths = [", ".join(map(repr, sizes))] if rule.budget.joint else [repr(path) for path in sizes]
    for path, size in zip(paths, [sum(sizes.values())] if rule.budget.joint else sizes.values(), strict=True):
        if size >= 2**31:
            raise ValueError(
                f"{path}: {size} units compete, and fewer than 2^31 are counted: cut the parameter into several, each "
                "with a budget of its own, or take a structure of groups, such as structures.n_of_m"
            )


def _check_dtype(path: str, leaf: Any) -> None:
    dtype = jax.dtypes.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{path!r} has dtype {dtype}, and only real floats are pruned: add Rule({path!r}, None) first")


def _no_match(pattern: str, paths: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
    listed = ", ".join(map(repr, nearest)) or "none: there are no parameters"
    return f"rule {pattern!r} matches no parameter; the nearest are {listed}"


def default_rules(params: Any, sparsity: float | Schedule) -> tuple[Rule, ...]:
    """The short form's rules: every matrix that is not an embedding, an output layer or a positional term."""
    spared = [name for name, leaf in named_leaves(params) if re.fullmatch(NOT_BY_DEFAULT, name.lower())]
    rest = [name for name, leaf in named_leaves(params) if name not in spared and _is_prunable(leaf)]
    if not rest:
        raise ValueError(
            "sparsify(..., sparsity=...) prunes no embedding, output layer, norm or bias unasked, and there is nothing "
            f"else among {', '.join(map(repr, spared[:4])) or 'no parameters'}: name it with csp.Rule(pattern, ...)"
        )
    spare = tuple(Rule(re.escape(name)) for name in spared)
    return (*spare, Rule("|".join(map(re.escape, rest)), structures.entries(), sparsity=sparsity))


def _is_prunable(leaf: Any) -> bool:
    return is_matrix(jnp.shape(leaf)) and jnp.issubdtype(jax.dtypes.result_type(leaf), jnp.floating)


def complete(given: Sequence[Rule], sparsity: float | Schedule | None, params: Any) -> tuple[Rule, ...]:
    """The rules as given, or the short form's."""
    for rule in given:
        if not isinstance(rule, Rule):
            raise ValueError(f"{rule!r} is no rule: write csp.Rule(pattern, structure, ...)")
    if given:
        return with_sparsity(given, sparsity)
    if sparsity is None:
        raise ValueError("there is nothing to prune: give rules, or sparsity=... for all matrices")
    return default_rules(params, sparsity)


def with_sparsity(rules: Sequence[Rule], sparsity: float | Schedule | None) -> tuple[Rule, ...]:
    """The rules, with this sparsity where they have none of their own; an error if none of them needs it."""
    if sparsity is None:
        return tuple(rules)
    lacking = [r.structure is not None and r.structure.sparsity is None and r.sparsity is None for r in rules]
    if not any(lacking):
        raise ValueError(f"sparsity={sparsity} is asked for, but every rule has its own: leave one of them out")
    return tuple(
        dataclasses.replace(rule, sparsity=sparsity) if lacks else rule
        for rule, lacks in zip(rules, lacking, strict=True)
    )
