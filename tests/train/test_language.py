"""Language models by csp train: from text to a file, stopped and resumed, pruned by data, down a ladder of ranks."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_runs import StopAt

from csp import formats, models
from csp.cli import main
from csp.lowrank import Factors
from csp.runtime.lm import LanguageModel
from csp.speech import synth
from csp.train import language, lmfile, pruning, session
from csp.train import text as packing
from csp.train.config import ConfigError
from csp.train.guard import Stopped

RECIPE = """
name = "lm"
kind = "lm"

[data]
synth = "commands"
count = 400
tokens = "words"
keep = "A-Z "
length = 24

[model]
layers = 1
width = 16
heads = 2

[train]
steps = 12
batch = 4
checkpoint_every = 4
evaluate_every = 6

[sparsity]
method = "dense"

[decode]
values = "f32"
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    (folder / "lm.toml").write_text(RECIPE)
    return folder / "lm.toml", folder / "run", session.train(folder / "lm.toml", folder / "run", quiet=True)


def pruned(recipe, out, init, **changes):
    said = [("train.init", json.dumps(str(init / "model.safetensors"))), ("sparsity.method", "calibrated")]
    said += [(key.replace("__", "."), value) for key, value in changes.items()]
    return session.train(recipe, out, said, quiet=True)


def test_a_run_delivers_a_file_and_says_how_a_text_surprises_it(plain, capsys, tmp_path):
    _, out, found = plain
    assert 1 < found["perplexity_low"] < found["perplexity"] < found["perplexity_high"]
    assert found["label_us"] > 0
    sentences = synth.sentences("commands", 40, 0, 2)
    runtime = LanguageModel(out / "model.safetensors")
    nats = -runtime.score([runtime.tokens.encode(line) for line in sentences])
    words = np.array([len(line.split()) for line in sentences])
    assert found["words"] == words.sum()
    assert found["perplexity"] == pytest.approx(math.exp(nats.sum() / (words.sum() + len(words))), rel=1e-4)
    (tmp_path / "t.txt").write_text("\n".join(sentences))
    assert main(["eval", str(out), "--text", str(tmp_path / "t.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["perplexity"] == pytest.approx(found["perplexity"], rel=1e-6)
    assert "perplexity" in (out / "report.md").read_text()


RUNGS = {"sparsity__target": "0.5", "sparsity__metric": "admm", "sparsity__options": "{rungs = 2, batches = 2}"}
LADDER = {"sparsity__targets": "[0.2, 0.5]", "sparsity__structure": "rank", "sparsity__metric": "second_order"}


@pytest.mark.long
@pytest.mark.parametrize("changes", [pytest.param(RUNGS, marks=pytest.mark.slow), LADDER], ids=["rungs", "ladder"])
def test_stopped_and_resumed_is_never_stopped(plain, changes, tmp_path, monkeypatch):
    """In the second stage, whose parameters have another shape than those that the run began with."""
    recipe, init, _ = plain
    said = [(key.replace("__", "."), value) for key, value in changes.items()]
    said += [("train.init", json.dumps(str(init / "model.safetensors"))), ("sparsity.method", "calibrated")]
    session.train(recipe, tmp_path / "whole", said, quiet=True)
    monkeypatch.setattr(session, "Stop", lambda: StopAt(9))
    with pytest.raises(Stopped, match="stopped at step"):
        session.train(recipe, tmp_path / "run", said, quiet=True)
    monkeypatch.undo()
    session.train(None, tmp_path / "run", resume=True, quiet=True)
    for path in (tmp_path / "whole").glob("*.safetensors"):
        assert (tmp_path / "run" / path.name).read_bytes() == path.read_bytes()
    reports = [json.loads((tmp_path / name / "report.json").read_text())["models"] for name in ("whole", "run")]
    assert [m["file"] for m in reports[0]] == [m["file"] for m in reports[1]]
    assert [m["perplexity"] for m in reports[0]] == [m["perplexity"] for m in reports[1]]
    if "sparsity__targets" in changes:
        assert len(list((tmp_path / "whole").glob("*.safetensors"))) == 2
    else:
        with formats.open(tmp_path / "run" / "model.safetensors") as file:
            assert file.manifest.about["method"] == "calibrated"


CRITERIA = ("magnitude", "fisher", "movement", "activation", "second_order", "admm")


COMBINATIONS = [(structure, metric) for structure in ("entries", "hidden") for metric in CRITERIA]
COMBINATIONS += [("2:4", "second_order"), ("blocks 4x1", "admm"), ("attention 2", "taylor"), ("attention 2", "admm")]


@pytest.mark.long
@pytest.mark.parametrize(("structure", "metric"), COMBINATIONS)
def test_every_criterion_meets_the_budget(plain, structure, metric, tmp_path):
    recipe, init, _ = plain
    said = [("train.init", json.dumps(str(init / "model.safetensors"))), ("sparsity.method", "calibrated")]
    said += [
        ("sparsity.structure", f'"{structure}"'),
        ("sparsity.metric", metric),
        ("sparsity.options", "{batches = 1}"),
        *([] if ":" in structure else [("sparsity.target", "0.5")]),
    ]
    config = session.read(recipe, said)
    data = language.prepare(config, tmp_path)
    task = language.Language(config, data.inputs)
    params, _ = task.calibrated(0.5, task.initial, data.batches(config, (0, 1)), {})
    task.save(tmp_path / "m.safetensors", params, pruning.rules_of(config.sparsity, params, 0.5), {})
    model = lmfile.load(tmp_path / "m.safetensors")
    block = model.params["blocks"][0]
    if structure == "hidden":
        assert model.config.left_hidden == (32,)
        assert block["feed"]["up"]["kernel"].shape == (16, 32)
    elif structure == "attention 2":
        assert model.config.left_heads == (1,)
        assert block["attention"]["query"]["kernel"].shape == (16, 8)
    else:
        matrices = [w for w in jax.tree.leaves(model.params["blocks"]) if w.ndim > 1]
        assert all(int((w != 0).sum()) == w.size // 2 for w in matrices)


@pytest.mark.long
def test_wanda_is_wanda_and_fisher_is_fisher(plain, tmp_path):
    """What is kept, against the definition, by the gradients and inputs of plain JAX on the same batches."""
    recipe, init, _ = plain
    said = {"train__steps": "0", "sparsity__target": "0.5", "sparsity__options": "{batches = 2}"}
    pruned(recipe, tmp_path / "w", init, **said, sparsity__metric="activation")
    pruned(recipe, tmp_path / "f", init, **said, sparsity__metric="fisher")
    model = lmfile.load(init / "model.safetensors")
    config = session.read(recipe, ())
    batches = language.prepare(config, tmp_path).batches(config, (0, 1))
    name, w = "up", np.asarray(model.params["blocks"][0]["feed"]["up"]["kernel"])
    gram, fisher = np.zeros(16), np.zeros(w.shape)
    slope = jax.jit(jax.grad(lambda p, part: models.apply(model.structure, p, "losses", *part).sum()))
    for batch in map(batches.at, range(2)):
        seen = models.grams(model.structure, model.params, jnp.asarray(batch.documents) > 0, "logits",
                            jnp.asarray(batch.inputs), jnp.asarray(batch.documents))  # fmt: skip
        gram += np.diag(seen[f"blocks/0/feed/{name}/kernel"])
        for row in range(4):
            part = packing.Batch(*(jnp.asarray(x[row : row + 1]) for x in batch))
            grads = slope(model.params, part)
            fisher += np.asarray(grads["blocks"][0]["feed"]["up"]["kernel"]) ** 2
    for folder, worth in (("w", np.abs(w) * np.sqrt(gram)[:, None]), ("f", np.abs(w) * np.sqrt(fisher))):
        kept = np.asarray(
            lmfile.load(tmp_path / folder / "model.safetensors").params["blocks"][0]["feed"]["up"]["kernel"]
        )
        cut = np.sort(worth.reshape(-1))[w.size // 2]
        sure = np.abs(worth / cut - 1) > 1e-3
        assert np.array_equal((kept != 0)[sure], (worth > cut)[sure])
        assert np.array_equal(kept[kept != 0], w[kept != 0])


@pytest.mark.long
def test_a_ladder_meets_each_byte_budget_and_never_has_the_whole_matrix_again(plain, tmp_path):
    recipe, init, _ = plain
    found = pruned(recipe, tmp_path / "run", init, sparsity__targets="[0.3, 0.6]", sparsity__structure="rank",
                   sparsity__metric="second_order", sparsity__options="{batches = 2}")  # fmt: skip
    assert [model["target"] for model in found["models"]] == [0.3, 0.6]
    sizes = []
    for model in found["models"]:
        loaded = lmfile.load(tmp_path / "run" / model["file"])
        is_factors = lambda x: isinstance(x, Factors)  # noqa: E731
        leaves = jax.tree.leaves(loaded.params["blocks"], is_leaf=is_factors)
        matrices = [w for w in leaves if len(w.shape) > 1]
        dense = sum(math.prod(w.shape) for w in matrices)
        kept = sum(w.u.size + w.v.size if isinstance(w, Factors) else w.size for w in matrices)
        assert kept <= (1 - model["target"]) * dense
        assert kept > (1 - model["target"]) * dense - 100
        sizes.append(model["bytes"])
        runtime = LanguageModel(tmp_path / "run" / model["file"])
        assert runtime.score([[1, 2, 3]])[0] < 0
    assert sizes[1] < sizes[0]


@pytest.mark.long
@pytest.mark.parametrize("method", ["gradual", "compressed_sensing"])
def test_ranks_that_training_found_are_read_and_judged(plain, method, tmp_path):
    """They are stored as factors, which the runtime runs; in memory they are matrices again."""
    recipe, _, _ = plain
    said = [("sparsity.method", method), ("sparsity.structure", "rank"), ("sparsity.target", "0.5")]
    found = session.train(recipe, tmp_path / "run", said, quiet=True)
    rows = formats.inspect(tmp_path / "run" / "model.safetensors")["tensors"]
    assert any(row["codec"] == "factors" for row in rows)
    runtime = LanguageModel(tmp_path / "run" / "model.safetensors")
    sentences = synth.sentences("commands", 40, 0, 2)
    nats = -runtime.score([runtime.tokens.encode(line) for line in sentences])
    words = sum(len(line.split()) + 1 for line in sentences)
    assert found["perplexity"] == pytest.approx(math.exp(nats.sum() / words), rel=1e-3)


def test_an_lstm_has_no_heads_that_could_fail_to_divide_it(plain, tmp_path):
    recipe, _, _ = plain
    said = [("model.network", "lstm"), ("model.width", "15"), ("model.heads", "2"), ("train.steps", "2")]
    assert session.train(recipe, tmp_path / "run", said, quiet=True)["label_us"] > 0


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        (
            {"sparsity__metric": "loudness", "sparsity__target": "0.5"},
            ConfigError,
            "'loudness' is none of magnitude, tay",
        ),
        (
            {"sparsity__metric": "taylor", "sparsity__target": "0.5", "sparsity__structure": "rank"},
            ConfigError,
            "directions",
        ),
        ({"sparsity__structure": "rank"}, ConfigError, "sparsity.target is missing"),
        ({"sparsity__structure": "rank", "sparsity__target": "0.99"}, ValueError, "smallest possible fraction"),
        ({"sparsity__structure": "attention 3", "sparsity__target": "0.5"}, ValueError, "a layer has 2 heads"),
        ({"model__width": "32", "sparsity__target": "0.5"}, ValueError, "is another model than the config's"),
        ({"sparsity__method": "gradual", "train__steps": "0"}, ConfigError, "train.steps 0 must be positive"),
    ],
)
def test_what_makes_no_sense_is_one_line(plain, changes, error, says, tmp_path):
    recipe, init, _ = plain
    changes = {"train__steps": "0", **changes}
    with pytest.raises(error, match=says):
        pruned(recipe, tmp_path / "run", init, **changes)


def test_the_one_without_a_text_is_told(plain, tmp_path, capsys):
    recipe, _, _ = plain
    (tmp_path / "empty.txt").write_text("\n\n")
    out = str(tmp_path / "run")
    said = ["train", str(recipe), "--out", out, "--data.synth", '""', "--data.train"]
    assert main([*said, str(tmp_path / "empty.txt")]) == 4
    assert "has no sentence: one a line" in capsys.readouterr().err


@pytest.mark.long
def test_a_grid_of_the_recipe_is_swept_and_goes_on(plain, tmp_path, capsys):
    _, init, _ = plain
    grid = tmp_path / "grid.toml"
    grid.write_text(
        RECIPE.replace('method = "dense"', 'method = "calibrated"').replace("steps = 12", "steps = 0")
        + '[[sweep]]\n"sparsity.structure" = ["entries", "2:4"]\n"sparsity.target" = [0.5, 0.75]\n'
        + '[[sweep]]\n"sparsity.structure" = ["rank"]\n"sparsity.target" = [0.5]\n'
        + '"sparsity.options" = [{ rungs = 2 }]\n'
    )
    init = str(init / "model.safetensors")
    command = ["sweep", str(grid), "--out", str(tmp_path / "g"), "--train.init", init, "--json"]
    assert main(command) == 0
    records = json.loads(capsys.readouterr().out)
    assert [r["folder"] for r in records] == ["entries-0.5", "entries-0.75", "2of4", "rank-0.5-rungs2"]
    assert [round(r["sparsity"], 2) for r in records][:3] == [0.5, 0.75, 0.5]
    before = (tmp_path / "g" / "2of4" / "report.json").stat().st_mtime_ns
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == records
    assert (tmp_path / "g" / "2of4" / "report.json").stat().st_mtime_ns == before
    assert main(["plot", str(tmp_path / "g"), "--json"]) == 0
    assert (tmp_path / "g" / "quality.png").stat().st_size > 10_000
    assert formats.inspect(tmp_path / "g" / "2of4" / "model.safetensors")


def test_a_file_is_pruned_by_a_text_without_a_config(plain, tmp_path, capsys):
    _, out, _ = plain
    (tmp_path / "t.txt").write_text("\n".join(synth.sentences("commands", 300, 5)))
    model, new = str(out / "model.safetensors"), str(tmp_path / "m.safetensors")
    say = ["prune", model, "-o", new, "--sparsity", "0.5", "--metric", "admm"]
    assert main(say) == 2
    assert "metric 'admm' looks at data: --text FILE" in capsys.readouterr().err
    assert main([*say, "--text", str(tmp_path / "t.txt")]) == 0
    matrices = [w for w in jax.tree.leaves(lmfile.load(new).params["blocks"]) if w.ndim > 1]
    assert all(int((w != 0).sum()) == w.size // 2 for w in matrices)
    assert main([*say, "--text", str(tmp_path / "t.txt")]) == 2
    assert "exists: choose another name" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(("structure", "metric"), [("entries", "admm"), ("rank", "second_order"), ("2:4", "fisher")])
def test_an_lstm_is_pruned_by_data_too(structure, metric, tmp_path):
    (tmp_path / "lm.toml").write_text(RECIPE)
    said = [("model.network", "lstm"), ("sparsity.method", "calibrated"), ("sparsity.options", "{batches = 2}")]
    said += [("sparsity.metric", metric), ("sparsity.structure", f'"{structure}"')]
    said += [] if ":" in structure else [("sparsity.target", "0.5")]
    found = session.train(tmp_path / "lm.toml", tmp_path / "run", said, quiet=True)
    model = lmfile.load(tmp_path / "run" / "model.safetensors")
    cells = model.params["blocks"][0]["lstm"]
    if structure == "rank":
        assert any(isinstance(cells[name], Factors) for name in ("input", "recurrent"))
    else:
        assert all(int((cells[name] != 0).sum()) == cells[name].size // 2 for name in ("input", "recurrent"))
    row = [3, 1, 2]
    inputs, targets = jnp.array([[0, *row]]), jnp.array([[*row, 0]])
    losses = models.apply(model.structure, model.params, "losses", inputs, targets, jnp.ones_like(inputs))
    score = LanguageModel(tmp_path / "run" / "model.safetensors").score([row])[0]
    assert score == pytest.approx(-float(losses.sum()), abs=1e-3)
    assert np.isfinite(found["perplexity"])
