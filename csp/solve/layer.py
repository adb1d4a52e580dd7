"""Which sparse weights give a layer the same outputs? Solvers on the Gram matrix of its inputs.

With inputs X [samples, in] and G = X^T X, the error of weights Z instead of W, both [in, out], is
|X Z - X W|^2 = tr((Z - W)^T G (Z - W)): a compressed-sensing problem in every column, and no sample is needed again.
The constraint is given as a function, so that every structure works. It is called on weights whose rows are scaled by
sqrt(diag G), where plain magnitude is the better worth; supports and ranks are the same in either scale.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from csp.solve import check, proximal

Project = Callable[[jax.Array], jax.Array]
Shrink = Callable[[jax.Array, jax.Array], jax.Array]

_TIGHTEN = 1e-2, 1.0  # ADMM's penalty, from and to, in units of the mean eigenvalue, which the scaling makes 1
_PRESS = 1e-2, 1.0  # trimmed ISTA's penalty, from and to, in units of the root mean square weight


def least_squares_on_support(gram: ArrayLike, target: ArrayLike, keep: ArrayLike, steps: int = 100) -> jax.Array:
    r"""Solve $\min_Z \tfrac12 \mathrm{tr}((Z - W)^T G (Z - W))$ with Z zero outside `keep`.

    Conjugate gradients, all columns at once, preconditioned by the diagonal of G, to which as much of itself is added
    as rounding may be wrong by. So G may be singular, as where a layer has seen fewer different inputs than it has
    weights a column: what G says nothing of stays near W, where a direction that only rounding has made cheap would be
    followed to weights in the thousands.

    Args:
      gram: G [in, in], positive semi-definite.
      target: W [in, out].
      keep: boolean [in, out].
      steps: at most that many.

    Returns:
      Z [in, out].
    """
    gram, target = check.layer(gram, target)
    keep = jnp.asarray(keep)
    if keep.shape != target.shape or keep.dtype != bool:
        raise ValueError(f"keep must be boolean of shape {target.shape}, got {keep.dtype} of shape {keep.shape}")
    check.count("steps", steps, 0)
    return _conjugate_gradients(gram, target, keep, steps)


@jax.jit
def _conjugate_gradients(gram, target, keep, steps):
    with jax.default_matmul_precision("highest"):
        size = jnp.diag(gram)
        gram = gram + len(gram) * jnp.finfo(gram.dtype).eps * jnp.diag(size)
        inverse = _ratio(1, size)[:, None]
        z = jnp.where(keep, target, 0)
        r = jnp.where(keep, gram @ (target - z), 0)
        p = inverse * r
        rho = jnp.sum(r * p, 0)
        solved = rho * (4 * jnp.finfo(z.dtype).eps) ** 2

        def step(_, state):
            z, r, p, rho = state
            q = jnp.where(keep, gram @ p, 0)
            along = jnp.where(rho > solved, _ratio(rho, jnp.sum(p * q, 0)), 0)
            z, r = z + along * p, r - along * q
            s = inverse * r
            new = jnp.sum(r * s, 0)
            return z, r, s + _ratio(new, rho) * p, new

        return jax.lax.fori_loop(0, steps, step, (z, r, p, rho))[0]


def admm(gram: ArrayLike, w: ArrayLike, project: Project, steps: int = 200) -> jax.Array:
    r"""Solve $\min_Z \tfrac12 \mathrm{tr}((Z - W)^T G (Z - W))$ with Z in C, by alternating directions.

    $X = (G + \rho I)^{-1} (G W + \rho Z - V)$, $Z = P_C(X + V / \rho)$, $V \leftarrow V + \rho (X - Z)$. C is not
    convex: $\rho$ rises geometrically, from where C hardly binds to where the support no longer changes. Finish with
    `least_squares_on_support`.

    Args:
      gram: G [in, in], positive semi-definite.
      w: W [in, out].
      project: the projection on C, traceable, for C closed under scaling of rows.
      steps: iterations.

    Returns:
      Z [in, out], in C.
    """
    gram, w = check.layer(gram, w)
    check.count("steps", steps, 1)
    return _admm(project, gram, w, steps)


@partial(jax.jit, static_argnums=(0, 3))
def _admm(project, gram, w, steps):
    with jax.default_matmul_precision("highest"):
        gram, w, scale = _unit_diagonal(gram, w)
        values, vectors = jnp.linalg.eigh(gram)
        values = jnp.maximum(values, 0)[:, None]
        pulled = values * (vectors.T @ w)

        def step(state, penalty):
            z, v = state
            x = vectors @ ((pulled + vectors.T @ (penalty * z - v)) / (values + penalty))
            z = project(x + v / penalty)
            return (z, v + penalty * (x - z)), None

        penalties = jnp.geomspace(*_TIGHTEN, steps, dtype=w.dtype)
        (z, _), _ = jax.lax.scan(step, (project(w), jnp.zeros_like(w)), penalties)
        return z / scale


def trimmed_ista(gram: ArrayLike, w: ArrayLike, shrink: Shrink, steps: int = 300) -> jax.Array:
    r"""Solve $\min_Z \tfrac12 \mathrm{tr}((Z - W)^T G (Z - W)) + \lambda\,T_C(Z)$, the compression error as a penalty.

    Accelerated proximal gradient steps, $\lambda$ rising geometrically; the last step projects. Finish with
    `least_squares_on_support`.

    Args:
      gram: G [in, in], positive semi-definite.
      w: W [in, out].
      shrink: `shrink(z, t)`, traceable: the prox of t T_C, which keeps the best units of z and soft-thresholds the rest
        at t; at t = infinity, the projection on C.
      steps: iterations.

    Returns:
      Z [in, out], in C.
    """
    gram, w = check.layer(gram, w)
    check.count("steps", steps, 1)
    return _trimmed_ista(shrink, gram, w, steps)


@partial(jax.jit, static_argnums=(0, 3))
def _trimmed_ista(shrink, gram, w, steps):
    with jax.default_matmul_precision("highest"):
        gram, w, scale = _unit_diagonal(gram, w)
        lipschitz = jnp.maximum(jnp.linalg.eigvalsh(gram)[-1], jnp.finfo(w.dtype).tiny)

        def step(state, t):
            return proximal.extrapolate(lambda z: shrink(z - gram @ (z - w) / lipschitz, t), state), None

        size = jnp.sqrt(jnp.mean(w**2))
        thresholds = jnp.geomspace(*_PRESS, steps, dtype=w.dtype) * size / lipschitz
        (z, *_), _ = jax.lax.scan(step, proximal.extrapolation(w), thresholds)
        return shrink(z, jnp.full((), jnp.inf, w.dtype)) / scale


def _unit_diagonal(gram, w):
    """The same problem for weights in units of their inputs; those of dead inputs are worth next to nothing."""
    scale = jnp.sqrt(jnp.maximum(jnp.diag(gram), 0))
    least = jnp.finfo(w.dtype).eps * jnp.max(scale, initial=0)
    scale = jnp.where(scale > 0, scale, jnp.where(least > 0, least, 1))
    return gram / scale[:, None] / scale, w * scale[:, None], scale[:, None]


def _ratio(numerator, denominator):
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 0)
