"""Runs that differ in their seed only, in one program: what a GPU, which a small model does not fill, does at once.

Each has its own directory, batches, evaluations and report, as if it had been alone; a row that is stopped begins
again.
"""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csp.train import kinds, pruning, report, session, step
from csp.train.config import Config, ConfigError, read
from csp.train.corpus import Batch
from csp.train.guard import Lock, Stop, Stopped
from csp.train.logs import Metrics
from csp.train.loop import EVERY, Diverged, Finished, Run, Stage, stages
from csp.train.step import TrainState


def train(
    recipe: str | Path, folders: Sequence[Path], overrides: Sequence[Sequence[tuple[str, str]]], quiet: bool = False
) -> list[dict[str, Any]]:
    """Trains one recipe in every folder, each with overrides of its own; the reports."""
    configs = [read(recipe, more) for more in overrides]
    if not is_possible(configs[0]):
        raise ConfigError("a row of seeds is of recognisers, with one target, one device, no patience: one by one")
    with contextlib.ExitStack() as held:
        stop = held.enter_context(Stop())
        runs = []
        for config, out in zip(configs, folders, strict=True):
            held.enter_context(Lock(out))
            session.claim(out, config, True, [])
            data = kinds.of(config).prepare(config, out, stop.check)
            run = Run(config, out, data, stop, session.origin(config, data) | {"rows": []}, quiet=bool(runs) or quiet)
            run.metrics = held.enter_context(contextlib.closing(Metrics(out / "metrics.jsonl", 0)))
            runs.append(run)
        try:
            finished = _row(runs)
        except (Stopped, Diverged):
            for run in runs:  # which has nothing to go on from
                (run.out / "metrics.jsonl").unlink(missing_ok=True)
            raise
        return [_report(run, done) for run, done in zip(runs, finished, strict=True)]


def is_possible(config: Config) -> bool:
    """What a program of its own can do with several seeds."""
    alone = config.sparsity.method == pruning.CALIBRATED or config.train.patience or config.train.distributed
    return config.kind == "recogniser" and len(stages(config)) == 1 and config.train.devices in (0, 1) and not alone


def _row(runs: list[Run]) -> list[Finished]:
    config, stage = runs[0].config, stages(runs[0].config)[0]
    rules = pruning.rules_of(config.sparsity, runs[0].task.initial, stage.target)
    tx = step.optimizer(config, stage.steps, rules)
    one = step.make(runs[0].task.loss, config.train, tx, step.leaps(config, stage.steps, rules))
    seeds = jnp.array([run.config.train.seed for run in runs])

    def take(state: TrainState, batch: Batch, seed: Any) -> tuple[TrainState, step.Info]:
        """A run that has all its steps stays as it is while the others go on."""
        after, info = one(state, batch, seed)
        return jax.tree.map(lambda old, new: jnp.where(state.step >= stage.steps, old, new), state, after), info

    together = jax.jit(jax.vmap(take), donate_argnums=0)
    state = _stacked([step.start(run.task.initial, tx, config) for run in runs])
    position, looked, spent, taken = 0, [0] * len(runs), 0.0, 0
    while min(done := np.asarray(state.step).tolist()) < stage.steps:
        if runs[0].stop.asked:
            raise Stopped(f"stopped at step {min(done)} of {len(runs)} seeds, which begin again together")
        clock = time.monotonic()
        state, info = jax.block_until_ready(together(state, _batch([run.batches.at(position) for run in runs]), seeds))
        position, spent, taken = position + 1, spent + time.monotonic() - clock, taken + 1
        for i, run in enumerate(runs):
            now = int(state.step[i])
            if int(state.streak[i]) >= config.train.bad_steps:
                raise Diverged(f"seed {seeds[i]}: {config.train.bad_steps} steps in a row were refused: run it alone")
            if now == looked[i]:
                continue
            looked[i] = now
            if now % EVERY == 0 or now == stage.steps:
                run.look(stage, rules, _slice(state, i), _slice(info, i), spent / taken)
            if run.is_time(now, stage, config.train.evaluate_every):
                run.judge(stage, rules, _slice(state, i))
        if position % EVERY == 0:
            spent, taken = 0.0, 0
    return [_finished(run, stage, _slice(state, i), rules) for i, run in enumerate(runs)]


def _finished(run: Run, stage: Stage, state: TrainState, rules: Any) -> Finished:
    return Finished(stage, run.chosen(stage, state), rules, int(state.refused), int(state.unaligned))


def _report(run: Run, done: Finished) -> dict[str, Any]:
    row = session.deliver(run, done, run.out / "model.safetensors")
    return report.write(run.out, run.config, [row], run.data, run.seconds)


def _batch(batches: list[Batch]) -> Batch:
    """One behind the other; each seed has its own order, so that lengths differ."""
    longest, most = (max(shape) for shape in zip(*((b.x.shape[1], b.labels.shape[1]) for b in batches), strict=True))
    padded = [b._replace(x=_longer(b.x, longest), labels=_longer(b.labels, most)) for b in batches]
    return Batch(*(np.stack(parts) for parts in zip(*padded, strict=True)))


def _longer(x: np.ndarray, length: int) -> np.ndarray:
    return np.pad(x, [(0, 0), (0, length - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _slice(tree: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], tree)
