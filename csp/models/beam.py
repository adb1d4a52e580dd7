"""Which transcript is most probable, all its alignments together? Beam searches for CTC and transducers, under jit.

A hypothesis is a row of labels with a log-probability; two ways to the same row are added, told by a hash of the row.
With a beam as wide as there are rows the answer is exact.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from csp.models.lattice import NEVER

PER_FRAME = 4  # labels that a transducer's row may have for each frame, so that a search ends
Carry = tuple[Array, Array]
Predict = Callable[[Array, Carry], tuple[Array, Carry]]


class Fusion(NamedTuple):
    """A language model that has a say: `start(rows, most)` and `step` as `csp.models.lm.LanguageModel` has them.

    A row of n labels is worth log p(sound) + weight log p(labels, end) + bonus n.
    """

    start: Callable[[int, int], Any]
    step: Callable[[Array, Any], tuple[Array, Any]]
    weight: Any = 0.3
    bonus: Any = 0.0


class Guess(NamedTuple):
    """What it says of each row: the gain of each next label, that of the end, and its state."""

    gain_KxV: Array
    end_K: Array
    state: Any


class Rows(NamedTuple):
    """The rows that a search has found, the best first."""

    tokens_KxU: Array
    count_K: Array
    score_K: Array


class Beam(NamedTuple):
    """K rows of up to U labels, the best first."""

    tokens_KxU: Array
    count_K: Array
    score_K: Array
    hash_K: Array


def _begin(width: int, most: int) -> Beam:
    """The empty row, and places for others."""
    score_K = jnp.full(width, NEVER).at[0].set(0.0)
    return Beam(jnp.zeros((width, most), jnp.int32), jnp.zeros(width, jnp.int32), score_K, jnp.zeros(width, jnp.uint32))


def _hash(hash_: Array, label: Array) -> Array:
    return (hash_ * jnp.uint32(1_000_003)) ^ (label.astype(jnp.uint32) + jnp.uint32(0x9E3779B9))


def _together(beam: Beam, stay_K: Array, alive_K: Array, grow_KxV: Array) -> tuple[Array, Array]:
    """What grows into a row that is there already is added to that row, and grows no more."""
    grown_KxV = _hash(beam.hash_K[:, None], jnp.arange(grow_KxV.shape[1])[None])
    same_KxKxV = (grown_KxV[None] == beam.hash_K[:, None, None]) & alive_K[:, None, None]
    added_K = jax.nn.logsumexp(jnp.where(same_KxKxV, grow_KxV[None], NEVER), axis=(1, 2))
    return jnp.logaddexp(stay_K, added_K), jnp.where(same_KxKxV.any(0), NEVER, grow_KxV)


def _best(beam: Beam, stay_K: Array, grow_KxV: Array) -> tuple[Beam, Array, Array, Array]:
    """The K best of the rows as they are and of those that grow; their parents, new labels, and which have grown."""
    K, V = grow_KxV.shape
    score_K, chosen_K = jax.lax.top_k(jnp.concatenate([stay_K, grow_KxV.reshape(-1)]), K)
    grows_K = chosen_K >= K
    parent_K = jnp.where(grows_K, (chosen_K - K) // V, chosen_K)
    label_K = jnp.where(grows_K, (chosen_K - K) % V, 0)
    tokens_KxU, count_K, hash_K = beam.tokens_KxU[parent_K], beam.count_K[parent_K], beam.hash_K[parent_K]
    at_KxU = (jnp.arange(tokens_KxU.shape[1]) == count_K[:, None]) & grows_K[:, None]
    tokens_KxU = jnp.where(at_KxU, label_K[:, None], tokens_KxU)
    hash_K = jnp.where(grows_K, _hash(hash_K, label_K), hash_K)
    return Beam(tokens_KxU, count_K + grows_K, score_K, hash_K), parent_K, label_K, grows_K


def _guessed(fusion: Fusion, label_K: Array, state: Any) -> Guess:
    log_KxV, state = fusion.step(label_K, state)
    gain_KxV = (fusion.weight * log_KxV + fusion.bonus).at[:, 0].set(0.0)
    return Guess(gain_KxV, fusion.weight * log_KxV[:, 0], state)


def _begun(fusion: Fusion | None, width: int, most: int) -> Guess | None:
    return None if fusion is None else _guessed(fusion, jnp.zeros(width, jnp.int32), fusion.start(width, most + 1))


def _followed(
    fusion: Fusion | None, guess: Guess | None, parent_K: Array, label_K: Array, grows_K: Array
) -> Guess | None:
    """What is said of the rows that were chosen."""
    if fusion is None or guess is None:
        return None
    kept = jax.tree.map(lambda x: x[parent_K], guess)
    after = _guessed(fusion, label_K, kept.state)
    return jax.tree.map(lambda a, b: jnp.where(_wide(grows_K, a), a, b), after, kept)


def _wide(flag_K: Array, like: Array) -> Array:
    return flag_K.reshape(-1, *(1,) * (like.ndim - 1))


def ctc(log_probs_TxK: Array, frames: Array, width: int, fusion: Fusion | None = None) -> Rows:
    """The best rows of one utterance, from log-probabilities at each frame, the blank at 0.

    A row's probability is kept in two parts: of its paths that end with a blank, and of those that do not.
    """
    T, V = log_probs_TxK.shape
    beam = _begin(width, T)
    blank_K, label_K = beam.score_K, jnp.full(width, NEVER)

    def frame(state, at):
        beam, blank_K, label_K, guess = state
        said_V, t = at
        last_K = jnp.take_along_axis(beam.tokens_KxU, jnp.maximum(beam.count_K - 1, 0)[:, None], 1)[:, 0]
        last_K = jnp.where(beam.count_K > 0, last_K, -1)
        stay_blank_K = beam.score_K + said_V[0]
        stay_label_K = jnp.where(last_K >= 0, label_K + said_V[last_K], NEVER)
        from_KxV = jnp.where(jnp.arange(V) == last_K[:, None], blank_K[:, None], beam.score_K[:, None])
        grow_KxV = (from_KxV + said_V).at[:, 0].set(NEVER)
        grow_KxV = grow_KxV if guess is None else grow_KxV + guess.gain_KxV
        stay_label_K, grow_KxV = _together(beam, stay_label_K, beam.score_K > NEVER / 2, grow_KxV)
        after, parent_K, new_K, grows_K = _best(beam, jnp.logaddexp(stay_blank_K, stay_label_K), grow_KxV)
        after_blank_K = jnp.where(grows_K, NEVER, stay_blank_K[parent_K])
        after_label_K = jnp.where(grows_K, after.score_K, stay_label_K[parent_K])
        open_ = t < frames
        new = (after, after_blank_K, after_label_K, _followed(fusion, guess, parent_K, new_K, grows_K))
        old = (beam, blank_K, label_K, guess)
        return jax.tree.map(lambda a, b: jnp.where(open_, a, b), new, old), None

    start = (beam, blank_K, label_K, _begun(fusion, width, T))
    (beam, _, _, guess), _ = jax.lax.scan(frame, start, (log_probs_TxK, jnp.arange(T)))
    score_K = beam.score_K if guess is None else beam.score_K + guess.end_K
    return _sorted(Rows(beam.tokens_KxU, beam.count_K, score_K), width)


def _sorted(rows: Rows, width: int) -> Rows:
    """The best of them, the best first."""
    order_K = jnp.argsort(-rows.score_K, stable=True)[:width]
    return jax.tree.map(lambda x: x[order_K], rows)


def transducer(
    h_TxJ: Array,
    frames: Array,
    joint: Callable[[Array, Array], Array],
    predict: Predict,
    carry: Carry,
    width: int,
    fusion: Fusion | None = None,
) -> Rows:
    """The best rows of one utterance.

    All hypotheses have taken equally many moves, blanks and labels together, so that those with the same row stand at
    the same frame, and their probabilities can be added. At frame t a row has at most PER_FRAME (t + 1) labels.

    Args:
      h_TxJ: projected frames.
      frames: how many of them count.
      joint: (frames, states) -> logits, the blank at 0.
      predict: (labels_K, carry) -> (states, carry).
      carry: of K equal predictors that have seen nothing.
      width: K.
      fusion: a language model that has a say.
    """
    T = h_TxJ.shape[0]
    most = PER_FRAME * T
    beam = _begin(width, most)
    g_KxJ, carry = predict(jnp.zeros(width, jnp.int32), carry)
    nothing = Rows(jnp.zeros((width, most), jnp.int32), jnp.zeros(width, jnp.int32), jnp.full(width, NEVER))

    def open_(state):
        step, beam, *_, ended = state
        opened = jnp.any((step - beam.count_K < frames) & (beam.score_K > NEVER / 2)) & (step < T + most)
        bonus = 0.0 if fusion is None else jnp.maximum(fusion.bonus, 0.0)  # as if for nothing, in each frame left
        hopes_K = beam.score_K + bonus * PER_FRAME * jnp.maximum(frames - step + beam.count_K, 0)
        return opened & (jax.nn.logsumexp(hopes_K) > ended.score_K[-1])  # together they could still do better

    def move(state):
        step, beam, g_KxJ, carry, guess, ended = state
        t_K = step - beam.count_K
        open_K = (t_K < frames) & (beam.score_K > NEVER / 2)
        said_KxV = jax.nn.log_softmax(joint(h_TxJ[jnp.clip(t_K, 0, T - 1)], g_KxJ).astype(jnp.float32))
        said_KxV = jnp.where(open_K[:, None], beam.score_K[:, None] + said_KxV, NEVER)
        ends_K = open_K & (t_K == frames - 1)
        end_K = said_KxV[:, 0] if guess is None else said_KxV[:, 0] + guess.end_K
        now = Rows(beam.tokens_KxU, beam.count_K, jnp.where(ends_K, end_K, NEVER))
        ended = _sorted(jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ended, now), width)
        stay_K = jnp.where(ends_K, NEVER, said_KxV[:, 0])
        grow_KxV = jnp.where((beam.count_K < PER_FRAME * (t_K + 1))[:, None], said_KxV, NEVER).at[:, 0].set(NEVER)
        grow_KxV = grow_KxV if guess is None else grow_KxV + guess.gain_KxV
        stay_K, grow_KxV = _together(beam, stay_K, stay_K > NEVER / 2, grow_KxV)
        beam, parent_K, label_K, grows_K = _best(beam, stay_K, grow_KxV)
        g_KxJ, carry = jax.tree.map(lambda x: x[parent_K], (g_KxJ, carry))
        after = predict(label_K, carry)
        g_KxJ, carry = jax.tree.map(lambda a, b: jnp.where(grows_K[:, None], a, b), after, (g_KxJ, carry))
        return step + 1, beam, g_KxJ, carry, _followed(fusion, guess, parent_K, label_K, grows_K), ended

    start = (jnp.array(0), beam, g_KxJ, carry, _begun(fusion, width, most), nothing)
    *_, ended = jax.lax.while_loop(open_, move, start)
    return ended
