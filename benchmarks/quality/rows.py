"""The rows of the table: what each changes in the recipe, and the settings among which each was chosen.

Methods of TRIALS have several settings each, to be trained once with the seed 0 and judged by the validation split:
`run.py --rows trial-gradual-0,trial-gradual-1 --seeds 0`. The others are as their papers have them. ABLATIONS are ours
with one thing changed, and others with one thing of ours.
"""

from typing import Any

import jax.numpy as jnp

from csp import schedules
from csp.methods.method import Method, clock_for

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


def _settings(method: str, *options: Setting) -> list[Setting]:
    return [{"sparsity.method": method} | one for one in options]


DEFAULT = {"sparsity.method": "compressed_sensing"}
MASK, TEACHER = "mask", "teacher"  # of which row's finished model
TAUGHT = {TEACHER: "dense"}  # the dense model of the same seed, frame by frame
MASKED = {"sparsity.method": "static", "sparsity.budget": "init"}
DECAY = {"train.weight_decay": 0.1}


def _options(**options: Any) -> Setting:
    return {"sparsity.options": options}


def _dual(pull: float = 30.0, firm: float = 1.5, **options: Any) -> Setting:
    return _options(iterate="dual", iterate_options={"pull": pull, "firm": firm}, **options)


ERK, GLOBAL = {"sparsity.budget": "erk"}, {"sparsity.budget": "global"}
BY_SIZE, ADAM, FISHER = ({"sparsity.metric": name} for name in ("magnitude", "adam", "fisher"))
OF_SIZE = DEFAULT | BY_SIZE  # compressed sensing as it was until 2026-11-22, when most of its parts were compared
TRIALS: dict[str, list[Setting]] = {
    "gradual": _settings(
        "gradual",
        {},
        DECAY,
        _options(end=0.5),
        _options(end=0.85),
        _options(regrow=0.3),
        ERK,
        _options(end=0.5, regrow=0.3),
        DECAY | _options(end=0.5, regrow=0.3),
        ADAM,
        ADAM | _options(regrow=0.3),
    ),
    "acdc": _settings(
        "acdc",
        {},
        DECAY,
        _options(cycles=3),
        _options(finish=0.4),
        _options(compressed=0.7),
        ERK,
        DECAY | _options(cycles=3),
        DECAY | _options(cycles=3, finish=0.4),
        ADAM,
    ),
    "granet": _settings("granet", {}, DECAY, _options(end=0.5), _options(exchange=0.3), ERK),
    "rigl": _settings("rigl", {}, DECAY, _options(end=0.9), _options(exchange=0.5), ERK),
    "ste": _settings("ste", {}, DECAY, _options(freeze=0.9), _options(full=0.7), ERK),
    "str": _settings("str", {}, DECAY, _options(end=0.5), _options(end=0.85), _options(rate=0.05)),
    "compressed_sensing": _settings(
        "compressed_sensing",
        {},
        BY_SIZE | DECAY,
        BY_SIZE | _dual(pull=100.0),
        BY_SIZE | _dual(firm=1.2),
        BY_SIZE | _dual(full=0.4),
        BY_SIZE | ERK,
        BY_SIZE | DECAY | _dual(pull=100.0),
        BY_SIZE | DECAY | _dual(pull=100.0, firm=1.2),
        BY_SIZE,
        _dual(pull=100.0),
        _dual(firm=2.0),
        DECAY,
        _options(full=0.7),
        {"train.beta1": 0.5},
        _options(full=0.6),
        _options(every=40),
        GLOBAL,
        _options(freeze=0.75),
        _options(full=0.7, freeze=0.8),
        _dual(pull=10.0),
    ),
}
ROWS: dict[str, Setting] = {
    "dense": {"sparsity.method": "dense"},
    "small_dense": {"sparsity.method": "dense", "small": True},
    "one_shot": {"sparsity.method": "one_shot"},
    "l1": {"sparsity.method": "l1"},
    "gradual": TRIALS["gradual"][0],
    "gradual_to_half_time": TRIALS["gradual"][2],
    "gradual_regrowth": TRIALS["gradual"][4],
    "gradual_adam_metric": TRIALS["gradual"][8],
    "gradual_adam_metric_regrowth": TRIALS["gradual"][9],
    "ste": TRIALS["ste"][0],
    "rigl": TRIALS["rigl"][0],
    "rigl_3_times_longer": {"sparsity.method": "rigl", "train.steps": 6000},
    "granet": TRIALS["granet"][0],
    "granet_to_half_time": TRIALS["granet"][2],
    "acdc": TRIALS["acdc"][0],
    "acdc_3_cycles": TRIALS["acdc"][2],
    "str": TRIALS["str"][0],
    "compressed_sensing": DEFAULT,
    "compressed_sensing_by_size": OF_SIZE,
    "compressed_sensing_hard": OF_SIZE | _dual(firm=1.0),
    "compressed_sensing_trimmed": DEFAULT | _options(iterate="trimmed"),
    "compressed_sensing_ista": DEFAULT | _options(iterate="ista"),
}
ABLATIONS: dict[str, Setting] = {  # one choice changed, the rest as it is; "by size" is among the rows
    "compressed_sensing_fisher_metric": DEFAULT | FISHER,
    "compressed_sensing_adam_metric_hard": DEFAULT | _dual(firm=1.0),
    "compressed_sensing_hard_pull_100": OF_SIZE | _dual(pull=100.0, firm=1.0),
    "compressed_sensing_hard_pull_0": OF_SIZE | _dual(pull=0.0, firm=1.0),  # sparsity alone: no error is reduced
    "compressed_sensing_pull_0": OF_SIZE | _dual(pull=0.0),
    "compressed_sensing_3_cycles": OF_SIZE | _options(cycles=3),
    "compressed_sensing_constant_budget": OF_SIZE | _options(full=0.05),
    "compressed_sensing_ramp_to_70": DEFAULT | _options(full=0.7),
    "compressed_sensing_ramp_to_80": OF_SIZE | _options(full=0.8),
    "compressed_sensing_freeze_60": OF_SIZE | _options(freeze=0.6),
    "compressed_sensing_freeze_75": OF_SIZE | _options(freeze=0.75),
    "compressed_sensing_freeze_97": OF_SIZE | _options(freeze=0.97),
    "compressed_sensing_global": DEFAULT | GLOBAL,
    "compressed_sensing_beta1_50": OF_SIZE | {"train.beta1": 0.5},
    "compressed_sensing_beta1_97": OF_SIZE | {"train.beta1": 0.97},
    "compressed_sensing_trimmed_weaker": DEFAULT | _options(iterate="trimmed", iterate_options={"strength": 1.0}),
    "compressed_sensing_trimmed_metric": DEFAULT
    | ADAM
    | _options(iterate="trimmed", iterate_options={"shrink": "metric"}),
    "compressed_sensing_ista_gain_50": DEFAULT | _options(iterate="ista", iterate_options={"gain": 0.5}),
    "gradual_same_schedule": {"sparsity.method": "gradual"} | _options(begin=0.05, end=0.5),
    "gradual_global": {"sparsity.method": "gradual"} | GLOBAL,
    "compressed_sensing_3_times_longer": DEFAULT | {"train.steps": 6000},
    "compressed_sensing_averaged": DEFAULT | {"train.ema": 0.99},
    "compressed_sensing_taught": DEFAULT | TAUGHT,
    "gradual_taught": {"sparsity.method": "gradual"} | TAUGHT,
    "gradual_adam_metric_regrowth_taught": TRIALS["gradual"][9] | TAUGHT,
    "mask_of_gradual": MASKED | {MASK: "gradual"},  # found by it, and trained again from the first weights
    "mask_of_compressed_sensing": MASKED | {MASK: "compressed_sensing"},
}


def setting(name: str) -> Setting:
    """Of a row, an ablation, or "trial-METHOD-N"."""
    return ROWS[name] if name in ROWS else ABLATIONS[name] if name in ABLATIONS else trial(name)


def trial(name: str) -> Setting:
    """The setting of "trial-METHOD-N"."""
    _, method, number = name.rsplit("-", 2) if name.count("-") == 2 else ("", "", "")
    if method not in TRIALS or not number.isdigit() or int(number) >= len(TRIALS[method]):
        raise SystemExit(
            f"{name!r} is no row and no trial: {', '.join([*ROWS, *ABLATIONS])}; trial-METHOD-N of {', '.join(TRIALS)}"
        )
    return TRIALS[method][int(number)]
