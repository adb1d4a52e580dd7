"""What does the inner optimizer remember of a parameter?

Whatever the optimizer, the leaves of its state that mirror the parameters end in the parameter's own path and have its
shape: `state[0].mu["encoder"]["kernel"]`. That is enough to find them inside chain, masked, partition and the rest.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Path = tuple[Any, ...]
SECOND_MOMENTS = ("nu", "v", "sum_of_squares")


def match(state: Any, paths: Sequence[Path], shapes: Sequence[tuple[int, ...]]) -> list[tuple[int, int, Path]]:
    """(leaf of the state, parameter, what stands before the parameter's path) for each leaf that mirrors a parameter.

    Where one parameter's path ends in another's, the longest match wins.
    """
    longest_first = sorted(range(len(paths)), key=lambda i: -len(paths[i]))
    found = []
    for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(state)):
        for i in longest_first:
            size = len(paths[i])
            if path[len(path) - size :] == paths[i] and jnp.shape(leaf) == shapes[i]:
                found.append((number, i, path[: len(path) - size]))
                break
    return found


def second_moments(state: Any, paths: Sequence[Path], shapes: Sequence[tuple[int, ...]]) -> list[jax.Array | None]:
    """Each parameter's second moment, None where the optimizer keeps none."""
    leaves = jax.tree.leaves(state)
    seconds: list[jax.Array | None] = [None] * len(paths)
    for number, i, prefix in match(state, paths, shapes):
        if prefix and getattr(prefix[-1], "name", None) in SECOND_MOMENTS and seconds[i] is None:
            seconds[i] = leaves[number]
    return seconds


def forget(leaf: jax.Array, carries: jax.Array) -> jax.Array:
    """Zero momentum where it is not carried on.

    A leaf that is nowhere negative (a second moment, a step size) says how large gradients are, not where they lead, and is
    left as it is: a revived weight then takes a step of the right length.
    """
    is_momentum = jnp.min(leaf, initial=0) < 0
    return jnp.where(carries | ~is_momentum, leaf, jnp.zeros((), leaf.dtype))
