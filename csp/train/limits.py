"""Which values of a config make no sense, though their types are right?"""

from typing import Any

from csp.train.plain import ConfigError

GIVEN = "init"  # the budget of a model that is sparse already


def is_fixed(structure: Any) -> bool:
    """N:M says itself how much becomes zero."""
    return ":" in str(structure)


def check(config: Any) -> Any:
    """The config, or an error that names the value."""
    train, data, sparsity = config.train, config.data, config.sparsity
    asked = bool(sparsity.targets) or sparsity.target is not None
    for holds, what in [
        (
            train.steps > 0 or (train.steps == 0 and sparsity.method == "calibrated"),
            f"train.steps {train.steps} must be positive, or 0 with sparsity.method = 'calibrated'",
        ),
        (train.batch > 0, f"train.batch {train.batch} must be positive"),
        (train.accumulate > 0, f"train.accumulate {train.accumulate} must be positive"),
        (train.batch % max(train.accumulate, 1) == 0, "train.accumulate must divide train.batch"),
        (train.learning_rate > 0, f"train.learning_rate {train.learning_rate} must be positive"),
        (0 <= train.beta1 < 1, f"train.beta1 {train.beta1} must lie in [0, 1)"),
        (0 <= train.ema < 1, f"train.ema {train.ema} must lie in [0, 1)"),
        (train.checkpoint_every > 0, "train.checkpoint_every must be positive"),
        (train.keep > 0, "train.keep must be positive"),
        (0 <= data.broken <= 1, f"data.broken {data.broken} must lie in [0, 1]"),
        (0 <= data.shortest < data.longest, "data.shortest must be less than data.longest"),
        (len(data.speed) in (0, 2), "data.speed is two numbers, such as [0.9, 1.1], or []"),
        (len(data.noise) in (0, 2), "data.noise is two numbers, such as [5, 20], or []"),
        (len(data.masks) in (0, 4), "data.masks is four numbers, or []"),
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
        (config.kind == "lm" or config.model.stack > 0, "model.stack must be positive"),
        (data.length > 1, f"data.length {data.length} must be 2 or more"),
        (data.most >= 0, f"data.most {data.most} must not be negative"),
        (config.decode.beam > 0, "decode.beam must be positive"),
    ]:
        if not holds:
            raise ConfigError(what)
    return config
