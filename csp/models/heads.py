"""From frames to words: connectionist temporal classification, or a transducer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from csp.models import beam, lattice
from csp.models.layers import Embedding, Linear
from csp.models.lstm import LSTM

MOST = 4  # labels that a transducer may emit in one frame


class CTC(nnx.Module):
    """A label or a blank at every frame."""

    def __init__(self, width: int, vocabulary: int, rngs: nnx.Rngs):
        self.output = Linear(width, vocabulary, rngs)

    def loss(self, h_BxTxD: Array, frames_B: Array, labels_BxU: Array, count_B: Array) -> tuple[Array, Array]:
        """Utterances with more labels (and blanks between equal ones) than frames have no alignment."""
        logits_BxTxK = self.output(h_BxTxD).astype(jnp.float32)
        silent_BxT = jnp.arange(h_BxTxD.shape[1]) >= frames_B[:, None]
        missing_BxU = jnp.arange(labels_BxU.shape[1]) >= count_B[:, None]
        again_BxU = (labels_BxU[:, 1:] == labels_BxU[:, :-1]) & ~missing_BxU[:, 1:]
        fits_B = (frames_B >= count_B + again_BxU.sum(1)) & (frames_B > 0)
        loss_B = optax.ctc_loss(logits_BxTxK, silent_BxT * 1.0, labels_BxU, missing_BxU * 1.0)
        return jnp.where(fits_B, loss_B, 0.0), fits_B

    def greedy(self, h_BxTxD: Array, frames_B: Array) -> tuple[Array, Array]:
        best_BxT = jnp.argmax(self.output(h_BxTxD), -1)
        before_BxT = jnp.pad(best_BxT, ((0, 0), (1, 0)))[:, :-1]
        kept_BxT = (best_BxT != 0) & (best_BxT != before_BxT) & (jnp.arange(best_BxT.shape[1]) < frames_B[:, None])
        order_BxT = jnp.argsort(~kept_BxT, axis=1, stable=True)
        return jnp.take_along_axis(best_BxT, order_BxT, 1), kept_BxT.sum(1)

    def search(self, h_BxTxD: Array, frames_B: Array, width: int, fusion: beam.Fusion | None = None) -> beam.Rows:
        """The `width` best hypotheses of each utterance, the best first."""
        log_BxTxK = jax.nn.log_softmax(self.output(h_BxTxD).astype(jnp.float32))
        return jax.vmap(lambda log_TxK, frames: beam.ctc(log_TxK, frames, width, fusion))(log_BxTxK, frames_B)


class Transducer(nnx.Module):
    """Labels given frames and the labels before: an LSTM predictor, and a joint network of one hidden layer."""

    def __init__(self, config: Any, vocabulary: int, rngs: nnx.Rngs):
        self.embedding = Embedding(vocabulary, config.predictor, rngs)
        self.predictor = LSTM(config.predictor, config.predictor, rngs)
        self.from_encoder = Linear(config.width, config.joint, rngs)
        self.from_predictor = Linear(config.predictor, config.joint, rngs, bias=False)
        self.output = Linear(config.joint, vocabulary, rngs)

    def joint(self, h: Array, g: Array) -> Array:
        """Logits from projected frames and projected states."""
        return self.output(jnp.tanh(h + g))

    def states(self, labels_BxU: Array, dtype: Any) -> Array:
        """g_Bx(U+1)xJ: what the predictor says before the first label, and after each."""
        shifted_BxV = jnp.pad(labels_BxU, ((0, 0), (1, 0)))
        g_BxVxD, _ = self.predictor(self.embedding(shifted_BxV).astype(dtype))
        return self.from_predictor(g_BxVxD)

    def loss(self, h_BxTxD: Array, frames_B: Array, labels_BxU: Array, count_B: Array) -> tuple[Array, Array]:
        g_BxVxJ = self.states(labels_BxU, h_BxTxD.dtype)
        total_B = lattice.joint_likelihood(
            self.joint, self.from_encoder(h_BxTxD), g_BxVxJ, labels_BxU, frames_B, count_B
        )
        return -total_B, frames_B > 0

    def greedy(self, h_BxTxD: Array, frames_B: Array) -> tuple[Array, Array]:
        """At most MOST labels in a frame."""
        h_TxBxJ = jnp.swapaxes(self.from_encoder(h_BxTxD), 0, 1)
        T, B = h_TxBxJ.shape[:2]
        size = self.embedding.embedding.shape[1]
        zero = jnp.zeros((B, size), h_TxBxJ.dtype)
        g, carry = self._predict(jnp.zeros(B, jnp.int32), (zero, zero))
        rows = jnp.arange(B)

        def emit(state, at):
            tokens, count, g, carry = state
            h_BxJ, open_B = at
            best_B = jnp.argmax(self.joint(h_BxJ, g), -1).astype(jnp.int32)
            said_B = open_B & (best_B != 0)
            tokens = tokens.at[rows, count].set(jnp.where(said_B, best_B, tokens[rows, count]))
            next_g, next_carry = self._predict(best_B, carry)
            g, carry = jax.tree.map(lambda a, b: jnp.where(said_B[:, None], a, b), (next_g, next_carry), (g, carry))
            return (tokens, count + said_B, g, carry), said_B

        def frame(state, at):
            h_BxJ, t = at
            open_B = t < frames_B
            for _ in range(MOST):
                state, open_B = emit(state, (h_BxJ, open_B))
            return state, None

        start = (jnp.zeros((B, T * MOST + 1), jnp.int32), jnp.zeros(B, jnp.int32), g, carry)
        (tokens, count, _, _), _ = jax.lax.scan(frame, start, (h_TxBxJ, jnp.arange(T)))
        return tokens, count

    def search(self, h_BxTxD: Array, frames_B: Array, width: int, fusion: beam.Fusion | None = None) -> beam.Rows:
        """The `width` best hypotheses of each utterance, the best first."""
        zero = jnp.zeros((width, self.embedding.embedding.shape[1]), h_BxTxD.dtype)

        def one(h_TxJ: Array, frames: Array) -> beam.Rows:
            return beam.transducer(h_TxJ, frames, self.joint, self._predict, (zero, zero), width, fusion)

        return jax.vmap(one)(self.from_encoder(h_BxTxD), frames_B)

    def _predict(self, label_B: Array, carry: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        g_Bx1xD, carry = self.predictor(self.embedding(label_B)[:, None].astype(carry[0].dtype), carry)
        return self.from_predictor(g_Bx1xD[:, 0]), carry
