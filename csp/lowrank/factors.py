"""Which few directions of a matrix are worth keeping?

A matrix W [in, out] acts on row vectors, y = x W, and is kept as W = u v with u [in, rank] and v [rank, out].
Every function takes leading batch axes, computes in float32 (float64 for float64) and answers in the dtype it
was given. All factors are balanced: u^T u = v v^T = diag(s), the singular values of u v, so that a step of an
optimizer is worth the same on either side.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_dot = partial(jnp.matmul, precision="highest")
_svd = partial(jnp.linalg.svd, full_matrices=False)


class Factors(NamedTuple):
    """A matrix W = u v that is never formed; a pytree, to be put where the matrix was."""

    u: Array
    v: Array

    @property
    def rank(self) -> int:
        return self.u.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix that the factors stand for."""
        return (*self.u.shape[:-1], self.v.shape[-1])

    @property
    def dtype(self) -> np.dtype:
        return self.u.dtype


def dense(w: Array | Factors) -> Array:
    """The matrix itself: u v for factors, w for a matrix."""
    return w.u @ w.v if isinstance(w, Factors) else w


def apply(x: Array, w: Array | Factors) -> Array:
    """y = x W: (x u) v for factors, x w for a matrix, so that one model runs before and after factoring."""
    return (x @ w.u) @ w.v if isinstance(w, Factors) else x @ w


def spectrum(w: Array | Factors, gram: Array | None = None) -> Array:
    """The singular values that truncation cuts, in descending order.

    Without `gram` those of W; with it those of S^T W, where S S^T = gram (see `factor_whitened`). The squares of
    all but the first r add up to the squared error of the best approximation of rank r.
    """
    core = _rotate(w)[0] if isinstance(w, Factors) else _lift(w)
    return _svd(core if gram is None else _whiten(core, gram), compute_uv=False)


def factor(w: Array, rank: int) -> Factors:
    """argmin |W - u v|_F over factors of this rank: the truncated singular value decomposition.

    Args:
        w: a matrix [..., in, out].
        rank: 1 <= rank <= min(in, out).

    Returns:
        Balanced factors; the squared error is the sum of the squared singular values left out (Eckart-Young).

    Example:
        >>> factors = factor(jnp.outer(jnp.arange(1.0, 5.0), jnp.ones(3)), rank=1)
        >>> factors.u.shape, factors.v.shape
        ((4, 1), (1, 3))
    """
    return _first(_nearest(_matrix(w, rank)), rank, w)


def factor_whitened(w: Array, rank: int, gram: Array) -> Factors:
    """argmin |X (W - u v)|_F over factors of this rank, for inputs X [samples, in] with gram = X^T X.

    With S S^T = gram the error is |S^T (W - u v)|_F. Let Q hold the first right singular vectors of S^T W: the
    optimum is W Q Q^T, since S^T W Q Q^T is the truncated decomposition of S^T W. S is never inverted, so gram may
    be singular.

    Args:
        w: a matrix [..., in, out].
        rank: 1 <= rank <= min(in, out).
        gram: X^T X or any multiple of it, [..., in, in], or [..., in] for its diagonal alone. The machine epsilon
            times the trace is added to a full one, so that W decides where gram says nothing.

    Returns:
        Balanced factors; the squared error is the sum of the squared values of `spectrum(w, gram)` left out.
    """
    return _first(_nearest_whitened(_matrix(w, rank), rank, gram), rank, w)


def factor_scaled(w: Array, rank: int, scale: Array) -> Factors:
    """argmin |diag(scale) (W - u v)|_F over factors of this rank.

    Args:
        w: a matrix [..., in, out].
        rank: 1 <= rank <= min(in, out).
        scale: what an error in each input's row costs, [..., in]: the root mean square of that input's
            activations, or the root of the Fisher information summed over the row.

    Returns:
        Balanced factors, those of `factor_whitened` with the diagonal Gram matrix scale^2.
    """
    return factor_whitened(w, rank, jnp.square(_lift(scale)))


def factor_randomised(w: Array, rank: int, seed: int = 0) -> Factors:
    """`factor` for a large matrix and a rank far below its sides, by scikit-learn's randomised SVD on the host.

    The error is near the optimum: within 1 % on the flattest of spectra, closer where the spectrum decays.
    """
    from sklearn.utils.extmath import randomized_svd

    core = _matrix(w, rank)
    *lead, n_in, n_out = core.shape
    matrices = np.asarray(core).reshape(-1, n_in, n_out)
    p, s, qt = zip(*(randomized_svd(each, rank, random_state=seed) for each in matrices), strict=True)
    stacked = (np.stack(x).reshape(*lead, *x[0].shape) for x in (p, s, qt))
    return _first(_balance(*map(jnp.asarray, stacked)), rank, w)


def truncate(factors: Factors, rank: int) -> Factors:
    """The best factors of a lower rank, argmin |u v - u' v'|_F, without forming u v.

    With the QR decomposition v^T = Q R, u v = (u R^T) Q^T. Rotating the outputs by Q changes no norm: what is
    decomposed is the small matrix u R^T [in, rank].

    Args:
        factors: u [..., in, k] and v [..., k, out].
        rank: 1 <= rank <= k; rank = k only balances.

    Returns:
        Balanced factors: those that `factor` would find for u v.
    """
    _check_rank(rank, min(factors.rank, *factors.shape[-2:]), factors.shape)
    core, basis = _rotate(factors)
    u, v = _nearest(core)
    return _first(Factors(u, _dot(v, basis)), rank, factors.u)


def truncate_whitened(factors: Factors, rank: int, gram: Array) -> Factors:
    """The best factors of a lower rank on data, argmin |X (u v - u' v')|_F, without forming u v.

    `truncate` with the error of `factor_whitened`, whose arguments these are.
    """
    _check_rank(rank, min(factors.rank, *factors.shape[-2:]), factors.shape)
    core, basis = _rotate(factors)
    u, v = _nearest_whitened(core, rank, gram)
    return _first(Factors(u, _dot(v, basis)), rank, factors.u)


@jax.jit
def _nearest(w: Array) -> Factors:
    p, s, qt = _svd(w)
    return _balance(p, s, qt)


def _nearest_whitened(w: Array, rank: int, gram: Array) -> Factors:
    kept = _svd(_whiten(w, gram))[2][..., :rank, :]
    u, v = _nearest(_dot(w, kept.mT))
    return Factors(u, _dot(v, kept))


def _balance(p: Array, s: Array, qt: Array) -> Factors:
    root = jnp.sqrt(s)
    return Factors(p * root[..., None, :], root[..., :, None] * qt)


def _first(factors: Factors, rank: int, given: Any) -> Factors:
    dtype = jnp.result_type(given)
    return Factors(factors.u[..., :rank].astype(dtype), factors.v[..., :rank, :].astype(dtype))


@jax.jit
def _rotate(factors: Factors) -> tuple[Array, Array]:
    """A small core [in, k] and an orthonormal basis [k, out] whose product is u v."""
    u, v = map(_lift, factors)
    q, r = jnp.linalg.qr(v.mT)
    return _dot(u, r.mT), q.mT


@jax.jit
def _whiten(w: Array, gram: Array) -> Array:
    """S^T W for S S^T = gram, or gram + epsilon trace(gram) I for a full one; like W if gram is zero."""
    gram = _lift(gram).astype(w.dtype)
    *lead, n_in, _ = w.shape
    number = jnp.finfo(w.dtype)
    if gram.shape == (*lead, n_in):
        return jnp.sqrt(gram + number.tiny)[..., None] * w
    if gram.shape == (*lead, n_in, n_in):
        ridge = number.eps * jnp.trace(gram, axis1=-2, axis2=-1)[..., None, None] + number.tiny
        root = jnp.linalg.cholesky(gram + ridge * jnp.broadcast_to(jnp.eye(n_in, dtype=w.dtype), gram.shape)).mT

        def slowly():  # where one direction is so large that rounding makes others negative
            values, vectors = jnp.linalg.eigh(gram)
            return jnp.sqrt(jnp.maximum(values[..., None], 0) + ridge) * vectors.mT

        return _dot(jax.lax.cond(jnp.all(jnp.isfinite(root)), lambda: root, slowly), w)
    raise ValueError(
        f"a Gram matrix of shape {gram.shape} does not fit a matrix with inputs {(*lead, n_in)}: "
        f"give X^T X of shape {(*lead, n_in, n_in)}, or its diagonal of shape {(*lead, n_in)}"
    )


def _matrix(w: Any, rank: int) -> Array:
    w = _lift(w)
    if w.ndim < 2:
        raise ValueError(f"a tensor of shape {w.shape} is no matrix: low rank needs [..., in, out]")
    _check_rank(rank, min(w.shape[-2:]), w.shape)
    return w


def _lift(x: Any) -> Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"low rank needs real floating point numbers, not {x.dtype}: cast them first")
    return x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)


def _check_rank(rank: int, limit: int, shape: tuple[int, ...]) -> None:
    if not 1 <= rank <= limit:
        raise ValueError(
            f"rank {rank} is outside 1 to {limit}, the ranks that a tensor of shape {shape} has: choose one"
        )
