"""What turns features into words: an encoder, and a CTC or a transducer head."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from csp.models import functional
from csp.models.beam import Fusion, Rows
from csp.models.encoders import Conformer, LSTMEncoder
from csp.models.heads import CTC, Transducer

HEADS = ("transducer", "ctc")
Params = Any


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The sizes of a recogniser.

    Args:
      encoder: "lstm" or "conformer".
      head: "transducer" or "ctc".
      layers: of the encoder.
      width: of the encoder.
      stack: frames of features that stand side by side.
      reduce_after: the layer after which pairs of frames become one; 0 for none.
      predictor: width of the transducer's predictor.
      joint: width of the transducer's joint network.
      heads: of a Conformer's attention.
      kernel: frames that a Conformer's convolution sees.
      streaming: a Conformer that sees the past and its own chunk only; LSTMs always stream.
      chunk: frames of a streaming Conformer's chunk.
      left: chunks of the past that it sees.
      ctc_weight: share of a CTC loss on a transducer's encoder, which helps it start.
      dtype: "float32" or "bfloat16", of what is computed; parameters are float32.
    """

    encoder: str = "lstm"
    head: str = "transducer"
    layers: int = 2
    width: int = 128
    stack: int = 4
    reduce_after: int = 0
    predictor: int = 128
    joint: int = 128
    heads: int = 4
    kernel: int = 15
    streaming: bool = True
    chunk: int = 16
    left: int = 4
    ctc_weight: float = 0.3
    dtype: str = "float32"


class Recogniser(nnx.Module):
    """`encode`, `loss` and the head's decoding; 0 of the vocabulary is the blank."""

    def __init__(self, config: ModelConfig, inputs: int, vocabulary: int, rngs: nnx.Rngs):
        encoders = {"lstm": LSTMEncoder, "conformer": Conformer}
        if config.encoder not in encoders:
            raise ValueError(f"model.encoder {config.encoder!r} is none of {', '.join(encoders)}")
        if config.head not in HEADS:
            raise ValueError(f"model.head {config.head!r} is none of {', '.join(HEADS)}")
        self.config, self.vocabulary = config, vocabulary
        self.encoder = encoders[config.encoder](config, inputs, rngs)
        self.transducer = Transducer(config, vocabulary, rngs) if config.head == "transducer" else None
        helped = config.head == "ctc" or config.ctc_weight > 0
        self.ctc = CTC(config.width, vocabulary, rngs) if helped else None

    def encode(self, y_BxTxF: Array, frames_B: Array) -> tuple[Array, Array]:
        """h_BxTxD and how many of its frames count."""
        return self.encoder(y_BxTxF.astype(self.config.dtype), frames_B)

    def loss(self, y_BxTxF: Array, frames_B: Array, labels_BxU: Array, count_B: Array) -> tuple[Array, Array]:
        """Loss of each utterance, and which utterances have an alignment; that of the others is 0.

        A label that the vocabulary does not have makes a loss NaN: it must not pass for another label.
        """
        loss_B, fits_B = self._loss(*self.encode(y_BxTxF, frames_B), labels_BxU, count_B)
        there_BxU = jnp.arange(labels_BxU.shape[1]) < count_B[:, None]
        wrong_BxU = there_BxU & ((labels_BxU < 1) | (labels_BxU >= self.vocabulary))
        return jnp.where(wrong_BxU.any(1), jnp.nan, loss_B), fits_B

    def _loss(self, h_BxTxD: Array, frames_B: Array, labels_BxU: Array, count_B: Array) -> tuple[Array, Array]:
        if self.transducer is None:
            assert self.ctc is not None
            return self.ctc.loss(h_BxTxD, frames_B, labels_BxU, count_B)
        loss_B, fits_B = self.transducer.loss(h_BxTxD, frames_B, labels_BxU, count_B)
        if self.ctc is None:
            return loss_B, fits_B
        help_B, _ = self.ctc.loss(h_BxTxD, frames_B, labels_BxU, count_B)
        share = self.config.ctc_weight
        return (1 - share) * loss_B + share * help_B, fits_B

    def frame_logits(self, y_BxTxF: Array, frames_B: Array) -> tuple[Array, Array]:
        """Of the CTC head at each frame, and how many frames count."""
        h_BxTxD, frames_B = self.encode(y_BxTxF, frames_B)
        assert self.ctc is not None, "a teacher and its pupil need CTC heads: model.ctc_weight > 0"
        return self.ctc.output(h_BxTxD).astype(jnp.float32), frames_B

    def greedy(self, y_BxTxF: Array, frames_B: Array) -> tuple[Array, Array]:
        """The most probable label at each turn: tokens_BxN, and how many of them count."""
        h_BxTxD, frames_B = self.encode(y_BxTxF, frames_B)
        return self._head.greedy(h_BxTxD, frames_B)

    def search(self, y_BxTxF: Array, frames_B: Array, width: int) -> tuple[Array, Array]:
        """The labels with the best of `width` hypotheses, all alignments of each together."""
        rows = self.hypotheses(y_BxTxF, frames_B, width)
        return rows.tokens_KxU[:, 0], rows.count_K[:, 0]

    def hypotheses(self, y_BxTxF: Array, frames_B: Array, width: int, fusion: Fusion | None = None) -> Rows:
        """All of them, [batch, width, ...], the best first; `fusion` lets a language model have a say."""
        h_BxTxD, frames_B = self.encode(y_BxTxF, frames_B)
        return self._head.search(h_BxTxD, frames_B, width, fusion)

    @property
    def _head(self) -> CTC | Transducer:
        head = self.transducer or self.ctc
        assert head is not None
        return head


def create(config: ModelConfig, inputs: int, vocabulary: int, seed: int = 0) -> tuple[nnx.GraphDef, Params]:
    """(structure, parameters as nested dicts of arrays); see `csp.models.apply`."""
    return functional.split(lambda: Recogniser(config, inputs, vocabulary, nnx.Rngs(seed)))


def abstract(config: ModelConfig, inputs: int, vocabulary: int) -> tuple[nnx.GraphDef, Params]:
    """As `create`, with shapes in place of arrays."""
    return functional.shapes(lambda: Recogniser(config, inputs, vocabulary, nnx.Rngs(0)))
