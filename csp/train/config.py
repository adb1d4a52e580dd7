"""What shall be trained, on what, how? Frozen dataclasses, from TOML and the command line; unknown keys are refused."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from csp.models.recogniser import ModelConfig

VERSION = 1


class ConfigError(ValueError):
    """A key or a value that makes no sense, and what to write instead."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Recordings and transcripts.

    Args:
      train: manifest or LibriSpeech folder.
      valid: likewise; the split `valid_split` of `train` by default.
      test: likewise; "" for none.
      train_split, valid_split, test_split: which split of a manifest; "" for all of it.
      synth: a grammar, "digits" or "commands": speak a corpus of `count` utterances in place of all that.
      count: utterances of the training split that is spoken.
      tokens: "characters", "words" or "pieces" of which there are `pieces`.
      upper, keep: the normalisation of transcripts, see `csp.speech.tokens`.
      shortest, longest: seconds; others are left out and counted.
      broken: the share of recordings that may be unreadable before training stops.
      buckets: how many lengths a batch can have; each is compiled once.
      speed: slowest and fastest of a random change of speed; empty for none.
      noise: lowest and highest signal-to-noise ratio in decibels; empty for none.
      masks: SpecAugment's stretches of time, their frames, bands, and their bins.
      memory: bytes of decoded audio that are kept; what does not fit is read again whenever it is needed.
      cache: compute the features of the training recordings once, not in every step: for small sets, without `speed`
        and `noise`.
    """

    train: str = ""
    valid: str = ""
    test: str = ""
    train_split: str = "train"
    valid_split: str = "valid"
    test_split: str = "test"
    synth: str = ""
    count: int = 2000
    tokens: str = "characters"
    pieces: int = 256
    upper: bool = True
    keep: str = "A-Z0-9' "
    shortest: float = 0.1
    longest: float = 20.0
    broken: float = 0.01
    buckets: int = 4
    speed: tuple[float, ...] = ()
    noise: tuple[float, ...] = ()
    masks: tuple[int, ...] = (2, 20, 2, 8)
    memory: int = 4 * 2**30
    cache: bool = False


@dataclasses.dataclass(frozen=True)
class Features:
    """Log-mel features, normalised by the mean and deviation of the training data, which the model keeps.

    Args:
      rate: samples a second; of features that are given, frames.
      bins: of each frame.
      window: seconds.
      hop: seconds.
      given: the manifest names .npy files of features, [frames, bins], in place of recordings.
    """

    rate: int = 16_000
    bins: int = 80
    window: float = 0.025
    hop: float = 0.010
    given: bool = False


@dataclasses.dataclass(frozen=True)
class Train:
    """The optimisation: AdamW, a warm-up, a cosine.

    Args:
      steps: accepted updates in all.
      seed: of the parameters, the order of the data and everything random.
      batch: utterances.
      learning_rate: its highest value.
      warmup: fraction of the steps.
      weight_decay: decoupled.
      clip: the largest norm of a gradient; 0 for any.
      accumulate: parts in which a batch is computed.
      ema: the decay of an average of the parameters, which is then what is exported; 0 for none.
      checkpoint_every: steps.
      keep: how many checkpoints stay.
      evaluate_every: steps; 0 for the end only.
      patience: evaluations without a better one after which training stops, once its budget is met; 0 for never.
      spike: a loss this many times the usual is not followed.
      bad_steps: so many refused steps in a row bring the last checkpoint back, at half the learning rate.
      retries: how often they may, before training gives up.
      init: a model file to start from, with its vocabulary and normalisation.
      teacher: a model file whose frame by frame labels are followed too.
      teacher_weight: how much.
      devices: over which a batch is split; 0 for all.
      shard: split large parameters over the devices too.
      tensorboard: write the metrics for TensorBoard too; needs tensorboardX.
      distributed: this is one of several processes, see `csp.train.mesh.join`.
    """

    steps: int = 2000
    seed: int = 0
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 1e-2
    clip: float = 5.0
    accumulate: int = 1
    ema: float = 0.0
    checkpoint_every: int = 200
    keep: int = 3
    evaluate_every: int = 500
    patience: int = 0
    spike: float = 20.0
    bad_steps: int = 10
    retries: int = 3
    init: str = ""
    teacher: str = ""
    teacher_weight: float = 0.5
    devices: int = 1
    shard: bool = False
    tensorboard: bool = False
    distributed: bool = False


@dataclasses.dataclass(frozen=True)
class RuleConfig:
    """One rule: the parameters whose whole path matches `pattern`; structure "" leaves them alone."""

    pattern: str
    structure: str = ""
    target: float | None = None
    metric: str = "magnitude"


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """What becomes zero. See `csp.methods` for `method` and its `options`; `targets` gives a file for each.

    `structure` is "entries", "12:128", "blocks 16x1", "rows", "columns", "heads 4" or "rank"; "dense" methods prune
    nothing.
    """

    method: str = "compressed_sensing"
    target: float | None = None
    targets: tuple[float, ...] = ()
    structure: str = "entries"
    metric: str = "magnitude"
    schedule: str = ""
    budget: str = "uniform"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    rules: tuple[RuleConfig, ...] = ()


@dataclasses.dataclass(frozen=True)
class Decode:
    """How words are found, and how the finished model is stored."""

    beam: int = 1
    values: str = "int8"
    codec: str = "auto"


@dataclasses.dataclass(frozen=True)
class Config:
    version: int = VERSION
    name: str = "model"
    data: Data = Data()
    features: Features = Features()
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: Train = Train()
    sparsity: Sparsity = Sparsity()
    decode: Decode = Decode()


def read(path: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """The config of a TOML file, with keys like "sparsity.target" replaced by values as one writes them in TOML."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path} is no file: name a config, such as configs/digits.toml")
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    for key, value in overrides:
        _put(given, key, value)
    version = given.get("version", VERSION)
    if not isinstance(version, int) or version > VERSION:
        raise ConfigError(f"{path}: version {version} is newer than this csp, which reads {VERSION}: upgrade csp-jax")
    try:
        return check(build(Config, given, ""))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def build(kind: type, given: Mapping[str, Any], where: str) -> Any:
    """A dataclass from plain values; `where` is its place in the file, for errors."""
    types = get_type_hints(kind)
    made = {}
    for key, value in given.items():
        name = f"{where}{key}"
        if key not in types:
            near = difflib.get_close_matches(key, types, n=1, cutoff=0.0)
            raise ConfigError(f"{name!r} is no key; the nearest is {where}{near[0]}")
        made[key] = _value(types[key], value, name)
    missing = [f.name for f in dataclasses.fields(kind) if _needed(f) and f.name not in made]
    if missing:
        raise ConfigError(f"{where}{missing[0]} is missing")
    return kind(**made)


def as_plain(config: Any) -> dict[str, Any]:
    """The config as plain JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def as_toml(config: Config) -> str:
    """The config in full, as `read` reads it."""
    plain, lines = as_plain(config), []
    lines += [f"{key} = {_toml(value)}" for key, value in plain.items() if not isinstance(value, dict)]
    for section, values in plain.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]"]
            lines += [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def check(config: Config) -> Config:
    """The values that no type can refuse."""
    train, data, sparsity = config.train, config.data, config.sparsity
    for holds, what in [
        (train.steps > 0, f"train.steps {train.steps} must be positive"),
        (train.batch > 0, f"train.batch {train.batch} must be positive"),
        (train.accumulate > 0, f"train.accumulate {train.accumulate} must be positive"),
        (train.batch % max(train.accumulate, 1) == 0, "train.accumulate must divide train.batch"),
        (train.learning_rate > 0, f"train.learning_rate {train.learning_rate} must be positive"),
        (0 <= train.ema < 1, f"train.ema {train.ema} must lie in [0, 1)"),
        (train.checkpoint_every > 0, "train.checkpoint_every must be positive"),
        (train.keep > 0, "train.keep must be positive"),
        (0 <= data.broken <= 1, f"data.broken {data.broken} must lie in [0, 1]"),
        (0 <= data.shortest < data.longest, "data.shortest must be less than data.longest"),
        (len(data.speed) in (0, 2), "data.speed is two numbers, such as [0.9, 1.1], or []"),
        (len(data.noise) in (0, 2), "data.noise is two numbers, such as [5, 20], or []"),
        (len(data.masks) in (0, 4), "data.masks is four numbers, or []"),
        (bool(data.train or data.synth), "data.train names no manifest, and data.synth no grammar"),
        (not (sparsity.targets and sparsity.target is not None), "sparsity.target or sparsity.targets, not both"),
        (list(sparsity.targets) == sorted(sparsity.targets), "sparsity.targets must ascend"),
        (not (config.features.given and data.synth), "features.given and data.synth: nothing is spoken as features"),
        (
            not (data.cache and (data.speed or data.noise)),
            "data.cache and data.speed or data.noise: sound changes",
        ),
        (not (config.features.given and (data.speed or data.noise)), "data.speed and data.noise need recordings"),
        (config.model.stack > 0, "model.stack must be positive"),
        (config.decode.beam > 0, "decode.beam must be positive"),
    ]:
        if not holds:
            raise ConfigError(what)
    return config


def _needed(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _value(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is a section, not {value!r}")
        return build(kind, value, f"{name}.")
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name} is a list, not {value!r}")
        return tuple(_value(get_args(kind)[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if get_origin(kind) is dict and isinstance(value, Mapping):
        return dict(value)
    wanted = [k for k in (get_args(kind) or (kind,)) if k is not type(None)]
    if float in wanted and type(value) is int:
        return float(value)
    if not any(type(value) is k for k in wanted):
        raise ConfigError(f"{name} = {value!r} is no {' or '.join(k.__name__ for k in wanted)}")
    return value


def _put(given: dict[str, Any], key: str, value: str) -> None:
    *sections, last = key.split(".")
    at = given
    for section in sections:
        at = at.setdefault(section, {})
        if not isinstance(at, dict):
            raise ConfigError(f"--{key}: {section} is no section")
    try:
        at[last] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        at[last] = value


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
