"""What is the Lasso solution of y = A x? ISTA, FISTA, and proximal steps in the metric of Adam."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from csp import shrinkage
from csp.solve import check, proximal

_FLOOR = 0.1  # of the largest first gradient: the least metric
_MOMENTUM, _MEMORY = 0.9, 0.999  # Adam's


def lasso(
    a: ArrayLike, y: ArrayLike, alpha: float, method: str = "fista", steps: int = 20_000, tol: float | None = None
) -> jax.Array:
    r"""Solve $\min_x \frac{1}{2n} \|y - A x\|_2^2 + \alpha \|x\|_1$, scikit-learn's Lasso without intercept.

    Args:
      a: matrix [n, d].
      y: vector [n].
      alpha: penalty >= 0.
      method: "ista"; "fista", accelerated with adaptive restart; "metric", Adam with the prox of the l1 norm taken in
        Adam's own diagonal metric.
      steps: at most that many; what is found by then is returned. "ista" and "metric" may want more than "fista".
      tol: stop when a step moves no coefficient by more than tol times the largest; by default 8 machine epsilons.

    Returns:
      The coefficients [d], in float64 if the data is.

    >>> lasso(jnp.eye(4), jnp.array([3.0, -0.3, 1.5, 0.0]), alpha=0.25)
    Array([2. , 0. , 0.5, 0. ], dtype=float32)
    """
    solver = check.choice("method", method, _METHODS)
    a, y = check.system(a, y)
    check.count("steps", steps, 1)
    exact = jnp if isinstance(alpha, jax.core.Tracer) else np  # as a float of Python it may be beyond float32
    penalty, power = exact.frexp(check.number("alpha", alpha))
    tol = 8 * float(jnp.finfo(a.dtype).eps) if tol is None else check.number("tol", tol)
    return _solve(solver, a, y, jnp.asarray(penalty, a.dtype), jnp.asarray(power, jnp.int32), steps, tol)


@partial(jax.jit, static_argnums=0)
def _solve(solver, a, y, penalty, power, steps, tol):
    (a, unit), (y, size) = proximal.near_one(a), proximal.near_one(y)  # on which the problem does not depend

    def gradient(x):
        return (a @ x - y) @ a / len(y)

    with jax.default_matmul_precision("highest"):
        x = solver(gradient, a / len(y) ** 0.5, jnp.ldexp(penalty, power - unit - size), steps, tol)
        return jnp.ldexp(x, size - unit)


def _plain(walk, gradient, root, alpha, steps, tol):
    """`root` is a square root of the Hessian: its largest singular value squared is the Lipschitz constant."""
    lipschitz = jnp.maximum(jnp.linalg.norm(root, 2) ** 2, jnp.finfo(root.dtype).tiny)

    def step(x):
        return shrinkage.soft(x - gradient(x) / lipschitz, alpha / lipschitz)

    return walk(step, jnp.zeros(root.shape[1], root.dtype), steps, tol)


def _metric(gradient, root, alpha, steps, tol):
    """Adam whose second moment may only grow: a step size safe in the first metric stays safe in every later one."""
    x = jnp.zeros(root.shape[1], root.dtype)
    first = jnp.abs(gradient(x))
    floor = jnp.maximum(_FLOOR * jnp.max(first), jnp.finfo(root.dtype).tiny)
    rate = 1 / jnp.maximum(jnp.linalg.norm(root / jnp.sqrt(first + floor), 2) ** 2, jnp.finfo(root.dtype).tiny)

    def step(state):
        x, m, v, largest, i = state
        g = gradient(x)
        m = _MOMENTUM * m + (1 - _MOMENTUM) * g
        v = _MEMORY * v + (1 - _MEMORY) * g * g
        largest = jnp.maximum(largest, v / (1 - _MEMORY**i))
        metric = jnp.sqrt(largest) + floor
        x = shrinkage.soft(x - rate * m / (1 - _MOMENTUM**i) / metric, rate * alpha / metric)
        return x, m, v, largest, i + 1

    zero = jnp.zeros_like(x)
    return proximal.until_still(step, (x, zero, zero, zero, jnp.ones((), x.dtype)), steps, tol)


_METHODS: dict[str, Any] = {
    "ista": partial(_plain, proximal.ista),
    "fista": partial(_plain, proximal.fista),
    "metric": _metric,
}
