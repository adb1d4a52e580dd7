"""How does a step run where mesh axes are explicit? As on automatic ones; what comes out is sharded as what went in.

Cutting a matrix into units splits its axes, and a choice compares units of all devices. Which collectives that takes is
the compiler's business (it sends counts and thresholds, no parameter); explicit axes would want it spelt out at every
operation.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding


def automatically(function: Callable[..., Any], arguments: tuple, like: Any) -> Any:
    """`function(*arguments)`, with all mesh axes automatic inside and results sharded as what they match in `like`."""
    meshes = [mesh for leaf in jax.tree.leaves(arguments) if (mesh := jax.typeof(leaf).sharding.mesh).explicit_axes]
    if not meshes:
        return function(*arguments)
    shardings = jax.tree.map(lambda leaf: NamedSharding(meshes[0], jax.typeof(leaf).sharding.spec), like)
    return jax.sharding.auto_axes(function, out_sharding=shardings)(*arguments)
