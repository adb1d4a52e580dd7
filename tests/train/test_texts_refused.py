"""What a language model is given that it cannot be trained on, pruned by or judged with: one line that says why."""

import json
import shlex
import signal

import pytest
from test_language import plain  # noqa: F401 # a fixture

from csp import formats
from csp.cli import main
from csp.train import language, lmfile, session
from csp.train.guard import Stopped


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sparsity.structure": "attention 4", "sparsity.target": "0.5"}, "'attention 4': a layer has 2 heads"),
        ({"sparsity.structure": "rank", "sparsity.target": "1.5"}, r"sparsity.target 1.5 must lie in \[0, 1\]"),
        ({"sparsity.structure": "rank", "sparsity.target": "0"}, "sparsity.target 0: a rank saves a fraction"),
        ({"sparsity.structure": "rank", "sparsity.target": "0.99"}, "sparsity.target 0.99 leaves 0.01 of the bytes"),
        ({"model.ranks": '{"blocks/0/feed/up/kernel" = 4}'}, "model.ranks is what files say"),
        ({"model.left_heads": "[1, 1]"}, r"model.left_heads \(1, 1\): of each of 1 layers between 1 and 2"),
        ({"model.left_heads": "[3]"}, r"model.left_heads \(3,\): of each"),
        ({"model.left_hidden": "[0]"}, r"model.left_hidden \(0,\): of each"),
        ({"model.positions": "learned", "model.context": "8"}, "model.context 8: learned .* --model.context 24"),
        (
            {"sparsity.structure": "rank", "sparsity.target": "0.5", "sparsity.rules": "[{pattern = '.*feed.*'}]"},
            "sparsity.rules: ranks are chosen for all matrices together",
        ),
        (
            {"sparsity.rules": "[{pattern = '.*up.*', structure = 'entries', metric = 'fisher', target = 0.5}]"},
            "sparsity.rules: metric 'fisher' of '.*up.*': calibrated has one for all",
        ),
        ({"model.network": "gru", "train.init": ""}, "model.network is 'transformer' or 'lstm'"),
        ({"model.network": "lstm", "sparsity.structure": "hidden", "sparsity.target": "0.5"}, "'hidden' is of Transf"),
        (
            {"model.network": "lstm", "sparsity.structure": "attention 2", "sparsity.target": "0.5"},
            "'attention 2' is of Transformers",
        ),
        ({"sparsity.schedule": "linear"}, "sparsity.schedule 'linear': calibrated goes down along a cubic"),
        (
            {"sparsity.structure": "rank", "sparsity.target": "0.5", "sparsity.budget": "erk"},
            "sparsity.budget 'erk': ranks are chosen for all matrices together",
        ),
        ({"data.pieces": "-5"}, "data.pieces -5 must be positive"),
        ({"data.count": "0"}, "data.count 0 must be positive"),
        ({"model.width": "1000000000"}, "model.width 1000000000 is more than the 1,048,576 that a file may say"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_a_config_that_makes_no_sense_is_one_line(plain, changes, says, tmp_path):  # noqa: F811
    recipe, run, _ = plain
    first = {} if "model.network" in changes else {"train.init": json.dumps(str(run / "model.safetensors"))}
    said = first | {"sparsity.method": "calibrated", "train.steps": "4"} | changes
    said |= {} if "sparsity.structure" in changes else {"sparsity.structure": "2:4"}
    with pytest.raises(ValueError, match=says):
        session.train(recipe, tmp_path / "run", list(said.items()), quiet=True)


def test_a_rung_that_cannot_be_is_found_before_the_first_is_trained(plain, tmp_path):  # noqa: F811
    recipe, run, _ = plain
    said = [("train.init", json.dumps(str(run))), ("sparsity.method", "calibrated"), ("train.steps", "4")]
    said += [("sparsity.structure", "rank"), ("sparsity.metric", "magnitude"), ("sparsity.targets", "[0.5, 0.99]")]
    with pytest.raises(ValueError, match=r"target 0\.99 leaves 0\.01 of the bytes"):
        session.train(recipe, tmp_path / "run", said, quiet=True)
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_what_is_asked_of_the_wrong_kind_is_refused(plain, tmp_path, capsys):  # noqa: F811
    _, run, _ = plain
    (tmp_path / "t.txt").write_text("TURN ON\n")
    assert main(["bench", str(run), "--audio", "nothere.wav"]) == 2
    assert "is a language model, which hears nothing" in capsys.readouterr().err
    assert main(["eval", str(run), "--text", str(tmp_path / "t.txt"), "--split", "test"]) == 2
    assert "has no splits, --split 'test' is of manifests" in capsys.readouterr().err


def test_what_the_vocabulary_cannot_write_is_counted(plain, tmp_path, capsys, caplog):  # noqa: F811
    recipe, run, _ = plain
    text = tmp_path / "mixed.txt"
    text.write_text("TURN ON THE LIGHT\n\n你好\nTURN OFF THE LIGHT\n" * 100)
    found = language.read(run / "model.safetensors", text)
    assert (found["sentences"], found["dropped"]) == (200, 100)
    assert main(["eval", str(run), "--text", str(text)]) == 0
    assert "100 sentences are left out" in capsys.readouterr().out
    session.train(recipe, tmp_path / "run", [("data.train", json.dumps(str(text)))], quiet=True)
    assert "100 of 300 sentences" not in caplog.text  # some of them were for validation and test
    assert "sentences are left out: the vocabulary cannot write them" in caplog.text
    assert "6.5 % of the letters are outside data.keep 'A-Z ' and cut: 你好" in caplog.text


@pytest.mark.parametrize(("text", "count"), [("TURN ON THE LIGHT\n", 1), ("TURN ON\rTURN OFF\r", 1)])
def test_one_sentence_is_too_few(plain, text, count, tmp_path, capsys):  # noqa: F811
    (tmp_path / "one.txt").write_bytes(text.encode())
    code = main(["train", str(plain[0]), "--out", str(tmp_path / "r"), "--data.train", str(tmp_path / "one.txt")])
    assert code == 4
    assert f"has {count} sentences, one a line: too few" in capsys.readouterr().err


def test_files_keep_their_values_and_factors_are_refused(plain, tmp_path, capsys):  # noqa: F811
    _, run, _ = plain
    text = tmp_path / "my.txt"
    text.write_text("TURN ON THE LIGHT\n" * 40)
    model, small, low = run / "model.safetensors", tmp_path / "small.safetensors", tmp_path / "low.safetensors"
    command = ["prune", str(model), "--text", str(text), "--sparsity", "0.5", "--metric", "activation", "-o"]
    assert main([*command, str(small)]) == 0
    assert {row["values"] for row in formats.inspect(small)["tensors"]} == {"f32"}
    assert lmfile.load(small).length == 24
    assert main([*command, str(low), "--structure", "rank"]) == 0
    capsys.readouterr()
    again = ["prune", str(low), "--structure", "rank", "--sparsity", "0.2", "-o", str(tmp_path / "x.safetensors")]
    assert main(again) == 2
    assert "sparsity 0.2 saves nothing: the factors of" in capsys.readouterr().err
    assert main(["prune", str(small), "--sparsity", "0", "-o", str(tmp_path / "same.safetensors")]) == 0
    assert "kB: no smaller, since" in capsys.readouterr().out
    assert main(["prune", str(low), *command[2:], str(tmp_path / "x.safetensors")]) == 2
    assert "is made of factors already" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "x.safetensors"), "--structure", "attention 8"]) == 2
    assert "a layer has 2 heads" in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_another_vocabulary_than_the_embedding_is_a_damaged_file(plain, tmp_path):  # noqa: F811
    params, said = formats.load(plain[1] / "model.safetensors")
    said["tokens"]["units"] = said["tokens"]["units"][:-3]
    formats.save(tmp_path / "odd.safetensors", params, config=said)
    with pytest.raises(formats.FormatError, match=r"odd.safetensors: its weights are not those of .* its vocabulary"):
        lmfile.load(tmp_path / "odd.safetensors")


def test_a_say_that_is_no_number_is_refused(plain):  # noqa: F811
    from csp.runtime.fusion import Fusion
    from csp.runtime.lm import LanguageModel

    model = LanguageModel(plain[1] / "model.safetensors")
    for say in ({"weight": float("nan")}, {"bonus": float("inf")}):
        with pytest.raises(ValueError, match="must be finite"):
            Fusion(model, **say).check(model.tokens)


GRID = """base = "{base}"
[train]
init = "{init}"
steps = 0
[[sweep]]
"sparsity.method" = ["dense"]
[[sweep]]
"sparsity.method" = ["calibrated"]
"sparsity.structure" = ["attention 4", "2:4"]
"sparsity.target" = [0.5]
"""


@pytest.fixture
def grid(plain, tmp_path):  # noqa: F811
    path = tmp_path / "grid.toml"
    path.write_text(GRID.format(base=plain[0], init=plain[1] / "model.safetensors"))
    return path


def test_a_sweep_goes_on_past_what_cannot_be(grid, plain, tmp_path, capsys, caplog):  # noqa: F811
    assert main(["sweep", str(grid), "--out", str(tmp_path / "all")]) == 2
    assert "1 of 3 runs could not be: calibrated-attention4-0.5;" in capsys.readouterr().err
    assert "a layer has 2 heads" in caplog.text
    dense, banks = json.loads((tmp_path / "all" / "results.json").read_text())
    assert (dense["method"], banks["structure"]) == ("dense", "2:4")
    assert dense["perplexity"] == pytest.approx(plain[2]["perplexity"])


def test_ctrl_c_ends_a_sweep_that_trains_nothing(grid, tmp_path, monkeypatch, capsys):
    """The run that is under way may have no step left at which it would look."""

    def test(self, path, data):
        signal.raise_signal(signal.SIGINT)
        return tested(self, path, data)

    tested = language.Language.test
    monkeypatch.setattr(language.Language, "test", test)
    assert main(["sweep", str(grid), "--out", str(tmp_path / "all")]) == 75
    assert "stopped before calibrated-attention4-0.5; the same command goes on" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "all" / "results.json").read_text())) == 1


def test_ctrl_c_is_heard_after_the_calibration(plain, grid, tmp_path, monkeypatch):  # noqa: F811
    """And its result is kept: it goes on with the test."""

    def calibrated(*arguments):
        signal.raise_signal(signal.SIGINT)
        return found(*arguments)

    found = language.Language.calibrated
    monkeypatch.setattr(language.Language, "calibrated", calibrated)
    said = [("sparsity.method", "calibrated"), ("sparsity.structure", "2:4")]
    with pytest.raises(Stopped, match="stopped at step 0; go on with"):
        session.train(grid, tmp_path / "run", said, quiet=True)
    monkeypatch.setattr(language.Language, "calibrated", None)
    assert session.train(None, tmp_path / "run", resume=True, quiet=True)["density"] < 1


def test_a_bfloat16_model_learns(plain, tmp_path):  # noqa: F811
    found = session.train(plain[0], tmp_path / "run", [("model.dtype", "bfloat16")], quiet=True)
    assert found["perplexity"] == pytest.approx(plain[2]["perplexity"], rel=0.02)
    assert found["perplexity"] != plain[2]["perplexity"]


@pytest.mark.long
def test_what_next_can_be_run(plain, tmp_path, capsys):  # noqa: F811
    """Of a dense model a sparse one, of the same text."""
    (tmp_path / "my text.txt").write_text("TURN ON THE LIGHT\nTURN OFF THE RADIO\n" * 60)
    said = ["--data.train", str(tmp_path / "my text.txt"), "--train.steps", "4"]
    assert main(["train", str(plain[0]), "--out", str(tmp_path / "run"), *said]) == 0
    shown = next(line for line in capsys.readouterr().out.splitlines() if "-smaller" in line)
    assert main(shlex.split(shown)[1:]) == 0
