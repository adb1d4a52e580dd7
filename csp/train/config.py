"""What shall be trained, on what, how? Frozen dataclasses, from TOML and the command line; unknown keys are refused."""

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from csp.models.lm import LMConfig
from csp.models.recogniser import ModelConfig
from csp.train.limits import GIVEN, check, is_fixed
from csp.train.plain import ConfigError as ConfigError
from csp.train.plain import as_plain as as_plain
from csp.train.plain import as_toml as as_toml
from csp.train.plain import build, value_of
from csp.train.plain import put as put

VERSION = 1
MODELS = {"recogniser": ModelConfig, "lm": LMConfig}  # what [model] says, for each kind


@dataclasses.dataclass(frozen=True)
class Data:
    """Recordings and transcripts; or texts, for a language model.

    Args:
      train: manifest or LibriSpeech folder; or a text, one sentence a line, which may be compressed (.gz, .xz, .bz2).
      valid: likewise, to choose by; the split `valid_split` of `train` by default.
      test: likewise, to be judged by in the end.
      train_split, valid_split, test_split: which split of a manifest, or which "a,b"; "" for all of it. The test may
        have no recording that is trained on.
      synth: a grammar, "digits" or "commands": speak a corpus of `count` utterances in place of all that.
      count: utterances of the training split that is spoken.
      tokens: "characters", "words" or "pieces" of which there are `pieces`; of a language model so many words too.
      vocabulary: a model file whose vocabulary and normalisation a language model takes over, to be heard with it.
      length: labels of a row into which sentences are packed.
      most: sentences, evenly chosen, by which a language model is judged and tested; 0 for all.
      upper, keep: the normalisation of transcripts, see `csp.speech.tokens`.
      shortest, longest: seconds of a recording; others are left out and counted.
      broken: the share of recordings that may be unreadable before training stops.
      buckets: how many lengths a batch can have; each is compiled once.
      speed: slowest and fastest of a random change of speed; empty for none.
      noise: lowest and highest signal-to-noise ratio in decibels; empty for none.
      masks: SpecAugment's stretches of time, their frames, bands, and their bins.
      memory: bytes of decoded audio that are kept; what does not fit is read again whenever it is needed.
      licence: of the data, for the model card.
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
    vocabulary: str = ""
    length: int = 128
    most: int = 0
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
    licence: str = ""
    cache: bool = False


@dataclasses.dataclass(frozen=True)
class Features:
    """Log-mel features, normalised by the mean and deviation of the training data, which the model keeps.

    Args:
      rate: samples a second; of features that are given, frames.
      bins: mel bands of each frame.
      window: of a frame, in seconds.
      hop: seconds between two frames.
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
      batch: utterances, or rows of text.
      learning_rate: the highest, after the warm-up; a cosine leads from there to zero.
      warmup: the fraction of the steps in which the learning rate rises.
      weight_decay: of AdamW, decoupled.
      beta1: how much of the average of the gradients a step keeps.
      clip: the largest norm of a gradient; 0 for any.
      accumulate: parts in which a batch is computed.
      ema: the decay of an average of the parameters, which is then what is exported; 0 for none.
      checkpoint_every: steps between two checkpoints.
      keep: how many checkpoints stay.
      evaluate_every: steps between two looks at the validation data; 0 for the end only.
      patience: evaluations without a better one after which training stops, once its budget is met; 0 for never.
      spike: a loss this many times the usual is not followed; after a projection of most weights that is learned anew.
      bad_steps: so many refused steps in a row bring the last checkpoint back, at half the learning rate.
      retries: how often they may, before training gives up.
      init: a model file to start from, with its vocabulary and normalisation.
      teacher: a model file whose frame by frame labels are followed too.
      teacher_weight: how much, between 0 and 1.
      devices: how many share a batch; 0 for all.
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
    beta1: float = 0.9
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
    metric: str = ""


@dataclasses.dataclass(frozen=True)
class Sparsity:
    """What becomes zero.

    Args:
      method: one of `csp.methods`, or "dense", which prunes nothing. "calibrated" prunes a language model by what
        `options.batches` of data say of its weights (see `csp.train.calibrate`), in `options.rungs` steps, and trains
        what is left after each.
      target: the share of zeros, between 0 and 1; a structure such as "12:128" has its own.
      targets: several, ascending, with a finished file at each.
      structure: "entries", "12:128", "blocks 16x1", "rows", "columns", "heads 4" or "rank"; or "hidden" for the units
        of feed-forward networks, "attention 4" for the heads of four-headed attention, which are removed from the file.
      metric: "" is the method's choice: "adam" of compressed sensing, "magnitude" of most others.
      schedule: "cubic", "linear" or "one_shot" between the method's steps; "" is the method's own.
      budget: "uniform", "erk", "global" or "lamp"; or "init", with the method "static": the zeros of `train.init`.
      options: of the method, see `csp.methods`: `{ end = 0.5, regrow = 0.3 }` of "gradual".
      rules: by path, the first that matches wins: [[sparsity.rules]] with `pattern`, `structure`, `target`, `metric`.
    """

    method: str = "compressed_sensing"
    target: float | None = None
    targets: tuple[float, ...] = ()
    structure: str = "entries"
    metric: str = ""
    schedule: str = ""
    budget: str = "uniform"
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    rules: tuple[RuleConfig, ...] = ()

    @property
    def is_fixed(self) -> bool:
        return is_fixed(self.structure)


@dataclasses.dataclass(frozen=True)
class Decode:
    """How words are found, and how the finished model is stored.

    Args:
      beam: hypotheses of the search; 1 takes the best label of each frame.
      values: of the file: "f32", "bf16", "f16", "int8" or "int4".
      codec: "auto", the smallest, or one of `csp.formats`.
    """

    beam: int = 1
    values: str = "int8"
    codec: str = "auto"


@dataclasses.dataclass(frozen=True)
class Config:
    """All of it; `model` is what `MODELS` has for its kind.

    Args:
      version: of the keys.
      kind: "recogniser" or "lm", a language model.
      name: of the run directory and the model.
      sweep: the grids of `csp sweep`: [[sweep]] with a list of values for each key.
    """

    version: int = VERSION
    kind: str = "recogniser"
    name: str = "model"
    data: Data = Data()
    features: Features = Features()
    model: Any = dataclasses.field(default_factory=ModelConfig)
    train: Train = Train()
    sparsity: Sparsity = Sparsity()
    decode: Decode = Decode()
    sweep: tuple[dict[str, Any], ...] = ()


def read(path: str | Path, overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """The config of a TOML file, with keys like "sparsity.target" replaced by values as one writes them in TOML.

    A file may begin with `base = "other.toml"`, beside it: what it says stands in place of what that one says. Who
    names data.train wants no grammar.
    """
    path = Path(path)
    given = _given(path, 0)
    named = [key for key, _ in overrides]
    if "data.train" in named and "data.synth" not in named:
        put(given, "data.synth", '""')
    said: dict[str, Any] = {}
    for key, value in overrides:
        put(given, key, value)
        put(said, key, value)
    _forget_target(given, said)
    version = given.get("version", VERSION)
    if type(version) is not int or version < 1:
        raise ConfigError(f"{path}: version {version!r} is none: this csp writes {VERSION}")
    if version > VERSION:
        raise ConfigError(f"{path}: version {version} is newer than this csp, which reads {VERSION}: upgrade csp-jax")
    try:
        return check(whole(given))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _given(path: Path, depth: int) -> dict[str, Any]:
    """What a file and those that it is based on say."""
    if not path.is_file():
        raise ConfigError(f"{path} is no file: name a config, such as configs/digits.toml")
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    base = own.pop("base", None)
    if base is None:
        return own
    if not isinstance(base, str) or depth > 8:
        raise ConfigError(f"{path}: base = {base!r} is no file beside it, or based on this one")
    found = _given(path.parent / base, depth + 1)
    _forget_target(found, own)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = found[key] | value if both else value
    return found


def _forget_target(before: dict[str, Any], said: Mapping[str, Any]) -> None:
    """Whoever asks for N:M, a dense model or the zeros that are there does not mean the share that stood before."""
    new, old = said.get("sparsity"), before.get("sparsity")
    if not (isinstance(new, Mapping) and isinstance(old, dict)):
        return
    if is_fixed(new.get("structure", "")) or new.get("method") == "dense" or new.get("budget") == GIVEN:
        forgotten = {"target", "targets"} | ({"structure"} if new.get("method") == "dense" else set())
        for key in forgotten - set(new):
            old.pop(key, None)


def whole(given: Mapping[str, Any]) -> Config:
    """A config from plain values."""
    kind = given.get("kind", "recogniser")
    if kind not in MODELS:
        raise ConfigError(f"kind {kind!r} is none of {', '.join(MODELS)}")
    others = {key: value for key, value in given.items() if key != "model"}
    return dataclasses.replace(build(Config, others, ""), model=value_of(MODELS[kind], given.get("model", {}), "model"))
