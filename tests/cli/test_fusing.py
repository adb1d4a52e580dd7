"""A language model on the command line: tuned, in the search, among the best; and the wrong one."""

import json

import numpy as np
import pytest
import recognisers

from csp.cli import main
from csp.models import lm
from csp.train import lmfile
from csp.train.config import Config, Data, Decode


def language(path, tokens, seed=0):
    config = lm.LMConfig(layers=1, width=8, heads=2)
    _, params = lm.create(config, tokens.size, seed)
    said = Config(kind="lm", data=Data(synth="digits"), model=config, decode=Decode(values="f32"))
    lmfile.save(path, said, params, tokens)
    return str(path)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    import soundfile

    folder = tmp_path_factory.mktemp("fusing")
    recognisers.write(folder / "m.safetensors", recognisers.SMALL)
    rows = ["path\ttext"]
    for seed in range(3):
        soundfile.write(str(folder / f"{seed}.wav"), recognisers.sound(1.0, seed), 8000, "PCM_16")
        rows.append(f"{seed}.wav\tAB CD")
    (folder / "m.tsv").write_text("\n".join(rows) + "\n")
    language(folder / "lm.safetensors", recognisers.TOKENS)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("rescore", [False, True])
def test_what_tune_finds_is_what_eval_and_transcribe_get(here, rescore, capsys):
    model, manifest, told = str(here / "m.safetensors"), str(here / "m.tsv"), str(here / "lm.safetensors")
    more = ["--rescore"] if rescore else []
    assert main(["tune", model, "--lm", told, "--manifest", manifest, "--beam", "4", "--json", *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["oracle"] <= found["rescored"]["wer"] <= found["without"]
    assert main(["eval", told, "--text", manifest, "--json"]) == 0
    assert found["perplexity"] == json.loads(capsys.readouterr().out)["perplexity"]
    assert found["best"]["wer"] <= found["without"]
    best = found["best"]
    say = ["--beam", "4", "--lm", told, "--lm-weight", str(best["weight"]), "--lm-bonus", str(best["bonus"]), *more]
    assert main(["eval", model, "--manifest", manifest, "--json", *say]) == 0
    assert json.loads(capsys.readouterr().out)["wer"] == pytest.approx(best["wer"])
    assert main(["transcribe", model, *say, str(here / "0.wav")]) == 0
    assert capsys.readouterr().out.startswith(str(here / "0.wav"))
    assert main(["tune", model, "--lm", told, "--manifest", manifest, "--beam", "4", *more]) == 0
    assert "csp transcribe" in capsys.readouterr().out


def test_a_language_model_of_other_labels_is_refused_in_the_search(here, tmp_path, capsys):
    from csp.speech.tokens import Normaliser, Tokens

    other = language(tmp_path / "o.safetensors", Tokens("characters", tuple(" ABC")))
    sound = str(here / "0.wav")
    assert main(["transcribe", str(here / "m.safetensors"), "--lm", other, sound]) == 2
    assert "is not the recogniser's of 6 characters: train it with --data.vocabulary" in capsys.readouterr().err
    assert main(["transcribe", str(here / "m.safetensors"), "--lm", other, "--rescore", sound]) == 0
    capsys.readouterr()
    deaf = language(tmp_path / "d.safetensors", Tokens("characters", tuple(" abc"), Normaliser(False, "a-z ")))
    for command in (["transcribe"], ["tune", "--manifest", str(here / "m.tsv")]):
        last = [sound] if command == ["transcribe"] else []
        assert main([command[0], str(here / "m.safetensors"), *command[1:], "--lm", deaf, "--rescore", *last]) == 2
        assert "of what the recogniser writes nothing: train it with --data.vocabulary" in capsys.readouterr().err
    assert main(["transcribe", str(here / "m.safetensors"), "--lm", str(here / "m.safetensors"), sound]) == 2
    assert "holds no language model" in capsys.readouterr().err
    assert main(["eval", other, "--manifest", str(here / "m.tsv")]) == 2
    assert "o.safetensors holds no recogniser that csp trained: it is for --lm" in capsys.readouterr().err


def test_bench_of_a_language_model(here, capsys):
    assert main(["bench", str(here / "lm.safetensors"), "--repeats", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["form"] for row in found["forms"]] == ["stored", "dense int8", "dense float32"]
    assert all(row["label_us"] > 0 and np.isfinite(row["beam_us"]) for row in found["forms"])
    assert main(["bench", str(here / "lm.safetensors"), "--repeats", "1"]) == 0
    assert "labels/s" in capsys.readouterr().out


def test_eval_wants_one_kind_of_data(here, capsys):
    assert main(["eval", str(here / "m.safetensors")]) == 2
    assert "--manifest for a recogniser, or --text for a language model" in capsys.readouterr().err


def test_what_a_language_model_is_told_needs_one(here, capsys):
    for said in (["--rescore"], ["--lm-weight", "0.4"], ["--lm-bonus", "1"]):
        assert main(["transcribe", str(here / "m.safetensors"), *said, str(here / "0.wav")]) == 2
        assert "are for a language model: name one, --lm FILE" in capsys.readouterr().err
