"""A pause ends a sentence, and the next one is heard as a recording of its own, however the sound comes."""

import numpy as np
import pytest
import recognisers

from csp.runtime import Recognizer, Word
from csp.runtime.recognizer import EVERY, Result

PAUSE = 0.1
NAMES = [name for name in recognisers.CONFIGS if "whole" not in name]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("models"), {}
    for name, config in recognisers.CONFIGS.items():
        found[name] = folder / f"{name}.safetensors"
        recognisers.write(found[name], config)
    return found


def calm(path, beam: int = 1, pause: float | None = PAUSE) -> Recognizer:
    """A recogniser of random weights that is silent for some of the time."""
    found = Recognizer(path, beam, pause=pause)
    (found.model.transducer or found.model.ctc).output.bias[0] += 2
    return found


def joined(results: list[Result]) -> Result:
    said = [one for one in results if one.text]
    return Result(" ".join(one.text for one in said), [word for one in said for word in one.words])


def later(words: list[Word], seconds: float) -> list[Word]:
    return [w._replace(start=round(w.start + seconds, 6), end=round(w.end + seconds, 6)) for w in words]


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_sentences_do_not_depend_on_the_pieces(name, beam, paths):
    recognizer, x = calm(paths[name], beam), recognisers.sound(4)
    recognizer.accept(x)
    said = recognizer.result()
    sentences = recognizer.sentences()
    assert len(sentences) > 1
    assert said == joined([*sentences, recognizer.result()])
    assert not recognizer.sentences()  # each is told once
    rest = recognizer.finish()
    for size in (1, 799, 4001):
        for first in range(0, len(x), size):
            recognizer.accept(x[first : first + size])
        assert recognizer.finish() == joined([*sentences, rest]), size


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_sentence_is_heard_as_alone(name, beam, paths):
    """Frames go in as often as it is asked whether it is over, so that it is seen where."""
    pausing, alone = calm(paths[name], beam), calm(paths[name], beam, None)
    mel, x = alone.model.mel, recognisers.sound(4)
    y_TxF, begin, heard = mel(x, energies=alone.model.features), 0, 0
    for end in range(EVERY, len(y_TxF) + 1, EVERY):
        pausing._see(y_TxF[end - EVERY : end])
        if pausing._before > begin:
            alone._see(y_TxF[begin:end])
            expected, sentences = alone.finish(), pausing.sentences()
            assert [one.text for one in sentences] == ([expected.text] if expected.words else [])
            words = [word for one in sentences for word in one.words]
            assert [word.text for word in words] == [word.text for word in expected.words]
            moved = later(expected.words, begin * mel.step / mel.rate)
            assert np.allclose([word[1:] for word in words], [word[1:] for word in moved])
            begin, heard = end, heard + 1
    assert heard > 1


@pytest.mark.parametrize("name", NAMES)
def test_without_a_pause_nothing_changes(name, paths):
    x, pausing, plain = recognisers.sound(4), calm(paths[name], 3, 60.0), calm(paths[name], 3, None)
    for recognizer in (pausing, plain):
        recognizer.accept(x)
        assert not recognizer.sentences()
    assert pausing.finish() == plain.finish()


def test_a_stream_without_end_is_forgotten_once_it_is_told(paths):
    recognizer, x, words = calm(paths["lstm transducer"]), recognisers.sound(4), []
    for _ in range(6):
        recognizer.accept(x)
        words += [word for sentence in recognizer.sentences() for word in sentence.words]
        assert len(recognizer._decoder.labels) < 60
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert words[-1].start > 20
    assert recognizer.stream().pause == PAUSE


@pytest.mark.parametrize("pause", [0.0, -1.0, np.nan, np.inf])
def test_a_pause_is_some_time(pause, paths):
    with pytest.raises(ValueError, match=r"a pause of .* seconds must be positive"):
        Recognizer(paths["lstm ctc"], pause=pause)


def test_what_cannot_pause_says_so(paths):
    with pytest.raises(ValueError, match="hears a recording once it is whole"):
        Recognizer(paths["conformer whole"], pause=1.0)
    with pytest.raises(ValueError, match="hypotheses are of one sentence"):
        Recognizer(paths["lstm ctc"], 3, pause=1.0).finish_with()
