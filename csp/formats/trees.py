"""What are the tensors of a tree called, and how does a tree come back from names?

Dicts, lists, tuples and NamedTuples are walked without jax, in its order and with csp's names ("encoder/0/kernel");
anything else is left to jax.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from csp.formats.tensor import Pair


def flatten(params: Any) -> dict[str, Any]:
    """name -> array, or the factors of one, for every leaf that is not None."""
    found: dict[str, Any] = {}
    for name, leaf in _walk(params, ()):
        if name in found:
            raise ValueError(f"two tensors are called {name!r}: rename one")
        found[name] = leaf
    return found


def nest(flat: Mapping[str, Any]) -> Any:
    """{"a/b": x} as {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *folders, last = name.split("/")
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
            if not isinstance(at, dict):
                raise ValueError(f"{name!r} lies inside another tensor: load it with flat=True")
        if last in at:
            raise ValueError(f"{name!r} is a folder of other tensors too: load it with flat=True")
        at[last] = leaf
    return tree


def fill(like: Any, flat: Mapping[str, Any]) -> Any:
    """The tree `like` with these leaves, factors where it has them; all differences are named at once."""
    wanted = {name: _shape(leaf) for name, leaf in flatten(like).items()}
    flat = {name: w if _is_pair(wanted.get(name, ())) else dense(w) for name, w in flat.items()}
    wrong = [f"{name!r} is missing" for name in wanted if name not in flat]
    wrong += [f"{name!r} is unknown" for name in flat if name not in wanted]
    wrong += [
        f"{name!r} has shape {_shape(flat[name])} for {shape}"
        for name, shape in wanted.items()
        if name in flat and _shape(flat[name]) != shape
    ]
    if wrong:
        raise ValueError(f"the file does not fit these parameters: {'; '.join(wrong)}")
    import jax

    leaves = [x for name in wanted for x in (flat[name] if isinstance(flat[name], Pair) else [flat[name]])]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def dense(leaf: Any) -> np.ndarray:
    """An array; factors multiplied out."""
    if isinstance(leaf, tuple):
        u, v = map(np.asarray, leaf)
        return (u @ v).astype(u.dtype)
    return np.asarray(leaf)


def _is_pair(shape: tuple) -> bool:
    return len(shape) == 2 and isinstance(shape[0], tuple)


def _shape(leaf: Any) -> Any:
    """Of an array; of both factors."""
    return tuple(map(np.shape, leaf)) if isinstance(leaf, tuple) else np.shape(leaf)


def _walk(tree: Any, path: tuple[str, ...]):
    if tree is None:
        return
    if isinstance(tree, Mapping):
        for key in sorted(tree):
            yield from _walk(tree[key], (*path, str(key)))
    elif getattr(tree, "_fields", ()) == Pair._fields and np.ndim(tree[0]) > 1:
        yield "/".join(path), tree
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        for key in tree._fields:
            yield from _walk(getattr(tree, key), (*path, key))
    elif isinstance(tree, list | tuple):
        for number, item in enumerate(tree):
            yield from _walk(item, (*path, str(number)))
    elif hasattr(tree, "__array__") or isinstance(tree, float):
        yield "/".join(path), tree
    else:
        yield from _walk_by_jax(tree, path)


def _walk_by_jax(tree: Any, path: tuple[str, ...]):
    from csp.rules import named_leaves

    for name, leaf in named_leaves(tree):
        yield "/".join((*path, name) if name else path), leaf
