"""What does a recogniser minimise? The loss of its head on normalised, augmented features; and a teacher's distance."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from csp import models
from csp.speech import augment
from csp.speech.features import Given, LogMel
from csp.train.config import Config
from csp.train.corpus import Batch

Params = Any


class Teacher(NamedTuple):
    """A finished model, and what normalises the features that it knows."""

    structure: Any
    params: Params
    mean: Array
    deviation: Array


class Setup(NamedTuple):
    """What is fixed while a run trains."""

    config: Config
    structure: Any
    mel: LogMel | Given
    mean: Array
    deviation: Array
    teacher: Teacher | None = None


def front(setup: Setup, key: Array | None, x_BxS: Array, samples_B: Array) -> tuple[Array, Array]:
    """Normalised features y_BxTxF, and how many frames count; augmented if there is a key.

    x_BxS may be features already, x_BxTxF, which are then normalised and masked only.
    """
    data = setup.config.data
    x_BxS = x_BxS.astype(jnp.float32) / 32767 if x_BxS.dtype == jnp.int16 else x_BxS
    keys = jax.random.split(key, 3) if key is not None else None
    if keys is not None and data.speed:
        x_BxS, samples_B = augment.speed(keys[0], x_BxS, samples_B, *data.speed)
    if keys is not None and data.noise:
        x_BxS = augment.noise(keys[1], x_BxS, samples_B, *data.noise)
    ready = x_BxS.ndim == 3
    y_BxTxF = ((x_BxS if ready else setup.mel(x_BxS, jnp)) - setup.mean) / setup.deviation
    frames_B = samples_B if ready else setup.mel.frames(samples_B)
    if keys is not None and data.masks:
        y_BxTxF = augment.mask(keys[2], y_BxTxF, frames_B, *data.masks)
    return y_BxTxF, frames_B


def loss(setup: Setup, params: Params, key: Array, batch: Batch) -> tuple[Array, tuple[Array, Array]]:
    """Sum of the utterances' losses; how many labels they have, and how many utterances no alignment fits."""
    y_BxTxF, frames_B = front(setup, key, batch.x, batch.samples)
    loss_B, fits_B = models.apply(setup.structure, params, "loss", y_BxTxF, frames_B, batch.labels, batch.counts)
    fits_B &= batch.samples > 0
    labels = jnp.sum(jnp.where(fits_B, batch.counts + 1, 0)).astype(jnp.float32)
    total = jnp.sum(jnp.where(fits_B, loss_B, 0.0))
    if setup.teacher is not None:
        share = setup.config.train.teacher_weight
        far_B = _distance(setup, params, y_BxTxF, frames_B)
        total = (1 - share) * total + share * jnp.sum(jnp.where(fits_B, far_B, 0.0))
    return total, (labels, jnp.sum((batch.samples > 0) & ~fits_B))


def _distance(setup: Setup, params: Params, y_BxTxF: Array, frames_B: Array) -> Array:
    """Kullback-Leibler divergence of the CTC head's labels from the teacher's, summed over frames."""
    teacher = setup.teacher
    assert teacher is not None
    own_BxTxK, _ = models.apply(setup.structure, params, "frame_logits", y_BxTxF, frames_B)
    known_BxTxF = (y_BxTxF * setup.deviation + setup.mean - teacher.mean) / teacher.deviation
    right = models.apply(teacher.structure, teacher.params, "frame_logits", known_BxTxF, frames_B)
    right_BxTxK, count_B = jax.lax.stop_gradient(right)
    own_BxTxK, right_BxTxK = jax.nn.log_softmax(own_BxTxK), jax.nn.log_softmax(right_BxTxK)
    far_BxT = jnp.sum(jnp.exp(right_BxTxK) * (right_BxTxK - own_BxTxK), -1)
    return jnp.sum(jnp.where(jnp.arange(far_BxT.shape[1]) < count_B[:, None], far_BxT, 0), 1)
