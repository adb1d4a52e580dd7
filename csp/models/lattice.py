"""How probable is a transcript, whatever its alignment? The transducer's sum over all paths, and its gradient.

A path through the lattice of T frames and U labels goes right (blank, to the next frame) or up (a label), from (0, 0)
to (T, U). With alpha(t, u) the log-probability of reaching (t, u) and beta(t, u) that of finishing from there,

  log P = beta(0, 0),   d log P / d blank(t, u) = exp(alpha(t, u) + blank(t, u) + beta(t + 1, u) - log P)

and likewise for labels. Nodes with the same t + u are independent: both recursions go diagonal by diagonal, together.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

NEVER = -1e30  # a logarithm of zero whose differences are numbers


@jax.custom_vjp
def log_likelihood(blank_BxTxV: Array, label_BxTxU: Array, T_B: Array, U_B: Array) -> Array:
    """log P_B; V is U + 1. An utterance without frames has no alignment: 0, and no gradient.

    Args:
      blank_BxTxV: log-probability of a blank at each node.
      label_BxTxU: log-probability of the next label at each node.
      T_B: frames of each utterance.
      U_B: labels of each utterance.
    """
    return _sums(blank_BxTxV, label_BxTxU, T_B, U_B)[0]


def _sums(blank_BxTxV: Array, label_BxTxU: Array, T_B: Array, U_B: Array) -> tuple[Array, tuple[Array, ...]]:
    B, T, V = blank_BxTxV.shape
    u_V, t_T = jnp.arange(V), jnp.arange(T)
    inside_BxTxV = (t_T[:, None] < T_B[:, None, None]) & (u_V <= U_B[:, None, None])
    climbing_BxTxV = inside_BxTxV & (u_V < U_B[:, None, None])
    blank_BxTxV = jnp.where(inside_BxTxV, blank_BxTxV.astype(jnp.float32), NEVER)
    padded_BxTxV = jnp.pad(label_BxTxU.astype(jnp.float32), ((0, 0), (0, 0), (0, 1)))
    label_BxTxV = jnp.where(climbing_BxTxV, padded_BxTxV, NEVER)
    blank_NxBxV, label_NxBxV = _skew(blank_BxTxV), _skew(label_BxTxV)  # at diagonal n stands (n - u, u)
    N = T + V
    end_NxBxV = (jnp.arange(N)[:, None, None] == (T_B + U_B)[None, :, None]) & (u_V == U_B[:, None])

    def step(carry, at):
        alpha_BxV, beta_BxV = carry
        blank, label, back_blank, back_label, end = at
        here = jnp.logaddexp(alpha_BxV + blank, _up(alpha_BxV + label))  # alpha on diagonal n + 1
        further = jnp.logaddexp(beta_BxV + back_blank, _down(beta_BxV) + back_label)  # beta on diagonal N - 1 - n
        further = jnp.where(end, 0.0, further)
        return (here, further), (alpha_BxV, further)

    start = jnp.where(u_V == 0, 0.0, NEVER) * jnp.ones((B, 1))
    at = (blank_NxBxV, label_NxBxV, blank_NxBxV[::-1], label_NxBxV[::-1], end_NxBxV[::-1])
    _, (alpha_NxBxV, beta_NxBxV) = jax.lax.scan(step, (start, jnp.full((B, V), NEVER)), at)
    beta_NxBxV = beta_NxBxV[::-1]
    total_B = jnp.where(T_B > 0, beta_NxBxV[0, :, 0], 0.0)
    return total_B, (alpha_NxBxV, beta_NxBxV, blank_NxBxV, label_NxBxV, total_B, T_B, jnp.zeros((T, 0)))


def _gradient(kept, grad_B):
    alpha, beta, blank, label, total_B, T_B, shape = kept
    T = shape.shape[0]
    after = jnp.concatenate([beta[1:], jnp.full_like(beta[:1], NEVER)])
    share = jnp.where(T_B > 0, grad_B, 0.0)[:, None]
    flow_blank = share * jnp.exp(jnp.minimum(alpha + blank + after - total_B[:, None], 0.0))
    flow_label = share * jnp.exp(jnp.minimum(alpha + label + _down(after) - total_B[:, None], 0.0))
    return _straighten(flow_blank, T), _straighten(flow_label, T)[..., :-1], None, None


log_likelihood.defvjp(_sums, _gradient)


def _up(x_BxV: Array) -> Array:
    """The value of u at u + 1."""
    return jnp.pad(x_BxV, ((0, 0), (1, 0)), constant_values=NEVER)[:, :-1]


def _down(x_xV: Array) -> Array:
    """The value of u + 1 at u."""
    return jnp.concatenate([x_xV[..., 1:], jnp.full_like(x_xV[..., :1], NEVER)], axis=-1)


def _skew(x_BxTxV: Array) -> Array:
    """x_NxBxV with N = T + V: row n holds x[t, u] where t + u = n. Padding and reshaping shift row u by u."""
    B, T, V = x_BxTxV.shape
    x_VxBxT = jnp.transpose(x_BxTxV, (2, 0, 1))
    wide = jnp.pad(x_VxBxT, ((0, 0), (0, 0), (0, V + 1)), constant_values=NEVER)  # rows of T + V + 1
    long = jnp.swapaxes(wide, 0, 1).reshape(B, V * (T + V + 1))[:, : V * (T + V)]
    return jnp.transpose(long.reshape(B, V, T + V), (2, 0, 1))


def _straighten(x_NxBxV: Array, T: int) -> Array:
    """The inverse of `_skew`."""
    N, B, V = x_NxBxV.shape
    long = jnp.transpose(x_NxBxV, (1, 2, 0)).reshape(B, V * N)
    wide = jnp.pad(long, ((0, 0), (0, V))).reshape(B, V, N + 1)
    return jnp.swapaxes(wide[:, :, :T], 1, 2)


def joint_likelihood(
    logits: Callable[[Array, Array], Array],
    h_BxTxD: Array,
    g_BxVxD: Array,
    labels_BxU: Array,
    T_B: Array,
    U_B: Array,
    chunk: int = 8,
) -> Array:
    """log P_B under a joint network, whose B x T x U x vocabulary logits never exist together.

    `chunk` frames at a time are joined, normalised, and reduced to the blank and the next label; the gradient computes
    them once more.

    Args:
      logits: (h_BxCx1xD, g_Bx1xVxD) -> logits_BxCxVxK, blank at 0; differentiable in what it closes over.
      h_BxTxD: frames.
      g_BxVxD: states of the predictor, one more than labels.
      labels_BxU: numbers from 1.
      T_B: frames of each utterance.
      U_B: labels of each utterance.
      chunk: frames that are joined at a time.
    """
    B, T, D = h_BxTxD.shape
    count = -(-T // chunk)
    padded = jnp.pad(h_BxTxD, ((0, 0), (0, count * chunk - T), (0, 0)))
    h_NxBxCxD = jnp.swapaxes(padded.reshape(B, count, chunk, D), 0, 1)

    @partial(jax.checkpoint, prevent_cse=False)
    def reduce(h_BxCxD: Array) -> tuple[Array, Array]:
        return blank_and_label(logits(h_BxCxD[:, :, None], g_BxVxD[:, None]), labels_BxU)

    _, (blank, label) = jax.lax.scan(lambda none, h: (none, reduce(h)), None, h_NxBxCxD)
    blank, label = (jnp.swapaxes(x, 0, 1).reshape(B, count * chunk, -1)[:, :T] for x in (blank, label))
    return log_likelihood(blank, label, T_B, U_B)


@jax.custom_vjp
def blank_and_label(logits_BxCxVxK: Array, labels_BxU: Array) -> tuple[Array, Array]:
    """Log-probabilities of the blank, and of the next label, at each node.

    With p = softmax(logits), the gradient for weights a and b of the two is a e_blank + b e_label - (a + b) p.
    """
    return _picked(logits_BxCxVxK, labels_BxU)[0]


def _picked(logits_BxCxVxK, labels_BxU):
    logits_BxCxVxK = logits_BxCxVxK.astype(jnp.float32)
    total_BxCxV = jax.nn.logsumexp(logits_BxCxVxK, axis=-1)
    index = jnp.broadcast_to(labels_BxU[:, None, :, None], (*logits_BxCxVxK.shape[:2], labels_BxU.shape[1], 1))
    label_BxCxU = jnp.take_along_axis(logits_BxCxVxK[:, :, :-1], index, axis=-1)[..., 0]
    found = (logits_BxCxVxK[..., 0] - total_BxCxV, label_BxCxU - total_BxCxV[..., :-1])
    return found, (logits_BxCxVxK, total_BxCxV, labels_BxU)


def _picked_gradient(kept, grads):
    logits_BxCxVxK, total_BxCxV, labels_BxU = kept
    blank_BxCxV, label_BxCxU = grads
    label_BxCxV = jnp.pad(label_BxCxU, ((0, 0), (0, 0), (0, 1)))
    labels_BxV = jnp.pad(labels_BxU, ((0, 0), (0, 1)))
    unit_K = jnp.arange(logits_BxCxVxK.shape[-1])
    p_BxCxVxK = jnp.exp(logits_BxCxVxK - total_BxCxV[..., None])
    here = jnp.where(unit_K == labels_BxV[:, None, :, None], label_BxCxV[..., None], 0)
    here += jnp.where(unit_K == 0, blank_BxCxV[..., None], 0)
    return here - (blank_BxCxV + label_BxCxV)[..., None] * p_BxCxVxK, None


blank_and_label.defvjp(_picked, _picked_gradient)
