"""Which k-sparse x explains y = A x? Trimmed lasso, NIHT, OMP, Lasso + least squares.

Each method names a support of k entries; least squares on it gives the values.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from csp import select, shrinkage
from csp.solve import check, proximal

_ROUNDS, _STEPS = 30, 100  # of continuation, and FISTA steps in each
_FROM, _LOW, _LOWEST = 0.5, 5e-4, 5e-5  # penalties, in units of that above which nothing is left
_FLATTEN = 0.1  # singular values above this part of the largest are made equal
_NIHT_STEPS, _NIHT_CAUTION = 500, 0.99


def recover(a: ArrayLike, y: ArrayLike, k: int, method: str = "trimmed") -> jax.Array:
    r"""Solve $\min_x \|y - A x\|_2$ subject to at most k non-zeros, approximately: the problem is NP-hard.

    Columns are scaled to length one before the support is sought, so that their units do not matter.

    Args:
      a: matrix [n, d].
      y: vector [n].
      k: non-zeros.
      method: "trimmed", "niht", "omp" or "lasso+ls": see the functions of these names.

    Returns:
      The coefficients [d], at most k of them not zero, fitted by least squares on their support.

    >>> recover(jnp.eye(4), jnp.array([0.0, 3.0, 0.1, -2.0]), k=2)
    Array([ 0.,  3.,  0., -2.], dtype=float32)
    """
    support = check.choice("method", method, _METHODS)
    a, y = check.system(a, y)
    return _recover(support, a, y, check.count("k", k, 0, min(a.shape)))


@partial(jax.jit, static_argnums=0)
def _recover(support, a, y, k):
    with jax.default_matmul_precision("highest"):
        (a, shift), (y, size) = proximal.near_one(a, axis=0), proximal.near_one(y)
        length = jnp.linalg.norm(a, axis=0)
        length = jnp.where(length > 0, length, 1)
        keep = support(a / length, y, k)
        return jnp.where(keep, jnp.ldexp(_fit(a / length, y, keep) / length, size - shift), 0)


def trimmed(a: jax.Array, y: jax.Array, k: ArrayLike) -> jax.Array:
    r"""The support of a continuation in the trimmed lasso $\tfrac12 \|y - A x\|^2 + \lambda\,T_j(x)$.

    $T_j$ exempts the j largest magnitudes from the penalty. While $\lambda$ falls, j rises from 0, the Lasso, to k. In
    each round the exempt set is held and FISTA solves what is then a convex problem, so that every round descends. The
    problem as a whole is not convex, and the path decides what is found: exempting entries from the start is best for
    magnitudes that differ, exempting none before the Lasso path has ended is best for magnitudes that are equal. Both
    are walked, and the support that explains y better is returned.

    Args:
      a: matrix [n, d], columns of about equal length.
      y: vector [n].
      k: non-zeros; may be traced.

    Returns:
      Boolean [d], exactly k True.
    """
    rise, half = jnp.linspace(0, 1, _ROUNDS, dtype=a.dtype), _ROUNDS // 2
    early = _fall(a, _LOWEST, _ROUNDS)
    late = jnp.full_like(early, _LOW).at[:half].set(_fall(a, _LOW, half))
    penalties = jnp.stack([early, late])
    exempt = jnp.stack([rise, jnp.maximum(2 * rise - 1, 0)])
    keeps = jax.vmap(partial(_continue, a, y, k))(penalties, exempt)
    misfits = jax.vmap(lambda keep: jnp.linalg.norm(y - a @ _fit(a, y, keep)))(keeps)
    return keeps[jnp.argmin(misfits)]


def lasso_least_squares(a: jax.Array, y: jax.Array, k: ArrayLike) -> jax.Array:
    """The k largest entries at the end of the Lasso path: `trimmed` with nothing ever exempt."""
    penalties = _fall(a, _LOWEST, _ROUNDS)
    return _continue(a, y, k, penalties, jnp.zeros_like(penalties))


def niht(a: jax.Array, y: jax.Array, k: ArrayLike) -> jax.Array:
    r"""The support of normalised iterative hard thresholding (Blumensath & Davies, 2010).

    $x \leftarrow H_k(x + \mu A^T (y - A x))$, where $\mu$ is the exact step along the gradient on the present support,
    halved while the support changes and $\mu > 0.99\,\|\Delta x\|^2 / \|A \Delta x\|^2$.
    """

    def project(x):
        return shrinkage.hard(x, select.keep_largest(jnp.abs(x), k))

    def bound(move):
        return _NIHT_CAUTION * _ratio(jnp.sum(move**2), jnp.sum((a @ move) ** 2))

    def step(_, x):
        gradient = (y - a @ x) @ a
        keep = jnp.where(jnp.any(x != 0), x != 0, select.keep_largest(jnp.abs(gradient), k))
        inside = jnp.where(keep, gradient, 0)
        rate = _ratio(jnp.sum(inside**2), jnp.sum((a @ inside) ** 2))

        def too_long(rate):
            new = project(x + rate * gradient)
            return jnp.any((new != 0) != keep) & (rate > bound(new - x)) & jnp.any(new != x)

        rate = jax.lax.while_loop(too_long, lambda rate: rate / 2, rate)
        return project(x + rate * gradient)

    x = jax.lax.fori_loop(0, _NIHT_STEPS, step, jnp.zeros(a.shape[1], a.dtype))
    return select.keep_largest(jnp.abs(x), k)


def omp(a: jax.Array, y: jax.Array, k: ArrayLike) -> jax.Array:
    """The support of orthogonal matching pursuit: k times, the column that the residual resembles most."""
    n, d = a.shape

    def step(i, state):
        keep, basis, residual = state
        best = jnp.argmax(jnp.where(keep, -1, jnp.abs(residual @ a)))
        column = a[:, best]
        for _ in range(2):  # Gram-Schmidt, twice is enough
            column = column - basis @ (column @ basis)
        column = column * _ratio(1, jnp.linalg.norm(column))
        residual = residual - column * (column @ residual)
        return keep.at[best].set(True), basis.at[:, i].set(column), residual

    start = (jnp.zeros(d, bool), jnp.zeros((n, min(n, d)), a.dtype), y)
    return jax.lax.fori_loop(0, k, step, start)[0]


def _fall(a, to, rounds):
    return jnp.geomspace(_FROM, to, rounds, dtype=a.dtype)


def _continue(a, y, k, penalties, exempt):
    a, y = _flatten(a, y)
    top = jnp.max(jnp.abs(y @ a))

    def solve(x, now):
        penalty, exempt = now
        keep = select.keep_largest(jnp.abs(x), exempt)
        return proximal.fista(lambda z: shrinkage.trimmed(z - (a @ z - y) @ a, keep, top * penalty), x, _STEPS), None

    x, _ = jax.lax.scan(solve, jnp.zeros(a.shape[1], a.dtype), (penalties, jnp.round(k * exempt).astype(int)))
    return select.keep_largest(jnp.abs(x), k)


def _flatten(a, y):
    """The same equations in other combinations: most singular values 1, none above, so that a step of 1 is safe."""
    squares, u = jnp.linalg.eigh(a @ a.T)
    floor = jnp.maximum(_FLATTEN**2 * squares[-1], jnp.finfo(a.dtype).tiny)
    combine = (u / jnp.sqrt(jnp.maximum(squares, floor))) @ u.T
    return combine @ a, combine @ y


def _fit(a, y, keep):
    """Least squares on a support: normal equations, refined with residuals of the data itself."""
    kept = jnp.where(keep, a, 0)
    largest = jnp.max(jnp.sum(kept**2, 0))
    jitter = 10 * jnp.finfo(a.dtype).eps * jnp.where(largest > 0, largest, 1)
    factor = jax.scipy.linalg.cho_factor(kept.T @ kept + jnp.diag(jnp.where(keep, jitter, 1)))
    x = jnp.zeros(a.shape[1], a.dtype)
    for _ in range(3):
        x = x + jax.scipy.linalg.cho_solve(factor, (y - kept @ x) @ kept)
    return x


def _ratio(numerator, denominator):
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), 0)


_METHODS: dict[str, Any] = {"trimmed": trimmed, "niht": niht, "omp": omp, "lasso+ls": lasso_least_squares}
