"""How is a weight made smaller? The prox operators: soft, firm, hard, ridge, trimmed, group, singular.

Every function solves a small minimisation exactly, in float32 whatever the dtype of the weights (in float64 if they are
float64), and returns the dtype it was given. A zero is always +0.0, and NaN stays NaN.
"""

import math

import jax
import jax.numpy as jnp

from csp import select

Axes = int | tuple[int, ...] | None

_NEWTON_STEPS = 16  # suffices for a metric that spans twenty orders of magnitude


def soft(w: jax.Array, t: jax.typing.ArrayLike) -> jax.Array:
    r"""Soft threshold: $\arg\min_z \tfrac12 (z - w)^2 + t |z|$ per entry, which is $\mathrm{sign}(w) \max(|w| - t, 0)$.

    Args:
      w: weights.
      t: threshold >= 0, broadcast against `w`; infinity gives zeros of what is finite.

    >>> soft(jnp.array([-3.0, 0.5, 2.0]), 1.0)
    Array([-2.,  0.,  1.], dtype=float32)
    """
    x = _wide(w)
    t = jnp.asarray(t, x.dtype)
    return _settle(x - jnp.clip(x, -t, t), w)


def firm(w: jax.Array, t: jax.typing.ArrayLike, gamma: float) -> jax.Array:
    r"""Firm threshold (Gao & Bruce, 1997): 0 up to t, w from gamma t on, straight in between.

    It is the prox of a concave penalty (MCP), $\int_0^{|z|} \max(t - x / \gamma, 0) dx$, and continuous as the soft
    threshold is, which it is for gamma = infinity; with 1 it is hard. What is large is left alone.

    >>> firm(jnp.array([-3.0, 0.5, 1.5]), 1.0, 2.0)
    Array([-3.,  0.,  1.], dtype=float32)
    """
    if not gamma >= 1:
        raise ValueError(f"a firm threshold needs gamma >= 1, got {gamma}")
    x = _wide(w)
    t = jnp.asarray(t, x.dtype)
    if gamma == 1:
        return _settle(jnp.where(jnp.abs(x) <= t, 0, x), w)
    size = jnp.abs(x)
    beyond = jnp.maximum(size - t, 0)
    shrunk = beyond if math.isinf(gamma) else jnp.minimum(size, beyond * (gamma / (gamma - 1)))
    shrunk = shrunk.astype(jnp.asarray(w).dtype)
    return jnp.where(x < 0, 0 - shrunk, shrunk)  # 0 - 0 is +0.0


def hard(w: jax.Array, keep: jax.Array) -> jax.Array:
    r"""Projection on a support: $\arg\min_z \tfrac12 \|z - w\|^2$ subject to $z = 0$ outside `keep`."""
    return jnp.where(keep & (w != 0), w, jnp.zeros_like(w))


def ridge(w: jax.Array, keep: jax.Array, c: jax.typing.ArrayLike) -> jax.Array:
    r"""Half squared compression error: $\arg\min_z \tfrac12 \|z - w\|^2 + \tfrac c2 \|z - P(z)\|^2$.

    The solution is $(w + c P(w)) / (1 + c)$ with $P(w)$ = `hard(w, keep)`, for `keep` the best support of `w`: what is
    kept stays, the rest is divided by $1 + c$. It is never exactly zero unless $c = \infty$, the projection.
    """
    x = _wide(w)
    return _settle(jnp.where(keep, x, x / (1 + jnp.asarray(c, x.dtype))), w)


def trimmed(w: jax.Array, keep: jax.Array, t: jax.typing.ArrayLike) -> jax.Array:
    r"""Trimmed soft threshold: $\arg\min_z \sum_i \tfrac12 (z_i - w_i)^2 + t_i |z_i| [i \notin \mathrm{keep}]$.

    `t` is c / d per entry for a shrinkage in the metric d, one c for all for a decoupled one. With `keep` chosen by
    `huber_worth` this is the prox of the trimmed lasso: see `trimmed_prox`.
    """
    x = _wide(w)
    return _settle(jnp.where(keep, x, _wide(soft(x, t))), w)


def huber_worth(w: jax.Array, c: jax.typing.ArrayLike, d: jax.typing.ArrayLike = 1.0) -> jax.Array:
    r"""What is lost if an entry is not exempt from shrinkage, as $\sqrt{2 h}$, in at least float32.

    $h = \min_z \tfrac d2 (z - w)^2 + c |z|$ is Huber's function: $\tfrac d2 w^2$ when $|w| \le c / d$, otherwise
    $c |w| - c^2 / (2 d)$. The root orders entries as h does, and neither under- nor overflows where h would: with
    $c = \infty$ it is $\sqrt d\,|w|$, and no worth of a weight that float32 can hold is lost.
    """
    x = jnp.abs(_wide(w))
    c, d = jnp.asarray(c, x.dtype), jnp.asarray(d, x.dtype)
    t = _threshold(c, d)
    beyond = jnp.sqrt(c) * jnp.sqrt(jnp.maximum(2 * x - t, 0))
    return jnp.where(x <= t, jnp.sqrt(d) * x, beyond)


def trimmed_prox(
    w: jax.Array, k: int, c: jax.typing.ArrayLike, d: jax.typing.ArrayLike = 1.0, axes: Axes = None
) -> jax.Array:
    r"""The prox of the trimmed lasso in a diagonal metric: $\arg\min_z \tfrac12 \sum_i d_i (z_i - w_i)^2 + c\,T_k(z)$.

    $T_k(z)$ is the sum of all but the k largest magnitudes. The k entries of largest `huber_worth` are kept untouched,
    the others soft-thresholded at $c / d_i$.

    Args:
      w: weights.
      k: entries exempt from shrinkage, in every slice along `axes`.
      c: step size times penalty.
      d: metric > 0, broadcast against `w`.
      axes: axes along which entries compete; all by default.

    >>> trimmed_prox(jnp.array([3.0, -2.0, 1.5]), k=1, c=1.0)
    Array([ 3. , -1. ,  0.5], dtype=float32)
    """
    x = _wide(w)
    c, d = jnp.asarray(c, x.dtype), jnp.asarray(d, x.dtype)
    worth = jnp.abs(x) if c.ndim == d.ndim == 0 else huber_worth(x, c, d)
    return trimmed(w, select.keep_largest(worth, k, axes), _threshold(c, d))


def group_soft(w: jax.Array, t: jax.typing.ArrayLike, axes: Axes = None) -> jax.Array:
    r"""Group soft threshold: $\arg\min_z \tfrac12 \|z - w\|_2^2 + t \|z\|_2$ for every group, a slice along `axes`.

    The norm shrinks by t, the direction stays. `t` broadcasts against the norms with `axes` kept as 1.
    """
    x = _wide(w)
    t = jnp.asarray(t, x.dtype)
    norm = _norm(x, axes)
    alive = norm > t
    scale = jnp.where(alive, (norm - t) / jnp.where(alive, norm, 1), jnp.where(jnp.isnan(norm), norm, 0))
    return _settle(jnp.where(scale == 0, 0, x * scale), w)


def group_soft_metric(w: jax.Array, c: jax.typing.ArrayLike, d: jax.typing.ArrayLike, axes: Axes = None) -> jax.Array:
    r"""Group soft threshold in a metric: $\arg\min_z \tfrac12 \sum_i d_i (z_i - w_i)^2 + c \|z\|_2$ for every group.

    A group is zero if $\|d w\|_2 \le c$. Otherwise $z_i = s w_i / (s + c / d_i)$ with $s = \|z\|_2$ the root of
    $\sum_i w_i^2 / (s + c / d_i)^2 = 1$. The inverse root of that sum is concave and increasing in s, so that Newton's
    method, started below the root at $\|w\|_2 - c / \min d$, climbs to it without ever passing it.

    Args:
      w: weights.
      c: step size times penalty, broadcast against the norms with `axes` kept as 1.
      d: metric > 0, broadcast against `w`.
      axes: the axes of one group; all by default.
    """
    x = _wide(w)
    c, d = jnp.asarray(c, x.dtype), jnp.broadcast_to(jnp.asarray(d, x.dtype), x.shape)
    t = _threshold(c, d)
    alive = _norm(d * x, axes) > c

    def pull(s):
        return jnp.where(alive, s + t, 1)

    def climb(_, s):
        p = x / pull(s)
        norm = _norm(p, axes)
        q = p / jnp.where(norm > 0, norm, 1)
        slope = jnp.sum(q * q / pull(s), axes, keepdims=True)
        return jnp.where(alive, s + jnp.maximum(norm - 1, 0) / jnp.where(slope > 0, slope, 1), 0)

    start = jnp.maximum(_norm(x, axes) - jnp.max(t, axes, keepdims=True), 0)
    s = jax.lax.fori_loop(0, _NEWTON_STEPS, climb, start)
    dead = jnp.where(jnp.isnan(x), x, 0)
    return _settle(jnp.where(alive, x * (s / pull(s)), dead), w)


def truncate(w: jax.Array, rank: jax.typing.ArrayLike) -> jax.Array:
    r"""Projection on low rank: $\arg\min_Z \|Z - W\|_F$ subject to rank Z <= `rank` (Eckart-Young).

    Leading axes are a batch. `rank` may be traced.
    """
    return singular(w, rank, jnp.inf)


def singular(w: jax.Array, rank: jax.typing.ArrayLike, t: jax.typing.ArrayLike) -> jax.Array:
    r"""Truncated nuclear norm: $\arg\min_Z \tfrac12 \|Z - W\|_F^2 + t \sum_{i > r} \sigma_i(Z)$.

    The `rank` largest singular values are kept, the others soft-thresholded at `t`; t = infinity truncates. Leading
    axes are a batch, against which `rank` and `t` broadcast. `rank` may be traced.
    """
    u, s, vh = jnp.linalg.svd(_wide(w), full_matrices=False)
    keep = jnp.arange(s.shape[-1]) < jnp.asarray(rank)[..., None]
    s = trimmed(s, keep, jnp.asarray(t, s.dtype)[..., None])
    return _settle(jnp.matmul(u * s[..., None, :], vh, precision="highest"), w)


def _wide(w):
    w = jnp.asarray(w)
    return w.astype(jnp.promote_types(w.dtype, jnp.float32))


def _settle(z, like):
    z = z.astype(jnp.asarray(like).dtype)
    return jnp.where(z == 0, jnp.zeros_like(z), z)


def _threshold(c, d):
    return jnp.where(c > 0, c / d, 0)


def _norm(x, axes):
    top = jnp.max(jnp.abs(x), axes, keepdims=True)
    scale = jnp.where(top > 0, top, 1)
    return top * jnp.sqrt(jnp.sum((x / scale) ** 2, axes, keepdims=True))
