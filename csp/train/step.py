"""What is one step of training? A loss, its gradient, an update; or nothing, if the numbers have gone wrong."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

import csp
from csp import models
from csp.speech import augment
from csp.speech.features import Given, LogMel
from csp.train import pruning
from csp.train.config import Config
from csp.train.corpus import Batch

Params = Any
SETTLE = 20  # accepted steps before a loss can be called a spike
SMALL = 0.05  # nats a label: a model that is nearly perfect may be surprised
SLOW = 0.98


class TrainState(NamedTuple):
    """All that a run carries: arrays only."""

    params: Params
    optimizer: Any
    average: Params  # of the parameters, or ()
    step: Array  # accepted updates
    position: Array  # batches that were asked for
    usual: Array  # a running mean of the loss
    refused: Array  # steps that were not taken
    streak: Array  # of them, in a row
    scale: Array  # of the learning rate, after something went wrong
    retries: Array


class Info(NamedTuple):
    """What a step says of itself."""

    loss: Array
    norm: Array  # of the gradient
    unaligned: Array  # utterances that no alignment fits
    good: Array


class Setup(NamedTuple):
    """What is fixed while a run trains."""

    config: Config
    structure: Any
    mel: LogMel | Given
    mean: Array
    deviation: Array
    teacher: tuple[Any, Params] | None = None


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


def schedule(config: Config, steps: int) -> optax.Schedule:
    train = config.train
    warm = min(max(1, round(train.warmup * steps)), max(steps - 1, 1))
    return optax.warmup_cosine_decay_schedule(0.0, train.learning_rate, warm, max(steps, 2), 0.01 * train.learning_rate)


def optimizer(config: Config, steps: int, rules: tuple[csp.Rule, ...]) -> optax.GradientTransformationExtraArgs:
    """AdamW with a warm-up and a cosine of `steps`, inside csp if there is something to prune."""
    train, rate = config.train, schedule(config, steps)
    clip = [optax.clip_by_global_norm(train.clip)] if train.clip else []
    inner = optax.chain(*clip, optax.adamw(rate, weight_decay=train.weight_decay), _scaled())
    if not rules:
        return optax.with_extra_args_support(inner)
    return csp.sparsify(inner, *rules, method=pruning.method_of(config.sparsity, steps))


def _scaled() -> optax.GradientTransformationExtraArgs:
    """Updates times the extra argument `scale`."""

    def update(updates, state, params=None, *, scale=1.0, **extra):
        return jax.tree.map(lambda u: u * jnp.asarray(scale, u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def start(params: Params, tx: optax.GradientTransformationExtraArgs, config: Config) -> TrainState:
    """Nothing done yet; every array its own, so that all can be donated."""
    average = jax.tree.map(jnp.copy, params) if config.train.ema else ()
    names = ("step", "position", "refused", "streak", "retries")
    scalars = {name: jnp.array(0, jnp.int32) for name in names}
    scalars |= {"usual": jnp.array(0.0, jnp.float32), "scale": jnp.array(1.0, jnp.float32)}
    return jax.tree.map(jnp.array, TrainState(params, tx.init(params), average, **scalars))


def make(setup: Setup, tx: optax.GradientTransformationExtraArgs) -> Callable[..., tuple[TrainState, Info]]:
    """step(state, batch, seed) -> (state, info), to be compiled; the seed is the config's unless it is given."""
    train = setup.config.train

    def step(state: TrainState, batch: Batch, seed: Any = None) -> tuple[TrainState, Info]:
        key = jax.random.fold_in(jax.random.key(train.seed if seed is None else seed), state.position)
        (loss, unaligned), grads = _gradient(setup, state.params, key, batch)
        norm = jnp.sqrt(sum(jnp.sum(g.astype(jnp.float32) ** 2) for g in jax.tree.leaves(grads)))
        spiked = (state.step >= SETTLE) & (loss > train.spike * jnp.maximum(state.usual, SMALL))
        good = jnp.isfinite(loss) & jnp.isfinite(norm) & ~spiked

        def accept(params, optimizer, average):
            updates, optimizer = tx.update(grads, optimizer, params, scale=state.scale)
            params = optax.apply_updates(params, updates)
            if train.ema:
                average = jax.tree.map(lambda a, p: train.ema * a + (1 - train.ema) * p, average, params)
            return params, optimizer, average

        kept = (state.params, state.optimizer, state.average)
        params, optimizer, average = jax.lax.cond(good, accept, lambda *kept: kept, *kept)
        share = jnp.minimum(SLOW, state.step / (state.step + 1))
        state = state._replace(
            params=params,
            optimizer=optimizer,
            average=average,
            step=state.step + good,
            position=state.position + 1,
            usual=jnp.where(good, share * state.usual + (1 - share) * loss, state.usual),
            refused=state.refused + ~good,
            streak=jnp.where(good, 0, state.streak + 1),
        )
        return state, Info(loss, norm, unaligned, good)

    return step


def _gradient(setup: Setup, params: Params, key: Array, batch: Batch) -> tuple[tuple[Array, Array], Params]:
    """Loss for each label and its gradient, over all parts in which the batch is computed."""
    parts = setup.config.train.accumulate
    of = jax.value_and_grad(lambda params, key, part: _loss(setup, params, key, part), has_aux=True)
    if parts == 1:
        (loss, (labels, unaligned)), grads = of(params, key, batch)
    else:
        cut = jax.tree.map(lambda x: jnp.reshape(x, (parts, x.shape[0] // parts, *x.shape[1:])), batch)

        def add(total, at):
            found = of(params, *at)
            return jax.tree.map(jnp.add, total, found), None

        nothing = ((jnp.zeros(()), (jnp.zeros(()), jnp.zeros((), jnp.int32))), jax.tree.map(jnp.zeros_like, params))
        total, _ = jax.lax.scan(add, nothing, (jax.random.split(key, parts), cut))
        (loss, (labels, unaligned)), grads = total
    share = 1 / jnp.maximum(labels, 1)
    return (loss * share, unaligned), jax.tree.map(lambda g: g * share, grads)


def _loss(setup: Setup, params: Params, key: Array, batch: Batch) -> tuple[Array, tuple[Array, Array]]:
    """Sum of the utterances' losses; how many labels they have, and how many utterances no alignment fits."""
    y_BxTxF, frames_B = front(setup, key, batch.x, batch.samples)
    loss_B, fits_B = models.apply(setup.structure, params, "loss", y_BxTxF, frames_B, batch.labels, batch.counts)
    fits_B &= batch.samples > 0
    labels = jnp.sum(jnp.where(fits_B, batch.counts + 1, 0)).astype(jnp.float32)
    loss = jnp.sum(jnp.where(fits_B, loss_B, 0.0))
    if setup.teacher is not None:
        share = setup.config.train.teacher_weight
        far_B = _distance(setup, params, y_BxTxF, frames_B)
        loss = (1 - share) * loss + share * jnp.sum(jnp.where(fits_B, far_B, 0.0))
    return loss, (labels, jnp.sum((batch.samples > 0) & ~fits_B))


def _distance(setup: Setup, params: Params, y_BxTxF: Array, frames_B: Array) -> Array:
    """Kullback-Leibler divergence of the CTC head's labels from the teacher's, summed over frames."""
    assert setup.teacher is not None
    own_BxTxK, _ = models.apply(setup.structure, params, "frame_logits", y_BxTxF, frames_B)
    right = models.apply(*setup.teacher, "frame_logits", y_BxTxF, frames_B)
    right_BxTxK, count_B = jax.lax.stop_gradient(right)
    own_BxTxK, right_BxTxK = jax.nn.log_softmax(own_BxTxK), jax.nn.log_softmax(right_BxTxK)
    far_BxT = jnp.sum(jnp.exp(right_BxTxK) * (right_BxTxK - own_BxTxK), -1)
    return jnp.sum(jnp.where(jnp.arange(far_BxT.shape[1]) < count_B[:, None], far_BxT, 0), 1)
