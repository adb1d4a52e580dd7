"""Packed sentences: every label once, in its own sentence, in an order that the position decides; and perplexity."""

import math
from collections import Counter

import numpy as np
import pytest

from csp.speech.errors import DataError
from csp.speech.tokens import Normaliser, Tokens, learn
from csp.train import perplexity, text

WORDS = ["ONE", "TWO", "THREE", "FOUR", "FIVE"]
KEEP = Normaliser(True, "A-Z ")


def lines(count=60, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(count)]


@pytest.fixture(params=["words", "characters"])
def encoded(request):
    tokens = learn(request.param, lines(), KEEP)
    return text.encode(lines(), tokens, "here"), tokens


def pieces_of(batch):
    """(inputs, targets) of every document of every row."""
    for row in range(len(batch.inputs)):
        for number in range(1, batch.documents[row].max() + 1):
            here = batch.documents[row] == number
            yield batch.inputs[row][here].tolist(), batch.targets[row][here].tolist()


def test_sentences_are_what_the_tokens_say(encoded):
    sentences, tokens = encoded
    for number, line in enumerate(lines()):
        labels = sentences.labels[sentences.starts[number] : sentences.starts[number + 1]].tolist()
        assert labels == tokens.encode(line)
    assert sentences.words.tolist() == [len(line.split()) for line in lines()]
    assert not sentences.spelling.any()


@pytest.mark.parametrize("length", [64, 10])
def test_an_epoch_has_whole_sentences_and_none_twice(encoded, length):
    sentences, _ = encoded
    packed = text.Packed(sentences, 2, length, seed=1)
    known = [sentences.labels[a:b].tolist() for a, b in zip(sentences.starts, sentences.starts[1:], strict=False)]
    seen, often = 0, Counter(map(tuple, known))
    for position in range(packed.per_epoch):
        batch = packed.at(position)
        assert batch.inputs.shape == (2, length)
        for inputs, targets in pieces_of(batch):
            seen += len(targets)
            assert inputs[1:] == targets[:-1]
            if inputs[0] == 0 and targets[-1] == 0:
                often[tuple(targets[:-1])] -= 1
            else:
                assert any(len(line) >= length for line in known)  # only what is longer than a row is cut
    total = len(sentences.labels) + len(sentences)
    assert 0.7 * total < seen <= total
    assert min(often.values()) >= 0


def test_a_position_is_a_batch_whenever_it_is_asked_for(encoded):
    sentences, _ = encoded
    packed, again = text.Packed(sentences, 2, 32, seed=1), text.Packed(sentences, 2, 32, seed=1)
    one = [packed.at(position) for position in range(2 * packed.per_epoch)]
    for position in reversed(range(2 * packed.per_epoch)):
        assert all(np.array_equal(a, b) for a, b in zip(one[position], again.at(position), strict=True))
    stream = packed.from_(3)
    assert np.array_equal(next(stream).inputs, one[3].inputs)
    stream.close()
    assert not np.array_equal(one[0].inputs, one[packed.per_epoch].inputs)


@pytest.mark.parametrize("length", [64, 10])
def test_perplexity_counts_every_label_and_end_once(encoded, length):
    """Of a model that thinks all labels alike it is known."""
    sentences, tokens = encoded

    def losses(params, batch):
        return np.where(batch.documents > 0, math.log(tokens.size), 0)

    found = perplexity.measure(losses, None, sentences, 3, length)
    labels = np.diff(sentences.starts) + 1
    assert np.allclose(found.nats, labels * math.log(tokens.size))
    summary = found.summary()
    assert summary["label_perplexity"] == pytest.approx(tokens.size)
    words = sum(len(line.split()) + 1 for line in lines())
    assert summary["perplexity"] == pytest.approx(tokens.size ** (labels.sum() / words))
    assert summary["perplexity_low"] <= summary["perplexity"] + 1e-9
    assert summary["perplexity_high"] >= summary["perplexity"] - 1e-9


def test_a_difference_is_of_the_same_sentences():
    """Where every word costs a tenth more there is nothing to be unsure of, however the sentences differ."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, 30, 200)
    one = perplexity.Surprise(rng.gamma(2, 5, 200) * words, words, 0, 0)
    more = one._replace(nats=one.nats + (words + 1) / 10)
    assert perplexity.difference(more, one) == pytest.approx((0.1, 0.1, 0.1))
    noisy = one._replace(nats=one.nats + rng.normal(0, 1, 200))
    found, low, high = perplexity.difference(noisy, one)
    assert low < found < high
    assert high - low == pytest.approx(4 * np.sqrt(200) / (words + 1).sum(), rel=0.25)  # four standard errors


def test_unknown_words_pay_for_their_spelling():
    """A vocabulary that knows less gains nothing by it."""
    tokens = learn("words", ["A A B"], KEEP, most=1)
    assert tokens.units == ("A", "<unk>")
    found = text.encode(["A B A", "A A", "CCC B"], tokens, "here")
    assert np.allclose(found.spelling, np.array([2, 0, 6]) * math.log(2))  # each an A, or the end of the word


def test_what_the_vocabulary_lacks_is_left_out_and_counted():
    tokens = Tokens("words", ("ONE", "TWO"), KEEP)
    found = text.encode(["ONE TWO", "ONE THREE", "", "TWO"], tokens, "here")
    assert (len(found), found.dropped) == (2, 1)
    with pytest.raises(DataError, match="has no sentence that the vocabulary can write"):
        text.encode(["THREE"], tokens, "here")
    with pytest.raises(DataError, match="fill no batch of 9 rows"):
        text.Packed(found, 9, 64, 0)


def test_some_are_evenly_chosen(encoded):
    sentences, _ = encoded
    few = sentences.some(7)
    assert len(few) == 7
    assert few.labels[: few.starts[1]].tolist() == sentences.labels[: sentences.starts[1]].tolist()
    assert sentences.some(0) is sentences
