"""From features to frames: stacked LSTMs with time reduction, or a Conformer, streaming or with the whole context."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from csp.models.attention import Attention, FeedForward
from csp.models.layers import Linear, Norm
from csp.models.lstm import LSTM
from csp.speech import features


class LSTMEncoder(nnx.Module):
    """Layers of LSTM, each normalised after it and added to its input where the widths agree."""

    def __init__(self, config: Any, inputs: int, rngs: nnx.Rngs):
        self.stack, self.reduce_after = config.stack, config.reduce_after
        widths = [inputs * config.stack] + [config.width] * config.layers
        if config.reduce_after:
            widths[config.reduce_after] *= 2
        self.layers = nnx.List([LSTM(width, config.width, rngs) for width in widths[:-1]])
        self.norms = nnx.List([Norm(config.width) for _ in self.layers])

    def __call__(self, y_BxTxF: Array, frames_B: Array) -> tuple[Array, Array]:
        h_BxTxD, frames_B = features.stack(y_BxTxF, self.stack, jnp), frames_B // self.stack
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True), 1):
            out_BxTxD = norm(layer(h_BxTxD)[0])
            h_BxTxD = out_BxTxD + h_BxTxD if out_BxTxD.shape == h_BxTxD.shape else out_BxTxD
            if number == self.reduce_after:
                h_BxTxD, frames_B = features.stack(h_BxTxD, 2, jnp), frames_B // 2
        return h_BxTxD, frames_B


class Conformer(nnx.Module):
    """Blocks of feed-forward, attention, convolution and feed-forward, each added to what came before.

    Streaming, a frame attends to its chunk and `left` chunks before it, and convolutions see the past only.
    """

    def __init__(self, config: Any, inputs: int, rngs: nnx.Rngs):
        self.config = config
        self.input = Linear(inputs * config.stack, config.width, rngs)
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.layers)])

    def __call__(self, y_BxTxF: Array, frames_B: Array) -> tuple[Array, Array]:
        h_BxTxD, frames_B = features.stack(y_BxTxF, self.config.stack, jnp), frames_B // self.config.stack
        h_BxTxD = self.input(h_BxTxD)
        T = h_BxTxD.shape[1]
        there_BxT = jnp.arange(T) < frames_B[:, None]
        sees_BxTxT = jnp.broadcast_to(there_BxT[:, None, :], (len(frames_B), T, T))
        if self.config.streaming:
            chunk_T = jnp.arange(T) // self.config.chunk
            past_TxT = chunk_T[:, None] - chunk_T[None, :]
            sees_BxTxT &= (past_TxT >= 0) & (past_TxT <= self.config.left)
        for block in self.blocks:
            h_BxTxD = block(h_BxTxD, there_BxT, sees_BxTxT)
        return h_BxTxD, frames_B


class Block(nnx.Module):
    """Half a feed-forward, attention, convolution, half a feed-forward, a norm."""

    def __init__(self, config: Any, rngs: nnx.Rngs):
        width = config.width
        self.first, self.second = FeedForward(width, 4 * width, rngs), FeedForward(width, 4 * width, rngs)
        self.attention = Attention(width, config.heads, rngs)
        self.convolution = Convolution(width, config.kernel, config.streaming, rngs)
        self.norm = Norm(width)

    def __call__(self, x_BxTxD: Array, there_BxT: Array, sees_BxTxT: Array) -> Array:
        x_BxTxD = x_BxTxD + 0.5 * self.first(x_BxTxD)
        x_BxTxD = x_BxTxD + self.attention(x_BxTxD, sees_BxTxT)
        x_BxTxD = x_BxTxD + self.convolution(x_BxTxD, there_BxT)
        return self.norm(x_BxTxD + 0.5 * self.second(x_BxTxD))


class Convolution(nnx.Module):
    """A gate, a convolution over time of each feature by itself, and back; its kernel is [kernel, width]."""

    def __init__(self, width: int, kernel: int, streaming: bool, rngs: nnx.Rngs):
        self.before = (kernel - 1) if streaming else (kernel - 1) // 2
        self.after = kernel - 1 - self.before
        self.norm, self.middle = Norm(width), Norm(width)
        self.up, self.down = Linear(width, 2 * width, rngs), Linear(width, width, rngs)
        self.taps = nnx.Param(jax.random.normal(rngs.params(), (kernel, width)) * kernel**-0.5)

    def __call__(self, x_BxTxD: Array, there_BxT: Array) -> Array:
        value, gate = jnp.split(self.up(self.norm(x_BxTxD)), 2, axis=-1)
        y_BxTxD = jnp.where(there_BxT[..., None], value * jax.nn.sigmoid(gate), 0)
        T = y_BxTxD.shape[1]
        padded = jnp.pad(y_BxTxD, ((0, 0), (self.before, self.after), (0, 0)))
        taps = self.taps[...].astype(x_BxTxD.dtype)
        y_BxTxD = jnp.zeros_like(y_BxTxD)
        for k in range(len(taps)):
            y_BxTxD += padded[:, k : k + T] * taps[k]
        return self.down(jax.nn.silu(self.middle(y_BxTxD)))
