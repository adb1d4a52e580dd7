"""The paired bootstrap: closed forms, its coverage on words that hang together, and Holm's textbook example."""

import numpy as np
import pytest

from csp.speech import paired


def test_independent_words_give_the_textbooks_standard_error():
    rng = np.random.default_rng(0)
    a, b = rng.random((1, 4000)) < 0.10, rng.random((1, 4000)) < 0.07
    found = paired.difference(a, b, [range(4000)])
    error = np.std(a * 1.0 - b) / np.sqrt(4000)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.1)
    assert found.p < 0.01


def test_the_same_recogniser_does_not_differ():
    errors = np.random.default_rng(0).random((3, 100)) < 0.2
    assert paired.difference(errors, errors, [range(100)]) == (0, 0, 0, 1)


def test_words_that_hang_together_are_fewer_than_they_look():
    """20 recordings, each heard right always or never: an interval over words is too narrow."""
    rng = np.random.default_rng(0)
    clips, sentences = rng.integers(20, size=600), np.arange(600) // 5
    covered = {"words": 0, "both": 0}
    for trial in range(100):
        a, b = (rng.random(20)[clips] < 0.3 for _ in range(2))
        for name, groups in {"words": [range(600)], "both": [clips, sentences]}.items():
            found = paired.difference(a[None], b[None], groups, draws=200, seed=trial)
            covered[name] += found.low <= 0 <= found.high
    assert covered["both"] >= 93
    assert covered["words"] <= 60


def test_runs_count_too():
    """A difference that one run in three makes alone is none."""
    a = np.zeros((3, 500))
    a[0] = 0.1
    assert paired.difference(a, np.zeros((3, 500)), [range(500)]).p > 0.2
    assert paired.difference(np.full((3, 500), 0.1), np.zeros((3, 500)), [range(500)]).p < 0.01


def test_holms_own_example():
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_tables_must_fit():
    with pytest.raises(ValueError, match="alike"):
        paired.difference(np.zeros((2, 5)), np.zeros((3, 5)), [range(5)])
