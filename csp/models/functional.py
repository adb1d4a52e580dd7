"""How is a module called as a function of plain parameters, and what do its matrices meet when it is?"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from csp.models.layers import watching

Params = Any


def split(make: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef, Params]:
    """(structure, parameters as nested dicts of arrays) of the module that is made."""
    structure, state = nnx.split(make(), nnx.Param)
    return structure, nnx.to_pure_dict(state)


def shapes(make: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef, Params]:
    """As `split`, with shapes in place of arrays."""
    structure, params = split(lambda: nnx.eval_shape(make))
    return structure, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), params)


def apply(structure: nnx.GraphDef, params: Params, method: str, *arguments: Any) -> Any:
    """A method of the module that has these parameters: "loss", "greedy", "logits", ..."""
    return getattr(nnx.merge(structure, params), method)(*arguments)


def grams(structure: nnx.GraphDef, params: Params, there: Array, method: str, *arguments: Any) -> dict[str, Array]:
    """X^T X of the rows that are `there` among those that meet each matrix in that call, by the matrix's path."""
    model = nnx.merge(structure, params)
    with watching(there) as seen:
        getattr(model, method)(*arguments)
    names = {id(node): "/".join(map(str, path)) for path, node in nnx.iter_graph(model)}
    return {f"{names[module]}/{name}": gram for (module, name), gram in seen.items()}
