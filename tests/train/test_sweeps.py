"""Grids of runs, one after the other and together."""

import json

import pytest
from ran import history

import csp
from csp.cli import main
from csp.train import guard, row, session, sweep


@pytest.mark.long
def test_sweeps_go_on_where_they_were(recipe, tmp_path, capsys, monkeypatch):
    arguments = [
        "sweep",
        str(recipe),
        "--out",
        str(tmp_path / "grid"),
        "--sparsity",
        "0.5,0.75",
        "--method",
        "gradual,dense",
    ]
    assert main([*arguments, "--json"]) == 0
    records = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(r["method"], round(r["sparsity"], 2)) for r in records] == [
        ("gradual", 0.5),
        ("gradual", 0.75),
        ("dense", 0.0),
    ]
    assert records[0]["command"] == "csp train configs/tiny.toml --sparsity.method gradual --sparsity.target 0.5"
    monkeypatch.setattr(session, "train", None)  # nothing is left to train
    assert main([*arguments, "--json"]) == 0
    assert json.loads((tmp_path / "grid" / "results.json").read_text()) == records
    capsys.readouterr()
    for changed in (["--train.steps", "5"], ["--decode.values", "f32"], ["--data.keep", "A-Z"]):
        assert main([*arguments, *changed]) == 2  # those are not the results of 5 steps
        assert f"was begun with another {changed[0][2:]}" in capsys.readouterr().err


def test_every_point_has_a_folder_of_its_own():
    grids = [{"train.learning_rate": [0.001, 0.01]}, {"train.weight_decay": [0.01, 0.1]}]
    points = sweep.points([*grids, grids[0]])
    assert points == [[(key, value)] for grid in grids for key, values in grid.items() for value in values]
    names = list(sweep._names(points).values())
    assert len(set(names)) == 4
    assert (names[0], names[3]) == ("0.001", "0.1")
    assert names[1].startswith("0.01-")
    assert len(set(sweep._names(sweep.points([{"data.noise": [[5, 20], [52, 0]]}])).values())) == 2
    dense = sweep.points([{"sparsity.method": ["dense", "gradual"], "sparsity.metric": ["fisher", "adam"]}])
    assert [dict(point).get("sparsity.metric") for point in dense] == [None, "fisher", "adam"]


def test_a_sweep_that_is_stopped_says_how_to_go_on(recipe, tmp_path, capsys, monkeypatch):
    def stopped(*rest, **options):
        raise guard.Stopped("stopped at step 3")

    monkeypatch.setattr(session, "train", stopped)
    assert main(["sweep", str(recipe), "--out", str(tmp_path / "grid"), "--sparsity", "0.5"]) == 75
    assert "stopped at step 3; the same command goes on" in capsys.readouterr().err


@pytest.mark.long
def test_a_run_that_cannot_be_does_not_stop_the_others(recipe, tmp_path, capsys, caplog, monkeypatch):
    def train(recipe, folder, said, **options):
        if ("sparsity.target", "0.5") in said:
            raise csp.BudgetError("no 0.5")
        return trained(recipe, folder, said, **options)

    trained = session.train
    monkeypatch.setattr(session, "train", train)
    arguments = ["sweep", str(recipe), "--out", str(tmp_path / "grid"), "--sparsity", "0.5,0.75", "--method", "gradual"]
    assert main(arguments) == 2
    assert "gradual-0.5: no 0.5" in caplog.text
    assert "1 of 2 runs could not be: gradual-0.5; " in capsys.readouterr().err
    records = json.loads((tmp_path / "grid" / "results.json").read_text())
    assert [r["sparsity"] for r in records] == [pytest.approx(0.75)]


def test_seeds_together_that_are_stopped_can_go_on_alone(recipe, tmp_path, monkeypatch):
    """They have no checkpoints, and leave no log that says they had."""

    def stop(runs):
        runs[0].metrics.write({"step": 20})
        raise guard.Stopped("enough")

    monkeypatch.setattr(row, "_row", stop)
    arguments = ["sweep", str(recipe), "--out", str(tmp_path / "row"), "--seeds", "0,1", "--together"]
    assert main(arguments) == 75
    assert (tmp_path / "row" / "0" / "config.toml").exists()
    assert not (tmp_path / "row" / "0" / "metrics.jsonl").exists()


def test_the_order_of_seeds_speaks_no_other_corpus(recipe, tmp_path, monkeypatch):
    spoken = []
    monkeypatch.setattr("csp.speech.synth.speak", lambda *order: spoken.append(order) or tmp_path / "manifest.tsv")
    monkeypatch.setattr(session, "train", lambda *rest, **more: (_ for _ in ()).throw(guard.Stopped("here")))
    synth = ["--data.synth", "digits", "--data.train", "", "--seeds", "3,0", "--sparsity", "0.5"]
    assert main(["sweep", str(recipe), "--out", str(tmp_path / "grid"), *synth]) == 75
    assert [order[-1] for order in spoken] == [0]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (["--method", "xyz"], "sparsity.method 'xyz' is none of"),
        (["--seeds", "-1"], "train.seed -1 must lie in"),
        (["--sparsity.structure", "4:2", "--seeds", "1"], "got n=4, m=2"),
        (["--seeds", "1", "--sparsity.metric", "xyz"], "sparsity.metric 'xyz' is none of magnitude, adam"),
        (["--seeds", "1", "--sparsity.budget", "xyz"], "sparsity.budget 'xyz' is none of uniform, erk"),
    ],
)
def test_what_no_run_can_be_is_said_before_anything_is_spoken(recipe, said, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("csp.speech.synth.speak", lambda *order: pytest.fail("spoken"))
    synth = ["--data.synth", "digits", "--data.train", ""]
    assert main(["sweep", str(recipe), "--out", str(tmp_path / "grid"), *synth, *said]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "grid").exists()


def test_a_sparsity_that_a_structure_has_itself_is_refused(recipe, tmp_path, capsys):
    """It would be the same model at each point."""
    banks = ["--sparsity.structure", "2:4", "--sparsity", "0.5,0.75"]
    assert main(["sweep", str(recipe), "--out", str(tmp_path / "grid"), *banks]) == 2
    assert "structure '2:4', which has its own: name one of them" in capsys.readouterr().err


@pytest.mark.long
def test_seeds_are_trained_together_as_they_are_alone(recipe, whole, tmp_path, capsys):
    """In one program; sums differ in their last bits, so that losses agree to rounding."""
    arguments = ["sweep", str(recipe), "--out", str(tmp_path / "row"), "--seeds", "0,1", "--together", "--json"]
    assert main(arguments) == 0
    records = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [record["seed"] for record in records] == [0, 1]
    out, found = whole
    losses = [{r["step"]: r["loss"] for r in history(run) if "loss" in r} for run in (tmp_path / "row" / "0", out)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert (records[0]["words"], records[0]["bytes"]) == (found["words"], pytest.approx(found["bytes"], rel=0.02))
    other = [r["loss"] for r in history(tmp_path / "row" / "1") if "loss" in r]
    assert other[-1] != pytest.approx(losses[0][12], rel=1e-3)
    assert records[0]["command"] == "csp train configs/tiny.toml --train.seed 0"
