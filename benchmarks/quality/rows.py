"""The rows of the table: what each changes in the recipe, and the settings among which each was chosen.

Every method had as many settings (`TRIALS`), each trained once at 95 % with the seed 0, and was judged by words of the
validation split; the best is its row. Results of the trials are kept too: results/*/trial-METHOD-N.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from csp import schedules
from csp.methods.method import Method, clock_for
from csp.models.recogniser import ModelConfig

Setting = dict[str, Any]
FREEZES = {"compressed_sensing": 0.9, "ste": 1.0, "str": 0.7, "l1": 0.7}  # until when every gradient is wanted


def l1(steps: int, strength: float = 1.0, end: float = 0.7) -> Method:
    """The sign of every weight in its update, and one projection at `end`: what shrinkage is not.

    Nothing becomes exactly zero before the projection. `strength` is such that the average weight would go down to
    zero within 1 / strength of the time, if its gradient left it alone.
    """
    clock = clock_for(steps, end, end)

    def step(view, update, alive):
        w, pull = view.w, strength * jnp.mean(jnp.abs(view.w)) / clock.end
        return jnp.where(view.count < clock.end, w + update - pull * jnp.sign(w), w + update), ()

    return Method("l1", steps, clock, ramp=schedules.one_shot(1.0, clock.begin), step=step)


def narrow(model: ModelConfig, width: int) -> ModelConfig:
    return dataclasses.replace(model, width=width)


def _settings(method: str, *options: Setting) -> list[Setting]:
    return [{"sparsity.method": method} | one for one in options]


DECAY = {"train.weight_decay": 0.1}
TRIALS: dict[str, list[Setting]] = {
    "gradual": _settings(
        "gradual", {}, DECAY, {"sparsity.options": {"end": 0.5}}, {"sparsity.options": {"regrow": 0.3}}
    ),
}
ROWS: dict[str, Setting] = {
    "dense": {"sparsity.method": "dense"},
    "small dense": {"sparsity.method": "dense", "small": True},
    "one-shot": {"sparsity.method": "one_shot"},
    "gradual": TRIALS["gradual"][0],
    "compressed sensing": {"sparsity.method": "compressed_sensing"},
}


def trial(name: str) -> Setting:
    """The setting of "trial-METHOD-N"."""
    _, method, number = name.rsplit("-", 2) if name.count("-") == 2 else ("", "", "")
    if method not in TRIALS or not number.isdigit() or int(number) >= len(TRIALS[method]):
        raise SystemExit(f"{name!r} is no row and no trial: {', '.join(ROWS)}; trial-METHOD-N of {', '.join(TRIALS)}")
    return TRIALS[method][int(number)]
