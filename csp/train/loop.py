"""How does a run go? Steps, checkpoints, evaluations, files; and on again from wherever it was stopped."""

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import csp
from csp.state import read_ledger
from csp.train import checkpoints, kinds, mesh, pruning, step
from csp.train.config import Config
from csp.train.guard import Stop, Stopped
from csp.train.limits import GIVEN
from csp.train.logs import Metrics, Progress
from csp.train.mesh import Placement
from csp.train.step import TrainState
from csp.train.task import Data

log = logging.getLogger("csp")
EVERY = 20  # steps between two looks at the numbers


class Diverged(RuntimeError):
    """Training went wrong more often than it may be retried."""


class Stage(NamedTuple):
    """`steps` from `begin` on, to one target; most deliver a model, the rungs on the way to a target do not."""

    number: int
    target: float | None
    begin: int
    steps: int
    delivers: bool = True


class Finished(NamedTuple):
    stage: Stage
    params: Any
    rules: tuple[csp.Rule, ...]
    refused: int  # steps
    unaligned: int  # utterances that no alignment fitted


def stages(config: Config) -> list[Stage]:
    """The steps, shared out evenly over the targets and the rungs on the way to them."""
    rungs = pruning.rungs_of(config)
    edges = [config.train.steps * i // len(rungs) for i in range(len(rungs) + 1)]
    return [Stage(i, t, edges[i], edges[i + 1] - edges[i], last) for i, (t, last) in enumerate(rungs)]


class Run:
    """Trains in a directory; `out/checkpoints` has all that it needs to go on."""

    def __init__(self, config: Config, out: Path, data: Data, stop: Stop, said: dict[str, Any], quiet: bool = False):
        self.config, self.out, self.data, self.stop, self.said = config, out, data, stop, said
        self.folder = out / "checkpoints"
        self.task = kinds.of(config).task(config, data.inputs)
        self.place = Placement(config)
        self.batches = data.batches(config, self.place.share)
        self.progress = Progress(config.train.steps, (lambda text: None) if quiet or not mesh.is_first() else None)
        self.best: dict[str, Any] = {}
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has trained, with what a run that it goes on from had."""
        return time.monotonic() - self._began

    def train(self, at: tuple[Path, dict[str, Any]] | None = None):
        """Yields every stage when it is finished; `at` is the checkpoint to go on from."""
        begun = at[1]["stage"] if at else 0
        self._began -= at[1].get("seconds", 0.0) if at else 0.0
        total = stages(self.config)[begun].begin + at[1]["step"] if at else 0
        board = self.config.train.tensorboard and mesh.is_first()
        with contextlib.closing(Metrics(_metrics(self.out), total, board)) as self.metrics:
            params, position = self.task.initial, 0
            for stage in stages(self.config)[begun:]:
                if self.config.sparsity.method == pruning.CALIBRATED and at is None:
                    params, self.said = self.task.calibrated(stage.target, params, self.batches, self.said)
                elif at is not None:
                    params = self.task.shaped(params, at[1])
                    self.said |= {key: at[1][key] for key in at[1] if key in self.task.REMEMBERED}
                given = self.task.initial if self.config.sparsity.budget == GIVEN else params
                rules = pruning.rules_of(self.config.sparsity, given, stage.target)
                tx = step.optimizer(self.config, stage.steps, rules)
                state = step.start(params, tx, self.config)._replace(position=jnp.array(position, jnp.int32))
                self.best = {}
                if at is not None:
                    state = jax.tree.map(jnp.asarray, checkpoints.load(at[0], state))
                    self.best, at = at[1]["best"], None
                state = self._stage(stage, rules, tx, self.place.state(state))
                params, position = mesh.local(state.params), int(state.position)
                if stage.delivers:
                    found = self.chosen(stage, state)
                    yield Finished(stage, found, rules, int(state.refused), int(state.unaligned))

    def _stage(self, stage: Stage, rules: tuple[csp.Rule, ...], tx: Any, state: TrainState) -> TrainState:
        leaps = step.leaps(self.config, stage.steps, rules)
        take = self.place.compiled(step.make(self.task.loss, self.config.train, tx, leaps), state)
        done = stage.steps if self._enough() else int(state.step)
        if done == 0:
            self._save(stage, state)  # the disk can be written, before anything is lost
            if stage.steps == 0 and self._asked(0):
                raise Stopped(f"stopped at step {stage.begin}")
        batches = self.batches.from_(int(state.position))
        spent, taken = 0.0, 0
        while done < stage.steps:
            if self._asked(done):
                self._save(stage, state)
                raise Stopped(f"stopped at step {stage.begin + done}")
            clock = time.monotonic()
            state, info = take(state, self.place.batch(next(batches)))
            before, done = done, int(state.step)
            spent, taken = spent + time.monotonic() - clock, taken + 1
            if int(state.streak) >= self.config.train.bad_steps:
                state = self._back(stage, tx, state)
                before = done = int(state.step)
            if done == before:
                continue
            if done % EVERY == 0 or done == stage.steps:
                self.look(stage, rules, state, info, spent / taken)
                spent, taken = 0.0, 0
            if self.is_time(done, stage, self.config.train.evaluate_every):
                done = self.judge(stage, rules, state) or done
            if self.is_time(done, stage, self.config.train.checkpoint_every):
                self._save(stage, state)
        batches.close()
        return state

    def _asked(self, done: int) -> bool:
        """Several processes agree now and then; one alone need not."""
        if jax.process_count() == 1:
            return self.stop.asked
        return done % EVERY == 0 and self.place.any(self.stop.asked)

    def is_time(self, done: int, stage: Stage, every: int) -> bool:
        return done >= stage.steps or bool(every and done % every == 0)

    def _save(self, stage: Stage, state: TrainState) -> None:
        about = self.said | {"stage": stage.number, "best": self.best, "seconds": self.seconds}
        number = stage.begin + stage.number + int(state.step)  # a stage's end is not the beginning of the next
        state = mesh.local(state)
        if mesh.is_first():
            checkpoints.save(self.folder, number, state, about | {"step": int(state.step)}, self.config.train.keep)

    def look(
        self, stage: Stage, rules: tuple[csp.Rule, ...], state: TrainState, info: step.Info, seconds: float
    ) -> None:
        loss, sparsity, violation = float(info.loss), float(_sparsity(state.params)), _violation(rules, state)
        rate = self.config.train.batch / max(seconds, 1e-9)
        done = stage.begin + int(state.step)
        record = {"step": done, "stage": stage.number, "loss": loss, "norm": float(info.norm)}
        record |= {"sparsity": sparsity, "violation": violation, "refused": int(state.refused)}
        record |= {"unaligned": int(state.unaligned), "position": int(state.position)}
        self.metrics.write(record | {"wall": {"rows_per_second": rate, "time": time.time()}})
        learning = float(jnp.asarray(step.schedule(self.config, stage.steps)(int(state.step))) * state.scale)
        facts = {"loss": f"{loss:.3f}", "sparsity": f"{sparsity:.1%}", "violation": f"{violation:.3f}"}
        facts |= {"lr": f"{learning:.1e}", "rows/s": f"{rate:.0f}"}
        if int(state.refused):
            facts["refused"] = str(int(state.refused))
        self.progress.show(done, facts)

    def judge(self, stage: Stage, rules: tuple[csp.Rule, ...], state: TrainState) -> int | None:
        """How good is it now? The number of steps of the stage if it need not go on."""
        params = mesh.local(finished(state))
        found, total = self.task.judge(params, self.data), stage.begin + int(state.step)
        self.metrics.write({"step": total, "stage": stage.number} | found.record)
        self.progress.interrupt(f"step {total}: {found.line}")
        if not _within_budget(params, rules):
            return None
        value = mesh.of_the_first(found.value)
        if value <= self.best.get("value", float("inf")):
            self.best = {"value": value, "step": int(state.step), "waited": 0}
            if mesh.is_first():
                checkpoints.write(self.folder / "best.safetensors", params, {"stage": stage.number} | self.best)
            mesh.after_the_first("best")
            return None
        self.best["waited"] += 1
        return stage.steps if self._enough() else None

    def _enough(self) -> bool:
        """Has it waited too long for a better one?"""
        return 0 < self.config.train.patience <= self.best.get("waited", 0)

    def chosen(self, stage: Stage, state: TrainState) -> Any:
        """The best parameters among those within the budget, the latest of equals."""
        if not self.best or self.best["step"] == int(state.step):
            return mesh.local(finished(state))
        return checkpoints.load(self.folder / "best.safetensors", finished(state))

    def _back(self, stage: Stage, tx: Any, state: TrainState) -> TrainState:
        """The last good checkpoint at half the learning rate, behind the data that went wrong."""
        retries, position, scale = int(state.retries) + 1, state.position, float(state.scale) / 2
        where = f"step {stage.begin + int(state.step)}: {int(state.streak)} steps in a row were refused"
        saved = checkpoints.newest(self.folder)
        if retries > self.config.train.retries or saved is None or saved[1]["stage"] != stage.number:
            raise Diverged(f"{where}, {retries - 1} retries did not help: lower train.learning_rate, look at the data")
        log.warning("%s: back to %s at learning rate x %g", where, saved[0].name, scale)
        like, refused, unaligned = jax.eval_shape(lambda: state), state.refused, state.unaligned
        state = self.place.state(jax.tree.map(jnp.asarray, checkpoints.load(saved[0], like)))
        new = {"position": position, "refused": refused, "unaligned": unaligned, "streak": jnp.zeros_like(state.streak)}
        return state._replace(retries=jnp.asarray(retries), scale=jnp.asarray(scale, jnp.float32), **new)


def _metrics(out: Path) -> Path:
    """The first process's; what the others write nobody reads."""
    return out / "metrics.jsonl" if mesh.is_first() else Path(os.devnull)


def finished(state: TrainState) -> Any:
    """What would be delivered now: the average, on the support that training has chosen, or the parameters."""
    if state.average == ():
        return state.params
    return jax.tree.map(lambda w, a: jnp.where(w != 0, a, 0), state.params, state.average)


def _within_budget(params: Any, rules: tuple[csp.Rule, ...]) -> bool:
    try:
        csp.verify(params, *rules) if rules else None
    except csp.BudgetError:
        return False
    return True


@jax.jit
def _sparsity(params: Any) -> jax.Array:
    """The share of zeros in matrices."""
    matrices = [w for w in jax.tree.leaves(params) if w.ndim > 1]
    return jnp.sum(jnp.stack([jnp.sum(w == 0) for w in matrices])) / sum(w.size for w in matrices)


def _violation(rules: tuple[csp.Rule, ...], state: TrainState) -> float:
    """The largest of any tensor: the share of |W|_1 that the latest refresh cut away."""
    return max((note.violation for note in read_ledger(state.optimizer)), default=0.0) if rules else 0.0
