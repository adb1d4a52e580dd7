"""Which values of a config make no sense, though their types are right?"""

import re
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Any

from csp.formats import codecs
from csp.formats.values import TYPES
from csp.speech import audio
from csp.speech.tokens import KINDS
from csp.train.plain import ConfigError

GIVEN = "init"  # the budget of a model that is sparse already
CODECS = ("auto", "dense", *codecs.SPARSE)
_POSITIVE = ("layers", "width", "heads", "stack", "predictor", "joint", "kernel", "chunk", "context")
_NOT_NEGATIVE = ("reduce_after", "left", "hidden", "ctc_weight")
MOST = 1 << 20  # of what a model's config counts: no runtime reads more
Demand = tuple[bool, str]  # what must hold, and what to say if it does not


def is_fixed(structure: Any) -> bool:
    """N:M says itself how much becomes zero."""
    return ":" in str(structure)


def check(config: Any) -> Any:
    """The config, or an error that names the value."""
    train, data, sparsity = config.train, config.data, config.sparsity
    asked = bool(sparsity.targets) or sparsity.target is not None
    demands = [
        (
            train.steps > 0 or (train.steps == 0 and _is_model_already(config)),
            f"train.steps {train.steps} must be positive, or 0 with sparsity.method 'calibrated' or a dense train.init",
        ),
        (train.steps < 2**31, f"train.steps {train.steps} are more than a step counts, 2^31"),
        (train.batch > 0, f"train.batch {train.batch} must be positive"),
        (train.accumulate > 0, f"train.accumulate {train.accumulate} must be positive"),
        (train.batch % max(train.accumulate, 1) == 0, "train.accumulate must divide train.batch"),
        (0 < train.learning_rate < inf, f"train.learning_rate {train.learning_rate} must be positive, and finite"),
        (0 <= train.seed < 2**32, f"train.seed {train.seed} must lie in [0, 2^32)"),
        (0 <= train.warmup <= 1, f"train.warmup {train.warmup} must lie in [0, 1]"),
        (
            0 <= train.weight_decay < inf,
            f"train.weight_decay {train.weight_decay} must not be negative, and finite",
        ),
        (train.clip >= 0, f"train.clip {train.clip} must not be negative; 0 is for gradients of any norm"),
        (train.evaluate_every >= 0, f"train.evaluate_every {train.evaluate_every} must not be negative"),
        (train.patience >= 0, f"train.patience {train.patience} must not be negative; 0 is for never"),
        (train.bad_steps > 0, f"train.bad_steps {train.bad_steps} must be positive"),
        (train.retries >= 0, f"train.retries {train.retries} must not be negative"),
        (0 <= train.teacher_weight <= 1, f"train.teacher_weight {train.teacher_weight} must lie in [0, 1]"),
        (train.devices >= 0, f"train.devices {train.devices} must not be negative; 0 is for all"),
        (train.spike > 1, f"train.spike {train.spike} must be more than 1; inf lets every loss pass"),
        (0 <= train.beta1 < 1, f"train.beta1 {train.beta1} must lie in [0, 1)"),
        (0 <= train.ema < 1, f"train.ema {train.ema} must lie in [0, 1)"),
        (train.checkpoint_every > 0, "train.checkpoint_every must be positive"),
        (train.keep > 0, "train.keep must be positive"),
        (0 <= data.broken <= 1, f"data.broken {data.broken} must lie in [0, 1]"),
        (0 <= data.shortest < data.longest, "data.shortest must be less than data.longest"),
        (_is_range(data.speed, 0.1, 10), "data.speed is two numbers, such as [0.9, 1.1], or []"),
        (_is_range(data.noise, -200, 200), "data.noise is two numbers of decibels, such as [5, 20], or []"),
        (_is_class(data.keep), f"data.keep {data.keep!r} is no class of characters, such as A-Z' "),
        (len(data.masks) in (0, 4) and min(data.masks, default=0) >= 0, "data.masks is four numbers, 0 or more, or []"),
        (bool(data.train or data.synth), "data.train names no data, and data.synth no grammar"),
        (not (sparsity.targets and sparsity.target is not None), "sparsity.target or sparsity.targets, not both"),
        (list(sparsity.targets) == sorted(sparsity.targets), "sparsity.targets must ascend"),
        (
            not (sparsity.is_fixed and asked),
            f"sparsity.target, and structure {sparsity.structure!r}, which has its own: name one of them, "
            "such as --sparsity.structure entries",
        ),
        (
            asked
            or bool(sparsity.method == "dense" or sparsity.is_fixed or sparsity.rules or config.sweep)
            or sparsity.budget == GIVEN,
            "sparsity.target is missing: say 0.9, or sparsity.method = 'dense' to prune nothing",
        ),
        (
            sparsity.method != "dense" or not (asked or sparsity.is_fixed),
            "sparsity.method 'dense' prunes nothing: name another, such as --sparsity.method compressed_sensing",
        ),
        (
            sparsity.budget != GIVEN
            or (sparsity.method == "static" and sparsity.structure == "entries" and bool(train.init)),
            f"sparsity.budget {GIVEN!r} keeps the zeros of train.init: sparsity.method = 'static', structure 'entries'",
        ),
        (
            sparsity.budget != GIVEN or not asked,
            f"sparsity.budget {GIVEN!r} keeps the zeros that are there: leave sparsity.target out",
        ),
        (not (config.features.given and data.synth), "features.given and data.synth: nothing is spoken as features"),
        (
            not (data.cache and (data.speed or data.noise)),
            "data.cache and data.speed or data.noise: sound changes",
        ),
        (not (config.features.given and (data.speed or data.noise)), "data.speed and data.noise need recordings"),
        (_is_name(config.name), f"name {config.name!r} is none of a folder: letters, digits, '-' and '_' are"),
        *_of_features(config.features),
        *_of_model(config),
        *_of_calibration(sparsity, asked),
        *of_targets(sparsity),
        *of_heads(config),
        (data.tokens in KINDS, f"data.tokens {data.tokens!r} is none of {', '.join(KINDS)}"),
        (
            config.kind == "lm" or not data.vocabulary,
            "data.vocabulary is for a language model: a recogniser takes over what train.init has",
        ),
        (data.length > 1, f"data.length {data.length} must be 2 or more"),
        (data.buckets > 0, f"data.buckets {data.buckets} must be positive"),
        (data.memory >= 0, f"data.memory {data.memory} must not be negative"),
        (data.pieces > 0, f"data.pieces {data.pieces} must be positive"),
        (data.count > 0, f"data.count {data.count} must be positive"),
        (data.most >= 0, f"data.most {data.most} must not be negative"),
        (0 < config.decode.beam <= 1024, f"decode.beam {config.decode.beam} must lie in [1, 1024]"),
        (config.decode.values in TYPES, f"decode.values {config.decode.values!r} is none of {', '.join(TYPES)}"),
        (config.decode.codec in CODECS, f"decode.codec {config.decode.codec!r} is none of {', '.join(CODECS)}"),
    ]
    demand(demands)
    return config


def demand(demands: Iterable[Demand]) -> None:
    for holds, what in demands:
        if not holds:
            raise ConfigError(what)


def _is_range(given: Sequence[float], least: float, most: float) -> bool:
    return not given or (len(given) == 2 and least <= given[0] <= given[1] <= most)


def _is_name(said: str) -> bool:
    return said.isprintable() and said.strip(" .") != "" and not set(said) & set('/\\:*?"<>|')


def _is_class(said: str) -> bool:
    try:
        re.compile(f"[^{said}]")
    except re.error:
        return False
    return True


def _of_features(features: Any) -> list[Demand]:
    slowest, highest = (1 if features.given else audio.RATES[0]), audio.RATES[1]
    rate, bins = features.rate, features.bins
    return [
        (slowest <= rate <= highest, f"features.rate {rate} must lie in [{slowest}, {highest}]"),
        (1 <= bins <= 4096, f"features.bins {bins} must lie in [1, 4096]"),
        (
            0 < features.hop <= features.window <= 1,
            f"features.hop {features.hop:g} and features.window {features.window:g}: 0 < hop <= window <= 1 second",
        ),
        (
            features.given or round(features.hop * features.rate) > 0,
            f"features.hop {features.hop:g} is less than a sample, of which {rate} make a second",
        ),
    ]


def _of_model(config: Any) -> Iterator[Demand]:
    model = config.model
    for least, names in ((1, _POSITIVE), (0, _NOT_NEGATIVE)):
        for name in names:
            value = getattr(model, name, least)
            yield value >= least, f"model.{name} {value} must be {'positive' if least else '0 or more'}"
            yield value <= MOST, f"model.{name} {value} is more than the {MOST:,} that a file may say"
    yield model.dtype in ("float32", "bfloat16"), f"model.dtype {model.dtype!r} is neither float32 nor bfloat16"
    yield not getattr(model, "ranks", None), "model.ranks is what files say: sparsity.structure = 'rank' makes factors"
    if getattr(model, "positions", "") == "learned":
        most = config.data.length
        yield (
            model.context == most,
            f"model.context {model.context}: learned positions are those of a row, which has data.length {most}: "
            f"--model.context {most}",
        )
    after = getattr(model, "reduce_after", 0)
    yield after < model.layers, f"model.reduce_after {after}: a layer must come after it, of {model.layers}"
    yield not after or model.encoder == "lstm", f"model.reduce_after {after}: only an LSTM encoder does that"
    share = getattr(model, "ctc_weight", 0)
    yield share <= 1, f"model.ctc_weight {share} must lie in [0, 1]"


def _is_model_already(config: Any) -> bool:
    method = config.sparsity.method
    return config.kind == "lm" and (method == "calibrated" or (method == "dense" and bool(config.train.init)))


def of_targets(sparsity: Any) -> Iterator[Demand]:
    key = "sparsity.targets" if sparsity.targets else "sparsity.target"
    for target in sparsity.targets or (() if sparsity.target is None else (sparsity.target,)):
        yield 0 <= target <= 1, f"{key} {target:g} must lie in [0, 1]"
        if sparsity.structure == "rank":
            yield 0 < target < 1, f"{key} {target:g}: a rank saves a fraction of the bytes between 0 and 1"


def of_heads(config: Any) -> Iterator[Demand]:
    """Who asks for "attention 4" means the heads that there are: half a head is none that could be removed."""
    said = config.sparsity.structure
    model = config.model
    if not said.startswith("attention ") or "lstm" in (getattr(model, "network", ""), getattr(model, "encoder", "")):
        return
    for heads in getattr(model, "left_heads", ()) or (model.heads,):
        yield said == f"attention {heads}", f"sparsity.structure {said!r}: a layer has {heads} heads, say so"


def _of_calibration(sparsity: Any, asked: bool) -> Iterator[Demand]:
    if sparsity.method != "calibrated":
        return
    for key, value in sparsity.options.items():
        yield key in ("batches", "rungs"), f"sparsity.options.{key}: calibrated has batches and rungs"
        yield type(value) is int and value > 0, f"sparsity.options.{key} {value!r} must be a positive number"
    yield asked or sparsity.structure != "rank", "sparsity.target is missing: the fraction of the bytes to save"
    yield (
        sparsity.structure != "rank" or not sparsity.rules,
        "sparsity.rules: ranks are chosen for all matrices together, leave them out",
    )
    for rule in sparsity.rules:
        yield (
            rule.metric in ("", sparsity.metric),
            f"sparsity.rules: metric {rule.metric!r} of {rule.pattern!r}: calibrated has one for all, sparsity.metric",
        )
    yield (
        sparsity.schedule in ("", "cubic"),
        f"sparsity.schedule {sparsity.schedule!r}: calibrated goes down along a cubic, in options.rungs steps",
    )
    yield (
        sparsity.structure != "rank" or sparsity.budget == "uniform",
        f"sparsity.budget {sparsity.budget!r}: ranks are chosen for all matrices together, leave it out",
    )
