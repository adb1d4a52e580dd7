"""A corpus that is spoken twice is the same twice, and its sentences do not depend on how long a voice takes."""

import json

import numpy as np
import pytest

from csp.cli import main
from csp.speech import audio, formants, manifest, synth


def _bytes(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.skipif(not synth.has_voices(), reason="espeakng-loader is not installed")
def test_every_voice_of_espeak_repeats_itself(tmp_path):
    """Some have a breath that is never twice the same: none of those is among ours."""
    from csp.speech import espeak

    for name in ("a", "b"):
        synth.speak(tmp_path / name, "digits", 2 * len(espeak.VOICES), 8000, 0)
    assert {u.speaker for u in manifest.read(tmp_path / "a" / "manifest.tsv")} == set(espeak.VOICES)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_a_corpus_is_spoken_once_and_no_other_is_taken_for_it(tmp_path):
    where = synth.speak(tmp_path / "c", "digits", 3, 8000, 0)
    before = where.stat().st_mtime_ns
    assert synth.speak(tmp_path / "c", "digits", 3, 8000, 0).stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"holds another corpus, .*'seed': 0.*: choose another folder, or remove it"):
        synth.speak(tmp_path / "c", "digits", 3, 8000, 1)


def test_the_command_line_speaks_twice_the_same(tmp_path, capsys):
    """In the voices that are there, with or without espeak-ng."""
    said = ["--count", "3", "--rate", "8000", "--seed", "5"]
    assert main(["data", "synth", str(tmp_path / "a"), *said]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a' / 'manifest.tsv'}\n"
    assert main(["data", "synth", str(tmp_path / "b"), *said, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"manifest": str(tmp_path / "b" / "manifest.tsv")}
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    found = manifest.read(tmp_path / "a" / "manifest.tsv")
    assert [u.id for u in found] == [*(f"train-{i:05d}" for i in range(3)), "valid-00000", "test-00000", "test-00001"]
    texts = [text for part, count in enumerate((3, 1, 2)) for text in synth.sentences("digits", count, 5, part)]
    assert [u.text for u in found] == texts
    for u in found:
        x = audio.read(u.path)
        assert audio.describe(u.path) == (8000, 1, len(x))
        assert u.duration == pytest.approx(len(x) / 8000, abs=1e-3)
        assert np.abs(x).max() > 0.1
    voices = [{u.speaker for u in found if u.split == split} for split in ("train", "valid", "test")]
    assert sum(map(len, voices)) == len(set.union(*voices))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (["--count", "0"], "--count 0 must be positive"),
        (["--rate", "1"], "1 samples a second: csp reads 4000 to 192000"),
        (["--seed", "-1"], "seed -1 must not be negative"),
    ],
)
def test_what_cannot_be_spoken_is_one_line(said, why, tmp_path, capsys):
    assert main(["data", "synth", str(tmp_path / "c"), *said]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"csp data: {why}")
    assert error.count("\n") == 1
    assert not (tmp_path / "c").exists()


def test_speaking_can_be_stopped(tmp_path):
    """The voice is a process of its own, which does not hear our signals and ends with us."""

    class Enough(Exception):
        pass

    def check():
        raise Enough

    with pytest.raises(Enough):
        synth.speak(tmp_path / "c", "digits", 10**6, 8000, 0, check)
    assert not (tmp_path / "c" / "manifest.tsv").exists()


def test_sentences_do_not_depend_on_the_voices(tmp_path, monkeypatch):
    texts = []
    for name, stretch in (("a", 1), ("b", 2)):

        def say(text, voice, style, stretch=stretch):
            x, rate = formants.say(text, voice, style)
            return x[: len(x) // stretch], rate

        monkeypatch.setattr(synth, "_engine", lambda say=say: (say, formants.VOICES))
        synth.main(tmp_path / name, "digits", 20, 8000, 0)
        texts.append([(u.id, u.speaker, u.text) for u in manifest.read(tmp_path / name / "manifest.tsv")])
    assert texts[0] == texts[1]
