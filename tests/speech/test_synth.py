"""A corpus that is spoken twice is the same twice, and its sentences do not depend on how long a voice takes."""

import pytest

from csp.speech import formants, manifest, synth


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
