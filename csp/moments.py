"""What does the inner optimizer remember of a parameter?

Whatever the optimizer, the leaves of its state that mirror the parameters end in the parameter's own path and have its
shape: `state[0].mu["encoder"]["kernel"]`. That is enough to find them inside chain, masked, partition and the rest.
"""

from typing import Any

import jax
import jax.numpy as jnp

Path = tuple[Any, ...]
MOMENTA = ("mu", "trace", "ema", "m", "exp_avg")
SECOND_MOMENTS = ("nu", "n", "v", "sum_of_squares", "exp_avg_sq")  # adan's v is a momentum, and its n comes first


def match(state: Any, params: Any) -> list[tuple[int, int, Path]]:
    """(leaf of the state, parameter, what stands before the parameter's path) for each leaf that mirrors a parameter.

    Where one parameter's path ends in another's, the longest match wins.
    """
    flat = jax.tree_util.tree_leaves_with_path(params)
    places = {path: (i, jnp.shape(leaf)) for i, (path, leaf) in enumerate(flat)}
    found = []
    for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(state)):
        for start in range(len(path) + 1):
            i, shape = places.get(path[start:], (-1, None))
            if shape == jnp.shape(leaf):
                found.append((number, i, path[:start]))
                break
    return found


def second_moments(state: Any, params: Any) -> dict[int, jax.Array]:
    """The second moment of each parameter for which the optimizer keeps one."""
    leaves = jax.tree.leaves(state)
    named = [(_name(prefix), i, number) for number, i, prefix in match(state, params)]
    named = sorted((n for n in named if n[0] in SECOND_MOMENTS), key=lambda n: -SECOND_MOMENTS.index(n[0]))
    return {i: leaves[number] for _, i, number in named}


def forget(leaf: jax.Array, prefix: Path, carries: jax.Array) -> jax.Array:
    """Zero momentum where it is not carried on.

    A leaf that is no momentum by name and nowhere negative (a second moment, a step size) says how large gradients are,
    not where they lead, and is left as it is: a revived weight then takes a step of the right length.
    """
    leads = _name(prefix) in MOMENTA or jnp.min(leaf, initial=0) < 0
    return jnp.where(carries | jnp.logical_not(leads), leaf, jnp.zeros((), leaf.dtype))


def _name(prefix: Path) -> str | None:
    return getattr(prefix[-1], "name", None) if prefix else None
