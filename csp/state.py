"""What is carried from step to step, in arrays and nothing else, and what can be read from it later?"""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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

    digest: int  # of the parameter's path
    rule: int
    structure: structures.Structure
    asked: float
    violation: float


def digest(path: str) -> int:
    """Of a parameter's path, in an int32: around `sparsify` parameters may be masked, and have other numbers."""
    return zlib.crc32(path.encode()) - 2**31


def write_ledger(targets: Sequence[Target], end: int) -> jax.Array:
    rows = [(digest(t.path), t.group, round(t.sparsity * 1e9), end, *encode(t.structure)) for t in targets]
    return jnp.asarray(rows, jnp.int32).reshape(len(rows), 7)


def read_ledger(state: Any) -> list[Note]:
    """What `sparsify` was asked for, from its state alone, as it comes out of any checkpoint.

    That of several, as in `optax.partition`, one after the other, with the numbers of rules running on.
    """
    notes, first = [], 0
    for one in find_states(state):
        if jnp.ndim(one.count):
            raise ValueError("this is the state of several seeds: ask for one, jax.tree.map(lambda x: x[0], state)")
        lines = zip(np.asarray(one.ledger).tolist(), one.violation, strict=True)
        mine = [Note(p, first + n, decode(*code), asked / 1e9, float(v)) for (p, n, asked, _, *code), v in lines]
        first = max((note.rule + 1 for note in mine), default=first)
        notes += mine
    return notes


def find_states(state: Any) -> list[SparsifyState]:
    """The states of `sparsify` inside that of whatever is around them."""
    found = [s for s in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(s)]
    if not found:
        raise ValueError("this optimizer state holds none of csp.sparsify: pass what tx.init or tx.update returned")
    return found


def settle(state: Any) -> Any:
    """After the last refresh: drops shadows, scores and masks. Training goes on with a step that costs the optimizer's
    own.

    Called once, on the state of `sparsify` or of whatever is around it; the next step compiles anew, since the state
    has become smaller. `jax.eval_shape(csp.settle, tx.init(params))` is a template of it, to restore a checkpoint.
    """
    for one in find_states(state):
        if isinstance(one.count, jax.core.Tracer) or isinstance(one.ledger, jax.core.Tracer):
            continue
        end = int(np.max(np.asarray(one.ledger)[..., 3], initial=-1))
        if np.min(one.count) <= end:
            raise ValueError(
                f"step {int(np.min(one.count))} is too early to settle: the support is fixed after {end + 1} steps"
            )
    return jax.tree.map(
        lambda x: x._replace(memory=None, remembered=None) if _is_state(x) else x, state, is_leaf=_is_state
    )


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
