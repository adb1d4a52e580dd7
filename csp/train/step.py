"""What is one step of training? A loss, its gradient, an update; or nothing, if the numbers have gone wrong."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

import csp
from csp.train import pruning
from csp.train.config import Config, Train

Params = Any
Loss = Callable[[Params, Array, Any], tuple[Array, tuple[Array, Array]]]  # its sum; labels, and what has no loss
SETTLE = 20  # accepted steps before a loss can be called a spike
SMALL = 0.05  # nats a label: a model that is nearly perfect may be surprised
SLOW = 0.98
LEAP = 0.5  # of the way to the budget in one refresh: what was usual before is not usual after it


class TrainState(NamedTuple):
    """All that a run carries: arrays only."""

    params: Params
    optimizer: Any
    average: Params  # of the parameters, or ()
    step: Array  # accepted updates
    position: Array  # batches that were asked for
    usual: Array  # a running mean of the loss
    refused: Array  # steps that were not taken
    unaligned: Array  # utterances that no alignment fitted
    streak: Array  # of them, in a row
    scale: Array  # of the learning rate, after something went wrong
    retries: Array


class Info(NamedTuple):
    """What a step says of itself."""

    loss: Array
    norm: Array  # of the gradient
    good: Array


def schedule(config: Config, steps: int) -> optax.Schedule:
    train = config.train
    warm = min(max(1, round(train.warmup * steps)), max(steps - 1, 1))
    return optax.warmup_cosine_decay_schedule(0.0, train.learning_rate, warm, max(steps, 2), 0.01 * train.learning_rate)


def optimizer(config: Config, steps: int, rules: tuple[csp.Rule, ...]) -> optax.GradientTransformationExtraArgs:
    """AdamW with a warm-up and a cosine of `steps`, inside csp if there is something to prune."""
    train, rate = config.train, schedule(config, steps)
    clip = [optax.clip_by_global_norm(train.clip)] if train.clip else []
    inner = optax.chain(*clip, optax.adamw(rate, train.beta1, weight_decay=train.weight_decay), _scaled())
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
    names = ("step", "position", "refused", "unaligned", "streak", "retries")
    scalars = {name: jnp.array(0, jnp.int32) for name in names}
    scalars |= {"usual": jnp.array(0.0, jnp.float32), "scale": jnp.array(1.0, jnp.float32)}
    return jax.tree.map(jnp.array, TrainState(params, tx.init(params), average, **scalars))


def leaps(config: Config, steps: int, rules: tuple[csp.Rule, ...]) -> tuple[int, ...]:
    """How many accepted steps there are when the method has just taken, or given back, most of the weights at once."""
    if not rules:
        return ()
    method = pruning.method_of(config.sparsity, steps)
    progress = [0.0, *(float(method.ramp(time)) for time in method.clock.times)]
    taken = zip(method.clock.times, itertools.pairwise(progress), strict=True)
    return tuple(time + 1 for time, (before, after) in taken if abs(after - before) > LEAP)


def make(
    loss_of: Loss, train: Train, tx: optax.GradientTransformationExtraArgs, leaps: tuple[int, ...] = ()
) -> Callable[..., tuple[TrainState, Info]]:
    """step(state, batch, seed) -> (state, info), to be compiled; the seed is the config's unless it is given.

    After each of `leaps` the usual loss is learned anew.
    """
    begins = jnp.array((0, *leaps), jnp.int32)

    def step(state: TrainState, batch: Any, seed: Any = None) -> tuple[TrainState, Info]:
        key = jax.random.fold_in(jax.random.key(train.seed if seed is None else seed), state.position)
        (loss, unaligned), grads = _gradient(loss_of, train.accumulate, state.params, key, batch)
        norm = jnp.sqrt(sum(jnp.sum(g.astype(jnp.float32) ** 2) for g in jax.tree.leaves(grads)))
        since = state.step - jnp.max(jnp.where(begins <= state.step, begins, 0))
        spiked = (since >= SETTLE) & (loss > train.spike * jnp.maximum(state.usual, SMALL))
        good = jnp.isfinite(loss) & jnp.isfinite(norm) & ~spiked

        def accept(params, optimizer, average):
            updates, optimizer = tx.update(grads, optimizer, params, scale=state.scale)
            params = optax.apply_updates(params, updates)
            if train.ema:
                average = jax.tree.map(lambda a, p: train.ema * a + (1 - train.ema) * p, average, params)
            return params, optimizer, average

        kept = (state.params, state.optimizer, state.average)
        params, optimizer, average = jax.lax.cond(good, accept, lambda *kept: kept, *kept)
        share = jnp.minimum(SLOW, since / (since + 1))
        state = state._replace(
            params=params,
            optimizer=optimizer,
            average=average,
            step=state.step + good,
            position=state.position + 1,
            usual=jnp.where(good, share * state.usual + (1 - share) * loss, state.usual),
            refused=state.refused + ~good,
            unaligned=state.unaligned + unaligned,
            streak=jnp.where(good, 0, state.streak + 1),
        )
        return state, Info(loss, norm, good)

    return step


def _gradient(loss_of: Loss, parts: int, params: Params, key: Array, batch: Any) -> tuple[tuple[Array, Array], Params]:
    """Loss for each label and its gradient, over all parts in which the batch is computed."""
    of = jax.value_and_grad(loss_of, has_aux=True)
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
