"""Which label comes next? A Transformer that sees the past only, or stacked LSTMs; 0 begins and ends a sentence."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from csp import lowrank
from csp.models import functional
from csp.models.attention import Attention, FeedForward
from csp.models.beam import Fusion, Rows
from csp.models.layers import Embedding, Linear, Norm, times
from csp.models.lstm import LSTM
from csp.rules import path_name

Params = Any


@dataclasses.dataclass(frozen=True)
class LMConfig:
    """The sizes of a language model.

    Args:
      network: "transformer" or "lstm".
      layers: how many.
      width: of each layer.
      heads: of the attention of each layer.
      hidden: width of a feed-forward network; 0 for four times `width`.
      positions: "rotary", or "learned" ones.
      context: labels that a sentence can have with learned positions.
      tied: the output is the embedding, transposed.
      dtype: "float32" or "bfloat16", of what is computed; parameters are float32.
      left_heads: how many heads each layer has, in a model from which some were removed.
      left_hidden: the width of each layer's feed-forward network, likewise.
      ranks: those of the matrices that are two factors, by path.
    """

    network: str = "transformer"
    layers: int = 6
    width: int = 256
    heads: int = 4
    hidden: int = 0
    positions: str = "rotary"
    context: int = 256
    tied: bool = True
    dtype: str = "float32"
    left_heads: tuple[int, ...] = ()
    left_hidden: tuple[int, ...] = ()
    ranks: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name, most in (("left_heads", self.heads), ("left_hidden", self.hidden or 4 * self.width)):
            left = getattr(self, name)
            if left and (len(left) != self.layers or not all(1 <= count <= most for count in left)):
                raise ValueError(f"model.{name} {left}: of each of {self.layers} layers between 1 and {most} are left")


class LanguageModel(nnx.Module):
    """`losses` of packed sentences; `start` and `step` for a search, label by label."""

    def __init__(self, config: LMConfig, vocabulary: int, rngs: nnx.Rngs):
        if config.network not in ("transformer", "lstm") or config.positions not in ("rotary", "learned"):
            raise ValueError(
                "model.network is 'transformer' or 'lstm', and model.positions 'rotary' or 'learned'; "
                f"not {config.network!r} and {config.positions!r}"
            )
        self.context, self.dtype = config.context, config.dtype
        self.embedding = Embedding(vocabulary, config.width, rngs)
        learned = config.network == "transformer" and config.positions == "learned"
        self.positions = Embedding(config.context, config.width, rngs) if learned else None
        block = Block if config.network == "transformer" else Layer
        self.blocks = nnx.List([block(config, number, rngs) for number in range(config.layers)])
        self.norm = Norm(config.width)
        self.output = None if config.tied else Linear(config.width, vocabulary, rngs, bias=False)

    def logits(self, inputs_BxT: Array, documents_BxT: Array) -> Array:
        """Of the label after each; labels see those of their own document before them."""
        T = inputs_BxT.shape[1]
        begins_BxT = jnp.pad(documents_BxT, ((0, 0), (1, 0)), constant_values=-1)[:, :-1] != documents_BxT
        sees_BxTxT = (documents_BxT[:, :, None] == documents_BxT[:, None, :]) & jnp.tri(T, dtype=bool)
        at_BxT = jnp.arange(T) - jax.lax.cummax(jnp.where(begins_BxT, jnp.arange(T), 0), axis=1)
        x_BxTxD = self._embedded(inputs_BxT, at_BxT)
        for block in self.blocks:
            x_BxTxD = block(x_BxTxD, sees_BxTxT, begins_BxT)
        return self._labels(x_BxTxD)

    def losses(self, inputs_BxT: Array, targets_BxT: Array, documents_BxT: Array) -> Array:
        """-log p of each target; 0 where there is no document, whose number is 0."""
        log_BxTxK = jax.nn.log_softmax(self.logits(inputs_BxT, documents_BxT))
        nll_BxT = -jnp.take_along_axis(log_BxTxK, targets_BxT[..., None], 2)[..., 0]
        return jnp.where(documents_BxT > 0, nll_BxT, 0)

    def start(self, rows: int, most: int) -> tuple[Array, list[Any]]:
        """What is known before the first label of rows that may become `most` long."""
        return jnp.zeros(rows, jnp.int32), [block.start(rows, most) for block in self.blocks]

    def step(self, label_K: Array, state: tuple[Array, list[Any]]) -> tuple[Array, tuple[Array, list[Any]]]:
        """(log-probabilities of the next label of each row, the state after `label`)."""
        at_K, memories = state
        x_KxD = self._embedded(label_K, at_K)
        after = []
        for block, memory in zip(self.blocks, memories, strict=True):
            x_KxD, memory = block.step(x_KxD, at_K, memory)
            after.append(memory)
        return jax.nn.log_softmax(self._labels(x_KxD)), (at_K + 1, after)

    def _embedded(self, label: Array, at: Array) -> Array:
        x = self.embedding(label)
        if self.positions is not None:
            x = x + self.positions(jnp.minimum(at, self.context - 1))
        return x.astype(self.dtype)

    def _labels(self, x: Array) -> Array:
        x = self.norm(x)
        logits = times(x, self.embedding.embedding[...].astype(x.dtype).T) if self.output is None else self.output(x)
        return logits.astype(jnp.float32)


class Block(nnx.Module):
    """Attention and a feed-forward network, each added to what came before."""

    def __init__(self, config: LMConfig, number: int, rngs: nnx.Rngs):
        heads = config.left_heads[number] if config.left_heads else config.heads
        hidden = config.left_hidden[number] if config.left_hidden else config.hidden or 4 * config.width
        self.dtype = config.dtype
        self.attention = Attention(config.width, config.heads, rngs, heads, config.positions == "rotary")
        self.feed = FeedForward(config.width, hidden, rngs)

    def __call__(self, x_BxTxD: Array, sees_BxTxT: Array, begins_BxT: Array) -> Array:
        x_BxTxD = x_BxTxD + self.attention(x_BxTxD, sees_BxTxT)
        return x_BxTxD + self.feed(x_BxTxD)

    def start(self, rows: int, most: int) -> Any:
        return self.attention.start(rows, most, self.dtype)

    def step(self, x_KxD: Array, at_K: Array, memory: Any) -> tuple[Array, Any]:
        y_KxD, memory = self.attention.step(x_KxD, at_K, memory)
        x_KxD = x_KxD + y_KxD
        return x_KxD + self.feed(x_KxD), memory


class Layer(nnx.Module):
    """An LSTM, normalised and added to what came before."""

    def __init__(self, config: LMConfig, number: int, rngs: nnx.Rngs):
        self.dtype = config.dtype
        self.lstm, self.norm = LSTM(config.width, config.width, rngs), Norm(config.width)

    def __call__(self, x_BxTxD: Array, sees_BxTxT: Array, begins_BxT: Array) -> Array:
        return x_BxTxD + self.norm(self.lstm(x_BxTxD, begins_BxT=begins_BxT)[0])

    def start(self, rows: int, most: int) -> Any:
        return self.lstm.start(rows, self.dtype)

    def step(self, x_KxD: Array, at_K: Array, memory: Any) -> tuple[Array, Any]:
        y_Kx1xD, memory = self.lstm(x_KxD[:, None], memory)
        return x_KxD + self.norm(y_Kx1xD[:, 0]), memory


def fusion(structure: nnx.GraphDef, params: Params, weight: float = 0.3, bonus: float = 0.0) -> Fusion:
    """A language model's say in a search, for `Recogniser.hypotheses`."""
    model = nnx.merge(structure, params)
    return Fusion(model.start, model.step, weight, bonus)


def rescored(structure: nnx.GraphDef, params: Params, rows: Rows, weight: float = 0.3, bonus: float = 0.0) -> Rows:
    """What `Recogniser.hypotheses` found, [..., K, U], with a language model's say afterwards; the best first again."""
    labels, count = rows.tokens_KxU, rows.count_K[..., None]
    places, ends = jnp.arange(labels.shape[-1] + 1), [(0, 0)] * (labels.ndim - 1)
    before, after = jnp.pad(labels, [*ends, (1, 0)]), jnp.pad(labels, [*ends, (0, 1)])
    said = (before, jnp.where(places < count, after, 0), (places <= count).astype(jnp.int32))
    flat = [x.reshape(-1, x.shape[-1]) for x in said]
    nats = functional.apply(structure, params, "losses", *flat).sum(-1).reshape(rows.count_K.shape)
    score = rows.score_K - weight * nats + bonus * rows.count_K
    order = jnp.argsort(-score, axis=-1, stable=True)
    tokens = jnp.take_along_axis(labels, order[..., None], -2)
    return Rows(tokens, *(jnp.take_along_axis(x, order, -1) for x in (rows.count_K, score)))


def create(config: LMConfig, vocabulary: int, seed: int = 0) -> tuple[nnx.GraphDef, Params]:
    """(structure, parameters as nested dicts of arrays); `csp.models.apply` runs its methods."""
    return functional.split(lambda: LanguageModel(config, vocabulary, nnx.Rngs(seed)))


def abstract(config: LMConfig, vocabulary: int) -> tuple[nnx.GraphDef, Params]:
    """As `create`, with shapes in place of arrays, and with factors where the config has ranks."""
    structure, params = functional.shapes(lambda: LanguageModel(config, vocabulary, nnx.Rngs(0)))
    return structure, factored(params, config.ranks)


def factored(params: Params, ranks: Mapping[str, int]) -> Params:
    """The shapes of these parameters with two factors in place of the matrices that have a rank."""

    def shape(path: Any, leaf: Any) -> Any:
        rank = ranks.get(path_name(path))
        if rank is None:
            return leaf
        n_in, n_out = leaf.shape
        if not lowrank.worthwhile(leaf.shape, rank):
            raise ValueError(
                f"model.ranks: rank {rank} of {path_name(path)!r}, {n_in} x {n_out}, saves nothing: "
                f"at most {(n_in * n_out - 1) // (n_in + n_out)}"
            )
        return jax.eval_shape(lambda: lowrank.Factors(jnp.zeros((n_in, rank)), jnp.zeros((rank, n_out))))

    return jax.tree.map_with_path(shape, params)
