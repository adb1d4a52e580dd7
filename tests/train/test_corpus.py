"""Batches: a position decides, an epoch has everything once, what is left out is counted (FAULTS 24, 42, 45)."""

import dataclasses
import logging
import os

import numpy as np
import pytest

from csp.speech import audio, manifest, tokens
from csp.speech.errors import DataError
from csp.train import config, corpus, data


@pytest.fixture
def read(recipe):
    return config.read(recipe)


@pytest.fixture
def loaded(read, corpus):
    vocabulary = tokens.learn("words", ["ZERO ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE"])
    return vocabulary, load(read, str(corpus), vocabulary)


def load(read, where, vocabulary, training=True):
    return corpus.load(where, "train", read, vocabulary, training)


def test_a_position_decides_its_batch(loaded):
    _, found = loaded
    batches = corpus.Batches(found, 4, 2, seed=3)
    again = corpus.Batches(found, 4, 2, seed=3).from_(5)
    for position in range(5, 5 + 3 * batches.per_epoch):
        for a, b in zip(batches.at(position), next(again), strict=True):
            assert np.array_equal(a, b)


def test_an_epoch_has_every_utterance_once_and_no_two_are_alike(loaded):
    _, found = loaded
    batches = corpus.Batches(found, 4, 2, seed=3)
    epochs = []
    for epoch in range(2):
        rows = np.concatenate([rows for _, rows in batches._epoch(epoch)])
        assert len(set(rows)) == len(rows) == 4 * batches.per_epoch
        epochs.append(rows.tolist())
    assert epochs[0] != epochs[1]


def test_padding_is_bounded_by_the_bucket(loaded):
    _, found = loaded
    batches = corpus.Batches(found, 4, 3, seed=0)
    lengths = sorted(len(x) for x in found.audio)
    shapes = {batches.at(i).x.shape[1] for i in range(batches.per_epoch)}
    assert shapes <= {lengths[7], lengths[15], lengths[23]}


def test_in_order_meets_every_utterance_once(loaded):
    _, found = loaded
    seen = [int(row) for rows, _ in corpus.in_order(found, 5) for row in rows]
    assert sorted(seen) == list(range(24))


def test_too_few_for_a_batch(loaded):
    with pytest.raises(DataError, match=r"24 utterances fill no batch of 25: lower train\.batch"):
        corpus.Batches(loaded[1], 25, 1, 0)


def put(folder, *rows):
    (folder / "m.tsv").write_text("path\ttext\tsplit\n" + "".join(f"{row}\ttrain\n" for row in rows))
    return str(folder / "m.tsv")


def test_what_cannot_be_used_is_left_out_named_and_counted(tmp_path, loaded, read, caplog):
    vocabulary, _ = loaded
    noise = 0.1 * np.random.default_rng(0).normal(size=8000 * 3)
    for name, size in {"good": 8000, "short": 100, "long": 24_000, "few": 900}.items():
        audio.write(tmp_path / f"{name}.wav", noise[:size], 8000)
    (tmp_path / "page.wav").write_text("<html>")
    tight = dataclasses.replace(read, data=dataclasses.replace(read.data, longest=2.0, broken=0.5, shortest=0.05))
    tight = dataclasses.replace(tight, model=dataclasses.replace(tight.model, head="ctc"))
    rows = [
        "good.wav\tONE",
        "short.wav\tONE",
        "long.wav\tONE",
        "few.wav\tONE TWO ONE TWO",
        "good.wav\tUNKNOWN",
        "page.wav\tONE",
    ]
    where = put(tmp_path, *[f"{row}" for row in rows])
    lines = (tmp_path / "m.tsv").read_text().splitlines()
    lines = [lines[0] + "\tid"] + [f"{line}\t{i}" for i, line in enumerate(lines[1:])]
    (tmp_path / "m.tsv").write_text("\n".join(lines) + "\n")
    with caplog.at_level(logging.WARNING, "csp"):
        found = load(tight, where, vocabulary)
    assert [u.path.name for u in found.utterances] == ["good.wav"]
    assert found.dropped == {
        "shorter than data.shortest": 1,
        "longer than data.longest": 1,
        "more labels than frames": 1,
        "characters out of the vocabulary": 1,
        "unreadable": 1,
    }
    assert "page.wav is no recording" in caplog.text
    with pytest.raises(DataError, match=r"1 of 6 recordings are unreadable, data.broken allows 1%"):
        load(dataclasses.replace(tight, data=dataclasses.replace(tight.data, broken=0.01)), where, vocabulary)


def test_nothing_left_is_an_error(tmp_path, loaded, read):
    audio.write(tmp_path / "short.wav", np.zeros(10, np.float32), 8000)
    with pytest.raises(DataError, match="no recording can be used"):
        load(read, put(tmp_path, "short.wav\tONE"), loaded[0])


def test_what_memory_does_not_hold_is_read_again_for_each_batch(loaded, read, request):
    where = str(request.getfixturevalue("corpus"))
    vocabulary, whole = loaded
    small = dataclasses.replace(read, data=dataclasses.replace(read.data, memory=1000))
    found = load(small, where, vocabulary)
    kept = [isinstance(x, np.ndarray) for x in found.audio]
    assert kept == [True] + [False] * 23
    assert found.digest() == whole.digest()
    ours, theirs = corpus.Batches(found, 4, 2, 0), corpus.Batches(whole, 4, 2, 0)
    for position in range(7):
        assert all(np.array_equal(a, b) for a, b in zip(ours.at(position), theirs.at(position), strict=True))


def test_a_recording_that_is_spoiled_later_counts_for_nothing(loaded, read, tmp_path, caplog):
    vocabulary, _ = loaded
    for i in range(3):
        audio.write(tmp_path / f"{i}.wav", 0.1 * np.random.default_rng(i).normal(size=8000), 8000)
    where = put(tmp_path, *(f"{i}.wav\tONE" for i in range(3)))
    small = dataclasses.replace(read, data=dataclasses.replace(read.data, memory=1000, broken=0.4))
    found = load(small, where, vocabulary)
    (tmp_path / "2.wav").write_text("no sound")
    batch = corpus.pad(found, [0, 1, 2], 8000, 1, 3)
    assert batch.samples.tolist() == [8000, 8000, 0]
    corpus.pad(found, [2], 8000, 1, 1)
    assert caplog.text.count("2.wav is no recording") == 1
    (tmp_path / "1.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"1.wav is no recording.* 2 are unreadable now, data.broken allows 1"):
        corpus.pad(found, [0, 1, 2], 8000, 1, 3)


def test_a_batch_is_as_wide_as_its_bucket(loaded):
    """In samples and in labels; little of it is padding."""
    _, found = loaded
    batches = corpus.Batches(found, 4, 3, 0)
    counts = np.array([len(row) for row in found.labels])
    for bucket, (samples, labels) in zip(batches.buckets, batches.shapes, strict=True):
        assert samples == found.lengths[bucket].max()
        assert labels == counts[bucket].max()
    assert batches.shapes[0][1] < batches.shapes[-1][1]
    used = [(batch.samples.sum(), batch.x.size) for batch in map(batches.at, range(batches.per_epoch))]
    assert sum(a for a, _ in used) / sum(b for _, b in used) > 0.7


def test_the_test_is_not_trained_on(read, request, tmp_path, caplog):
    """FAULTS 49: within one manifest, and between two, by whatever name."""
    where = str(request.getfixturevalue("corpus"))
    for name in (where, os.path.relpath(where)):
        same = dataclasses.replace(read, data=dataclasses.replace(read.data, test=name, test_split="train"))
        with pytest.raises(DataError, match=r"24 of 24 recordings of the test are trained on, such as .*: choose data"):
            data.prepare(same, tmp_path)
    data.prepare(dataclasses.replace(read, data=dataclasses.replace(read.data, valid_split="train")), tmp_path)
    assert "24 of 24 recordings of the validation are trained on" in caplog.text


def test_several_splits_are_one(read, request, tmp_path):
    where = str(request.getfixturevalue("corpus"))
    wide = dataclasses.replace(read, data=dataclasses.replace(read.data, train_split="train,valid", valid_split="test"))
    assert len(data.prepare(wide, tmp_path).train.utterances) == 26
    with pytest.raises(DataError, match=r"has no split 'other'; it has \['test', 'train', 'valid'\]"):
        manifest.read(where, "train,other")


def test_a_process_reads_its_share_of_a_batch_and_no_other(loaded):
    _, found = loaded
    whole = corpus.Batches(found, 4, 2, 0).at(3)
    for i in range(2):
        part = corpus.Batches(found, 4, 2, 0, share=(i, 2)).at(3)
        mine = slice(2 * i, 2 * i + 2)
        assert np.array_equal(part.x[mine], whole.x[mine])
        assert np.array_equal(part.labels, whole.labels)
        assert part.samples[2 * (1 - i) : 2 * (1 - i) + 2].tolist() == [0, 0]


def test_preparing_learns_words_and_normalises(read, tmp_path):
    found = data.prepare(read, tmp_path)
    assert found.tokens.kind == "words"
    assert found.tokens.size == 11
    assert len(found.valid.utterances) == 2
    assert (tmp_path / data.INPUTS).exists()
    assert found.mean.shape == found.deviation.shape == (8,)


def test_cached_features_are_those_of_every_step(loaded, read, request):
    """The recordings of a batch give the features that were computed once."""
    import jax.numpy as jnp

    from csp.speech import features
    from csp.train import modelfile, objective

    where, (vocabulary, whole) = str(request.getfixturevalue("corpus")), loaded
    cached = dataclasses.replace(read, data=dataclasses.replace(read.data, cache=True))
    found = load(cached, where, vocabulary)
    structure, _ = modelfile.create(read, vocabulary)
    setup = modelfile.setup(read, structure, *corpus.statistics(whole, features.of(read.features)))
    mean, _ = corpus.statistics(found, features.of(read.features))
    assert np.allclose(mean, setup.mean, atol=1e-4)
    ours, theirs = (
        corpus.pad(found, [3, 4], max(found.lengths), 9, 2),
        corpus.pad(whole, [3, 4], max(whole.lengths), 9, 2),
    )
    y, frames = objective.front(setup, None, jnp.asarray(ours.x), jnp.asarray(ours.samples))
    z, counts = objective.front(setup, None, jnp.asarray(theirs.x), jnp.asarray(theirs.samples))
    assert frames.tolist() == counts.tolist()
    for a, b, n in zip(y, z, frames.tolist(), strict=True):
        assert np.abs(a[:n] - b[:n]).max() < 1e-3
    assert isinstance(load(cached, where, vocabulary, training=False).audio[0], np.ndarray)
    assert load(cached, where, vocabulary, training=False).audio[0].ndim == 1
    small = dataclasses.replace(cached, data=dataclasses.replace(cached.data, memory=1000))
    with pytest.raises(DataError, match=r"more than data\.memory 1000 bytes"):
        load(small, where, vocabulary)


def test_a_header_that_lies_makes_no_batch_wider(loaded, read, tmp_path, caplog):
    """FAULTS 43: it claims two to the 36 samples, of which a test would have a batch of two terabytes."""
    for name in ("a.wav", "liar.flac", "b.wav"):
        audio.write(tmp_path / name, 0.1 * np.random.default_rng(0).normal(size=8000), 8000)
    raw = bytearray((tmp_path / "liar.flac").read_bytes())
    raw[21:26] = bytes([raw[21] | 15, 255, 255, 255, 255])
    (tmp_path / "liar.flac").write_bytes(raw)
    where = put(tmp_path, "a.wav\tONE", "liar.flac\tONE", "b.wav\tONE")
    small = dataclasses.replace(read, data=dataclasses.replace(read.data, broken=0.4))
    found = load(small, where, loaded[0], training=False)
    assert [u.path.name for u in found.utterances] == ["a.wav", "b.wav"]
    assert found.dropped == {"unreadable": 1}
    assert found.lengths.tolist() == [8000, 8000]
    assert "liar.flac cannot be read" in caplog.text
    with pytest.raises(DataError, match="1 of 3 recordings are unreadable"):
        load(read, where, loaded[0], training=False)


@pytest.mark.parametrize("memory", [2**30, 1000])
def test_rates_may_be_mixed_and_all_are_heard_at_the_recipes(memory, loaded, read, tmp_path):
    """The same second of 440 Hz at five rates, kept in memory or read again."""
    rates = (8000, 11_025, 16_000, 44_100, 48_000)
    for rate in rates:
        audio.write(tmp_path / f"{rate}.flac", 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate)
    where = put(tmp_path, *(f"{rate}.flac\tONE" for rate in rates))
    found = load(dataclasses.replace(read, data=dataclasses.replace(read.data, memory=memory)), where, loaded[0])
    assert np.abs(found.lengths - 8000).max() <= 1
    assert [u.duration for u in found.utterances] == pytest.approx([1.0] * 5, abs=2e-4)
    batch = corpus.pad(found, range(5), int(found.lengths.max()), 1, 5)
    right = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    for x in batch.x:
        assert np.abs(x[500:7500] / 32767 - right[500:7500]).max() < 2e-3
