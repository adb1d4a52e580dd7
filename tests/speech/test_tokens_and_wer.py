"""Vocabularies there and back; word errors against jiwer."""

import hypothesis
import hypothesis.strategies as st
import jiwer
import numpy as np
import pytest

from csp.speech import tokens, wer
from csp.speech.errors import DataError
from csp.speech.tokens import Normaliser

TEXTS = ["Seven, eight!", "nine  ONE", "it's one"]


@pytest.mark.parametrize("kind", ["characters", "words", "pieces"])
def test_text_comes_back_normalised(kind):
    vocabulary = tokens.learn(kind, TEXTS, size=24)
    for text in TEXTS:
        numbers = vocabulary.encode(text)
        assert all(0 < n < vocabulary.size for n in numbers)  # 0 is the blank
        assert vocabulary.decode(numbers) == vocabulary.normalise(text)
    assert tokens.from_json(vocabulary.as_json()) == vocabulary


def test_normalisation_is_what_it_says():
    assert Normaliser()("Don't  pay 5\u00bd \u20ac!") == "DON'T PAY 51 2"
    assert Normaliser(upper=False, keep="")("a\u00a0 B") == "a B"


def test_the_order_of_texts_does_not_matter():
    assert tokens.learn("words", TEXTS) == tokens.learn("words", TEXTS[::-1])


def test_unknown_units_are_named():
    """FAULTS 25: an id beyond the vocabulary cannot come to be."""
    vocabulary = tokens.learn("words", ["ONE TWO"])
    assert vocabulary.unknown("one three") == ["THREE"]
    with pytest.raises(DataError, match="'THREE' is no unit of the vocabulary"):
        vocabulary.encode("one three")
    with pytest.raises(DataError, match="no transcript has a character"):
        tokens.learn("words", ["!!", ""])


WORDS = st.lists(st.sampled_from(["A", "B", "C"]), max_size=8).map(" ".join)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(WORDS.filter(bool), WORDS)
def test_errors_are_as_few_as_jiwers(reference, heard):
    ours, theirs = wer.count(reference, heard), jiwer.process_words(reference, heard)
    assert ours.total == theirs.substitutions + theirs.insertions + theirs.deletions
    assert ours.words == len(reference.split())
    assert ours.insertions - ours.deletions == len(heard.split()) - ours.words
    assert ours.rate == pytest.approx(theirs.wer)


def test_nothing_said_and_nothing_heard():
    assert wer.count("", "") == (0, 0, 0, 0)
    assert wer.count("", "A").rate == 1.0


def test_the_interval_covers():
    errors = [wer.Errors(int(i % 10 == 0), 0, 0, 1) for i in range(1000)]
    low, high = wer.interval(errors)
    assert low < 0.1 < high
    assert high - low == pytest.approx(2 * 1.96 * (0.09 / 1000) ** 0.5, rel=0.15)
    assert wer.interval(errors, [str(i % 10) for i in range(1000)])[1] > high  # errors that come together


def test_each_error_is_charged_to_one_word():
    assert wer.charged("a b c", "a b c") == [0, 0, 0]
    assert wer.charged("a b c", "a x c") == [0, 1, 0]
    assert wer.charged("a b c", "a c") == [0, 1, 0]
    assert wer.charged("a b c", "a b x y c") == [0, 2, 0]
    assert wer.charged("a b", "x a b") == [1, 0]
    assert wer.charged("", "x") == []
    rng = np.random.default_rng(0)
    for _ in range(50):
        said, heard = (" ".join(rng.choice(list("abc"), rng.integers(1, 7))) for _ in range(2))
        assert sum(wer.charged(said, heard)) == wer.count(said, heard).total
