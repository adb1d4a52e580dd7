"""What a config may say, and the one line that answers what it may not."""

import dataclasses
import tomllib

import numpy as np
import pytest

from csp import cli
from csp.train import ConfigError, config, plain, pruning
from csp.train.config import Config


def put(path, text):
    (path / "c.toml").write_text(text)
    return path / "c.toml"


def test_it_comes_back_as_it_was_written(recipe, tmp_path):
    read = config.read(
        recipe, [("sparsity.rules", '[{pattern = "ctc/.*", structure = ""}]'), ("data.speed", "[0.9, 1.1]")]
    )
    again = put(tmp_path, config.as_toml(read))
    assert config.read(again) == read
    assert read.sparsity.rules[0].pattern == "ctc/.*"


@pytest.mark.parametrize("name", ["digits.toml", "lm.toml", "lm_grid_novels.toml"])
def test_the_config_in_full_explains_every_key_and_is_that_config(name, pytestconfig, tmp_path, capsys):
    path = pytestconfig.rootpath / "configs" / name
    assert cli.main(["train", str(path), "--keys", "--train.steps", "7"]) == 0
    said = capsys.readouterr().out
    read = config.read(put(tmp_path, said))
    assert read == config.read(path, [("train.steps", "7")])
    for meaning in plain.meanings(config.Train).values():
        assert meaning in said.replace("\n#  ", "")


def test_the_config_in_full_of_a_run_and_of_nothing(recipe, tmp_path, capsys):
    put(tmp_path, config.as_toml(config.read(recipe)))
    (tmp_path / "c.toml").rename(tmp_path / "config.toml")
    assert cli.main(["train", "--out", str(tmp_path), "--keys"]) == 0
    assert config.read(put(tmp_path, capsys.readouterr().out)) == config.read(recipe)
    assert cli.main(["train", "--keys", "--train.steps", "7"]) == 0
    assert "\nsteps = 7\n" in capsys.readouterr().out
    assert cli.main(["train", "--out", str(tmp_path / "none"), "--keys"]) == 2


def test_every_field_has_a_meaning_or_shares_the_one_above():
    shared = {"valid_split", "test_split", "pieces", "keep", "longest"}  # of Data
    sections = set(config.MODELS.values()) | {type(getattr(Config(), f.name)) for f in dataclasses.fields(Config)}
    for kind in (Config, *filter(dataclasses.is_dataclass, sections)):
        own = {f.name for f in dataclasses.fields(kind) if not dataclasses.is_dataclass(getattr(kind(), f.name))}
        assert own - (shared if kind is config.Data else set()) == set(plain.meanings(kind)), kind


def test_the_command_line_wins(recipe):
    read = config.read(recipe, [("sparsity.target", "0.95"), ("model.encoder", "conformer"), ("train.steps", "7")])
    assert (read.sparsity.target, read.model.encoder, read.train.steps) == (0.95, "conformer", 7)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.stepz", "1", r"'train.stepz' is no key; the nearest is train.steps"),
        ("trian.steps", "1", r"'trian' is no key; the nearest is train"),
        ("train.steps", "many", r"train.steps = 'many' is no int"),
        ("train.steps", "1.5", r"train.steps = 1.5 is no int"),
        ("train.steps", "true", r"train.steps = True is no int"),
        ("train.steps", "0", r"train.steps 0 must be positive"),
        ("train.clip", "-1", r"train.clip -1.0 must not be negative"),
        ("train.steps", "3000000000", r"train.steps 3000000000 are more than a step counts"),
        ("train.learning_rate", "inf", r"train.learning_rate inf must be positive, and finite"),
        ("train.weight_decay", "inf", r"train.weight_decay inf must not be negative, and finite"),
        ("train.patience", "-1", r"train.patience -1 must not be negative"),
        ("train.bad_steps", "0", r"train.bad_steps 0 must be positive"),
        ("train.retries", "-1", r"train.retries -1 must not be negative"),
        ("train.teacher_weight", "2", r"train.teacher_weight 2.0 must lie in \[0, 1\]"),
        ("train.devices", "-1", r"train.devices -1 must not be negative"),
        ("data.buckets", "0", r"data.buckets 0 must be positive"),
        ("data.memory", "-1", r"data.memory -1 must not be negative"),
        ("data.masks", "[2, 8, -1, 4]", r"data.masks is four numbers, 0 or more"),
        ("data.noise", "[5, inf]", r"data.noise is two numbers of decibels"),
        ("train.seed", "99999999999999999999", r"train.seed 9+ must lie in \[0, 2\^32\)"),
        ("data.speed", "[0.9]", r"data.speed is two numbers"),
        ("data.speed", "[0, 1]", r"data.speed is two numbers"),
        ("data.keep", "Z-A", r"data.keep 'Z-A' is no class of characters"),
        ("features.hop", "0", r"features.hop 0 and features.window 0.025: 0 < hop <= window"),
        ("features.hop", "1e-9", r"features.hop 1e-09 is less than a sample, of which \d+ make a second"),
        ("decode.beam", "1000000", r"decode.beam 1000000 must lie in \[1, 1024\]"),
        ("features.bins", "0", r"features.bins 0 must lie in \[1, 4096\]"),
        ("model.heads", "0", r"model.heads 0 must be positive"),
        ("model.reduce_after", "2", r"model.reduce_after 2: a layer must come after it, of \d"),
        ("model.ctc_weight", "1.5", r"model.ctc_weight 1.5 must lie in \[0, 1\]"),
        ("name", "../up", r"name '../up' is none of a folder"),
        ("name", '""', r"name '' is none of a folder"),
        ("name", '"a\\nb"', r"name 'a.nb' is none of a folder"),
        ("model.dtype", "float99", r"'float99' is neither float32 nor bfloat16"),
        ("decode.values", "int3", r"'int3' is none of f64, f32"),
        ("decode.codec", "foo", r"'foo' is none of auto, dense"),
        ("data.speed", "fast", r"data.speed is a list, not 'fast'"),
        ("train", "3", r"train is a section, not 3"),
        ("train.accumulate", "3", r"train.accumulate must divide train.batch"),
        ("sparsity.targets", "[0.5, 0.9]", r"sparsity.target or sparsity.targets, not both"),
        ("sparsity.budget", "init", r"budget 'init' keeps the zeros of train.init: sparsity.method = 'static'"),
        ("sparsity.rules", '[{structure = "rows"}]', r"sparsity.rules\[0\].pattern is missing"),
        ("sparsity.options", "3", r"sparsity.options is a table, such as \{ every = 40 \}, not 3"),
        ("data.tokens", "syllables", r"data.tokens 'syllables' is none of characters, words, pieces"),
        ("data.vocabulary", "other.safetensors", r"data.vocabulary is for a language model: .* what train.init has"),
        ("version", "0", r"version 0 is none: this csp writes 1"),
        ("version", '"1"', r"version '1' is none: this csp writes 1"),
        ("version", "2", r"version 2 is newer than this csp, which reads 1: upgrade"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(recipe, key, value, message):
    """FAULTS 13 among them."""
    with pytest.raises(ConfigError, match=message) as raised:
        config.read(recipe, [(key, value)])
    assert str(raised.value).startswith(f"{recipe}: ")
    assert "\n" not in str(raised.value)


def test_a_config_may_be_based_on_another(tmp_path):
    (tmp_path / "a.toml").write_text(
        'name = "a"\n[data]\nsynth = "digits"\ncount = 7\n[train]\nsteps = 5\n[sparsity]\ntarget = 0.5\n'
    )
    (tmp_path / "b.toml").write_text('base = "a.toml"\nname = "b"\n[data]\ncount = 9\n')
    found = config.read(tmp_path / "b.toml", [("train.seed", "3")])
    assert (found.name, found.data.synth, found.data.count, found.train.steps) == ("b", "digits", 9, 5)
    assert config.read(tmp_path / "b.toml", [("data.train", "x.tsv")]).data.synth == ""
    (tmp_path / "c.toml").write_text('base = "c.toml"\n')
    with pytest.raises(ConfigError, match="no file beside it, or based on this one"):
        config.read(tmp_path / "c.toml")


def test_a_target_and_a_structure_that_has_its_own(recipe, tmp_path):
    """Neither is silently ignored; who asks for N:M takes back the target of the file, and of its base."""
    assert config.read(recipe, [("sparsity.structure", "2:4")]).sparsity.target is None
    with pytest.raises(ConfigError, match=r"structure '2:4', which has its own: name one of them"):
        config.read(recipe, [("sparsity.structure", "2:4"), ("sparsity.target", "0.9")])
    (tmp_path / "banks.toml").write_text(f'base = "{recipe.name}"\n[sparsity]\nstructure = "12:128"\n')
    assert config.read(tmp_path / "banks.toml").sparsity.target is None
    with pytest.raises(ConfigError, match=r"structure '12:128', which has its own"):
        config.read(tmp_path / "banks.toml", [("sparsity.targets", "[0.5, 0.9]")])
    with pytest.raises(ConfigError, match=r"sparsity.target is missing: say 0.9, or sparsity.method = 'dense'"):
        config.read(tmp_path / "banks.toml", [("sparsity.structure", "entries")])
    assert config.read(tmp_path / "banks.toml", [("sparsity.method", "dense")]).sparsity.structure == "entries"
    with pytest.raises(ConfigError, match=r"sparsity.method 'dense' prunes nothing: name another"):
        config.read(recipe, [("sparsity.method", "dense"), ("sparsity.target", "0.5")])
    those = [("sparsity.method", "static"), ("sparsity.budget", "init"), ("train.init", "model.safetensors")]
    assert config.read(recipe, those).sparsity.target is None
    with pytest.raises(ConfigError, match=r"leave sparsity.target out"):
        config.read(recipe, [*those, ("sparsity.target", "0.5")])


def test_what_one_iterate_only_has(recipe):
    def method(options: str):
        said = [("sparsity.method", "compressed_sensing"), ("sparsity.options", options)]
        return pruning.method_of(config.read(recipe, said).sparsity, 100)

    assert method('{iterate = "trimmed", iterate_options = {shrink = "metric"}}').name == "compressed_sensing"
    assert method("{iterate_options = {firm = 2}}").name == "compressed_sensing"  # of the default iterate
    with pytest.raises(ValueError, match="firm"):
        method("{iterate_options = {firm = 0.5}}")
    with pytest.raises(ConfigError, match=r"shrink 'soft' is none of decoupled, metric"):
        method('{iterate = "trimmed", iterate_options = {shrink = "soft"}}')
    with pytest.raises(ConfigError, match=r"sparsity.options of compressed_sensing: .*unexpected keyword"):
        method('{iterate = "trimmed", iterate_options = {firm = 2}}')


def test_the_average_of_gradients_is_asked_for(recipe):
    assert config.read(recipe, [("train.beta1", "0.5")]).train.beta1 == 0.5
    with pytest.raises(ConfigError, match=r"train.beta1 1.0 must lie in \[0, 1\)"):
        config.read(recipe, [("train.beta1", "1.0")])


def test_what_is_no_toml_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"c\.toml: "):
        config.read(put(tmp_path, "train = {"))
    with pytest.raises(ConfigError, match="is no file: name a config"):
        config.read(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"data.train names no data"):
        config.read(put(tmp_path, ""))


def test_every_recipe_in_configs_is_read(pytestconfig):
    recipes = sorted((pytestconfig.rootpath / "configs").glob("*.toml"))
    assert recipes
    for path in recipes:
        read = config.read(path)
        assert isinstance(read, Config)
        assert tomllib.loads(config.as_toml(read))


@pytest.mark.parametrize("value", ["inf", "-inf", "1e-05", "0.1"])
def test_a_config_written_out_is_read_again(recipe, tmp_path, value):
    """Of all numbers that TOML has; JSON has no word for the first two."""
    read = config.read(
        recipe, [("train.spike", "inf"), ("data.longest", "inf"), ("sparsity.options", f"{{x = {value}}}")]
    )
    (tmp_path / "again.toml").write_text(config.as_toml(read))
    assert config.read(tmp_path / "again.toml") == read


def test_a_schedule_replaces_the_ramp():
    steps, plain = np.arange(0, 200, 5), config.Sparsity(method="gradual", target=0.8)
    ramps = {
        name: np.array([pruning.method_of(dataclasses.replace(plain, schedule=name), 200).ramp(t) for t in steps])
        for name in ("", "cubic", "linear", "one_shot")
    }
    np.testing.assert_allclose(ramps[""], ramps["cubic"])
    np.testing.assert_allclose(ramps["linear"], np.clip((steps - 20) / 120, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(ramps["one_shot"], steps >= 20)
    with pytest.raises(ConfigError, match="schedule 'steep' is none of cubic, linear, one_shot"):
        pruning.method_of(dataclasses.replace(plain, schedule="steep"), 200)


@pytest.mark.parametrize(
    ("method", "metric"), [("compressed_sensing", "adam"), ("ste", "magnitude"), ("gradual", "magnitude")]
)
def test_the_metric_is_the_methods_choice(method, metric):
    assert pruning.metric_of(config.Sparsity(method=method, target=0.8)) == metric
    assert pruning.metric_of(config.Sparsity(method=method, target=0.8, metric="taylor")) == "taylor"


def test_a_rule_of_its_own_has_a_metric_that_it_can_have():
    own = (config.RuleConfig("a", "rank", 0.5), config.RuleConfig("b", "rows", 0.5), config.RuleConfig("c"))
    said = config.Sparsity(method="compressed_sensing", rules=own)
    assert [str(rule.metric) for rule in pruning.rules_of(said, {}, None)] == ["magnitude", "adam", "None"]
