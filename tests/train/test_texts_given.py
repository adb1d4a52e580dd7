"""What a language model makes of the texts, the splits and the files that it is given."""

import json
import shlex

import numpy as np
import pytest
from test_language import plain  # noqa: F401 # a fixture

from csp import formats
from csp.cli import main
from csp.formats import FormatError
from csp.speech import synth
from csp.train import language, lmfile, perplexity, session

LOW = ["--sparsity.method", "calibrated", "--sparsity.structure", "rank", "--sparsity.metric", "magnitude"]


def test_the_splits_of_a_manifest_are_those_that_are_judged(plain, tmp_path):  # noqa: F811
    counts = {"train": 300, "valid": 30, "test": 20}
    rows = [
        f"{split}/{number}.wav\t{line}\t{split}"
        for part, (split, count) in enumerate(counts.items())
        for number, line in enumerate(synth.sentences("commands", count, 0, part))
    ]
    path = tmp_path / "m.tsv"
    path.write_text("\n".join(["path\ttext\tsplit", *rows]) + "\n")
    said = [("data.synth", '""'), ("data.train", json.dumps(str(path)))]
    nowhere = ("data.valid_split", "nowhere")
    found = [language.prepare(session.read(plain[0], [*said, *more]), tmp_path) for more in ([], [nowhere])]
    assert [tuple(map(len, (texts.train, texts.valid, texts.test))) for texts in found] == [(300, 30, 20), (294, 6, 20)]


def test_a_book_is_drawn_from_bit_by_bit_as_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    nats, words = rng.exponential(9, 501), rng.integers(1, 9, 501)
    found = perplexity.interval(nats, words)
    monkeypatch.setattr(perplexity, "MOST_AT_ONCE", 7 * 501)
    assert perplexity.interval(nats, words) == found
    drawn = np.random.default_rng(0).integers(0, 501, (1000, 501), dtype=np.int32)
    expected = np.exp(nats[drawn].sum(1) / (words[drawn] + 1).sum(1))
    assert found == pytest.approx(np.quantile(expected, (0.025, 0.975)))


@pytest.mark.long
def test_factors_multiplied_out_are_a_model_and_factors_are_no_beginning(plain, tmp_path, capsys):  # noqa: F811
    recipe, run, _ = plain
    init = ["--train.init", str(run / "model.safetensors")]
    low, out = tmp_path / "low", str(tmp_path / "dense.safetensors")
    assert main(["train", str(recipe), "--out", str(low), *init, *LOW, "--sparsity.target", "0.3"]) == 0
    what_next = capsys.readouterr().out.splitlines()[-1]
    assert main(["convert", str(low / "model.safetensors"), "-o", out, "--codec", "dense"]) == 0
    (tmp_path / "t.txt").write_text("TURN ON THE LIGHT\n" * 3)
    found = [language.read(path, tmp_path / "t.txt")["perplexity"] for path in (low / "model.safetensors", out)]
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert lmfile.load(low).config.ranks
    assert not lmfile.load(out).config.ranks
    with pytest.raises(ValueError, match="begin with the model its factors come from"):
        session.train(recipe, tmp_path / "x", [("train.init", json.dumps(str(low)))], quiet=True)
    assert not (tmp_path / "x" / "config.toml").exists()
    _, command, *more = shlex.split(what_next)
    assert main([command, *more]) == 0  # as the run said itself
    assert json.loads((tmp_path / "low-smaller" / "report.json").read_text())["structure"] == "6:128"


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": {"kind": "words", "units": 3, "normalise": {}}},
        {"tokens": None},
        {"model": 5},
        {"model": {"heads": 0}},
        {"model": {"ranks": {"blocks/0/feed/up/kernel": "a"}}},
        {"length": 0},
    ],
    ids=str,
)
def test_a_file_with_a_broken_config_is_one_line(plain, changes, tmp_path, capsys):  # noqa: F811
    params, said = formats.load(plain[1] / "model.safetensors")
    if isinstance(changes.get("model"), dict):
        changes = {"model": said["model"] | changes["model"]}
    path = tmp_path / "odd.safetensors"
    formats.save(path, params, config=said | changes)
    with pytest.raises(FormatError, match=r"odd.safetensors: its config is not that of a language model"):
        lmfile.load(path)
    (tmp_path / "t.txt").write_text("TURN ON THE LIGHT\n")
    assert main(["eval", str(path), "--text", str(tmp_path / "t.txt")]) == 5
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_directory_whose_run_could_not_begin_is_free(plain, tmp_path, capsys):  # noqa: F811
    recipe, out = str(plain[0]), str(tmp_path / "run")
    assert main(["train", recipe, "--out", out, "--model.heads", "3"]) == 2
    assert main(["train", recipe, "--out", out, "--train.batch", "100000"]) == 4
    assert "fill no batch of 100000 rows" in capsys.readouterr().err
    assert main(["train", recipe, "--out", out, "--train.steps", "2"]) == 0
