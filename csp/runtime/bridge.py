"""The runtime's kernels inside `jax.jit`, on CPU: for benchmarks of what a compiled program would gain.

They are called back from the compiled program, which works with every jaxlib; a handler of XLA's foreign function
interface would save some 20 us a call, and disables the whole CPU backend where it was built for a newer jaxlib.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csp.runtime import matrix, native


def product(w: Any, bias: Any = None, *, values: str = "int8", kernels: str | None = None) -> Callable[[Any], Any]:
    """f(x_..xI) = x W + bias by packed kernels, to be called under `jax.jit`.

    Args:
      w: [I, O], of which zeros are left out.
      bias: [O], or None.
      values: "int8", by which activations are quantised as well, or "float32".
      kernels: those of this machine by default.
    """
    if values not in ("int8", "float32"):
        raise ValueError(f"values {values!r} are none of 'int8', 'float32'")
    run = native.kernels(kernels)
    packed = run.pack(matrix.sparse(np.asarray(w, np.float32), values))
    added = None if bias is None else np.ascontiguousarray(bias, np.float32)

    def call(x: Any) -> np.ndarray:
        x = np.asarray(x, np.float32)
        return run.linear(packed, added, x.reshape(-1, packed.inputs)).reshape(*x.shape[:-1], packed.outputs)

    def f(x: Any) -> Any:
        if x.shape[-1] != packed.inputs:
            raise ValueError(f"x has shape {x.shape}, where {packed.inputs} inputs are expected")
        made = jax.ShapeDtypeStruct((*x.shape[:-1], packed.outputs), jnp.float32)
        return jax.pure_callback(call, made, x, vmap_method="broadcast_all")

    return f
