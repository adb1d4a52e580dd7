"""What is carried from step to step, in arrays and nothing else, and what can be read from it later?"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from csp import structures
from csp.rules import Target


class SparsifyState(NamedTuple):
    """Arrays only, so that any checkpointer saves it. `memory` and `remembered` are None once `settle` dropped them."""

    count: jax.Array
    inner: Any  # of the optimizer
    memory: tuple | None  # of the method, for each pruned parameter
    remembered: tuple | None  # by the metric, for each
    violation: tuple  # |W|_1 of what the last refresh cut away over |W|_1, for each
    skipped: jax.Array  # steps skipped for non-finite gradients
    ledger: jax.Array  # what was asked, in numbers: a row for each pruned parameter, see `read_ledger`


class Note(NamedTuple):
    """One line of the ledger, read."""

    index: int  # of the parameter, in jax's order of leaves
    rule: int
    structure: structures.Structure
    asked: float
    violation: float


def write_ledger(targets: Sequence[Target]) -> jax.Array:
    rows = [(t.index, t.group, round(t.sparsity * 1e9), *encode(t.structure)) for t in targets]
    return jnp.asarray(rows, jnp.int32).reshape(len(rows), 6)


def read_ledger(state: SparsifyState) -> list[Note]:
    """What `sparsify` was asked for, from its state alone, as it comes out of any checkpoint."""
    return [
        Note(index, rule, decode(*code), asked / 1e9, float(violation))
        for (index, rule, asked, *code), violation in zip(state.ledger.tolist(), state.violation, strict=True)
    ]


def find_state(state: Any) -> SparsifyState | None:
    """The state of `sparsify` inside that of whatever is around it."""
    found = [s for s in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(s)]
    if state is not None and not found:
        raise ValueError("this optimizer state holds none of csp.sparsify: pass what tx.init or tx.update returned")
    return found[0] if found else None


def _is_state(x: Any) -> bool:
    return isinstance(x, SparsifyState)


_CODES = (structures.Entries, structures.NofM, structures.Blocks, structures.Slices, structures.Heads, structures.Rank)


def encode(structure: structures.Structure) -> tuple[int, int, int]:
    """A structure in three integers: its kind and its one or two numbers. -1 stands for a kind of your own."""
    if type(structure) not in _CODES:
        return -1, 0, 0
    numbers = dataclasses.astuple(structure)
    a, b, *_ = (*numbers, 0, 0)
    return _CODES.index(type(structure)), a, b


def decode(kind: int, a: int, b: int) -> structures.Structure:
    """The inverse of `encode`."""
    if kind < 0:
        return structures.Structure()
    fields = len(dataclasses.fields(_CODES[kind]))
    return _CODES[kind](*(a, b)[:fields])
