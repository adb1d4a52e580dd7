"""A language model in the search, against every transcript there is; and the runtime against JAX."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recognisers

from csp import models
from csp.models import ModelConfig, beam, lm
from csp.runtime import Recognizer
from csp.runtime.fusion import Fusion
from csp.runtime.lm import LanguageModel
from csp.runtime.search import BeamTransducer
from csp.speech.tokens import Tokens

WEIGHT, BONUS = 0.7, 0.4
SMALL = lm.LMConfig(layers=1, width=8, heads=2)


_apply = jax.jit(models.apply, static_argnums=(0, 2))


def log_of(structure, params, row) -> float:
    """log p of a row of labels and of its end; what is behind it is nothing."""
    inputs, targets, there = np.zeros((3, 1, 16 if len(row) < 16 else 512), np.int32)
    inputs[0, 1 : len(row) + 1], targets[0, : len(row)], there[0, : len(row) + 1] = row, row, 1
    return -float(_apply(structure, params, "losses", inputs, targets, there).sum())


def loud(params):
    return jax.tree.map(lambda w: 3 * w if w.ndim > 1 else w, params)


@pytest.mark.parametrize("network", ["transformer", "lstm"])
def test_a_wide_ctc_beam_with_a_language_model_is_exact(network):
    T, V = 4, 3
    config = lm.LMConfig(network=network, layers=1, width=8, heads=2)
    structure, params = lm.create(config, V)
    params = loud(params)
    log_probs = np.log(np.random.default_rng(0).dirichlet(np.ones(V), size=T)).astype(np.float32)
    totals: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(V), repeat=T):
        row = tuple(k for k, before in zip(path, (0, *path), strict=False) if k not in (0, before))
        score = sum(log_probs[t, k] for t, k in enumerate(path))
        totals[row] = np.logaddexp(totals.get(row, -np.inf), score)
    plain = sorted(totals, key=totals.get, reverse=True)
    for row in totals:
        totals[row] += WEIGHT * log_of(structure, params, row) + BONUS * len(row)
    fusion = lm.fusion(structure, params, WEIGHT, BONUS)
    rows = jax.jit(lambda x: beam.ctc(x, jnp.array(T), 64, fusion))(jnp.asarray(log_probs))
    found = [tuple(r[:n].tolist()) for r, n in zip(rows.tokens_KxU, rows.count_K, strict=True)][: len(totals)]
    expected = sorted(totals, key=totals.get, reverse=True)
    assert found[0] == expected[0]
    assert expected != plain
    assert np.allclose(rows.score_K[: len(totals)], [totals[row] for row in found], atol=1e-4)
    assert set(found) == set(expected)


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_transducer_beam_with_a_language_model_is_exact(seed, monkeypatch):
    monkeypatch.setattr(beam, "PER_FRAME", 5)
    V, T = 3, 2
    config = ModelConfig(layers=1, width=8, predictor=6, joint=6, stack=1, ctc_weight=0.0)
    structure, params = models.create(config, 4, V, seed)
    params["transducer"]["output"]["kernel"] *= 4
    params["transducer"]["output"]["bias"] += jnp.array([2.0, 0.0, 0.0])
    own = lm.create(SMALL, V, seed)
    own = (own[0], loud(own[1]))
    y = jnp.asarray(np.random.default_rng(seed).normal(size=(1, T, 4)), jnp.float32)
    fusion = lm.fusion(*own, WEIGHT, BONUS)
    rows = jax.jit(lambda p: models.apply(structure, p, "hypotheses", y, jnp.array([T]), 128, fusion))(params)
    every = [labels for n in range(5) for labels in itertools.product(range(1, V), repeat=n)]
    labels = np.array([[*row, *[0] * (5 - len(row))] for row in every], np.int32)
    many = jnp.repeat(y, len(every), 0), jnp.full(len(every), T)
    sound = -np.asarray(_apply(structure, params, "loss", *many, labels, np.array([*map(len, every)]))[0])
    totals = {row: s + WEIGHT * log_of(*own, row) + BONUS * len(row) for row, s in zip(every, sound, strict=True)}
    best = max(totals, key=totals.get)
    assert rows.tokens_KxU[0, 0, : int(rows.count_K[0, 0])].tolist() == list(best)
    assert float(rows.score_K[0, 0]) == pytest.approx(totals[best], abs=1e-3)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A language model of the test recognisers' vocabulary, as a file."""
    from csp.train import lmfile
    from csp.train.config import Config, Data, Decode

    path = tmp_path_factory.mktemp("lm") / "lm.safetensors"
    structure, params = lm.create(SMALL, recognisers.TOKENS.size, 3)
    config = Config(kind="lm", data=Data(synth="digits"), model=SMALL, decode=Decode(values="f32"))
    lmfile.save(path, config, loud(params), recognisers.TOKENS)
    return path, structure, loud(params)


@pytest.mark.parametrize("name", ["lstm ctc", "lstm transducer"])
def test_the_runtime_fuses_as_jax_does(name, told, tmp_path):
    path, *own = told
    model = recognisers.write(tmp_path / "m.safetensors", recognisers.CONFIGS[name])
    fusion = Fusion(LanguageModel(path), WEIGHT, BONUS)
    plain, fused = Recognizer(tmp_path / "m.safetensors", 4), Recognizer(tmp_path / "m.safetensors", 4, fusion=fusion)
    setup, params = model.setup, jax.tree.map(jnp.asarray, model.params)
    search = jax.jit(
        lambda y: models.apply(
            setup.structure, params, "hypotheses", y, jnp.array([y.shape[1]]), 4, lm.fusion(*own, WEIGHT, BONUS)
        )
    )
    different = 0
    for seed in range(3):
        x = recognisers.sound(seed=seed)
        rows = search(((setup.mel(jnp.asarray(x), jnp) - setup.mean) / setup.deviation)[None])
        expected = [
            recognisers.TOKENS.decode(row[:n].tolist())
            for row, n in zip(rows.tokens_KxU[0], rows.count_K[0], strict=True)
        ]
        fused.accept(x)
        found = fused.finish_with()
        assert [one.text for one in found] == expected
        assert np.allclose([one.score for one in found], rows.score_K[0], atol=2e-2)
        for first in range(0, len(x), 777):
            fused.accept(x[first : first + 777])
        plain.accept(x)
        assert fused.finish().text == expected[0]
        different += plain.finish().text != expected[0]
    assert different  # the language model has its say


@pytest.mark.parametrize("bonus", [-0.5, 0.0, BONUS])
def test_a_search_that_cannot_do_better_ends(bonus, told, tmp_path, monkeypatch):
    """With a language model too, whose rows could go on for several times as many moves as there are frames."""
    recognisers.write(tmp_path / "m.safetensors", recognisers.CONFIGS["lstm transducer"])
    hears, moves = Recognizer(tmp_path / "m.safetensors", 4, fusion=Fusion(LanguageModel(told[0]), WEIGHT, bonus)), []
    hears.model.transducer.output.bias[0] += 6  # a model that is silent most of the time, as those that were trained
    step = BeamTransducer._move
    monkeypatch.setattr(BeamTransducer, "_move", lambda search, end: [moves.append(end), step(search, end)])
    found = []
    for decided in (BeamTransducer._is_decided, lambda search, end: False):
        monkeypatch.setattr(BeamTransducer, "_is_decided", decided)
        hears.accept(recognisers.sound(4.0))
        moves.append(None)
        found.append((hears.finish_with(), len(moves)))
        moves.clear()
    assert found[0][0] == found[1][0]
    assert found[0][1] < found[1][1] / 2


def test_rescoring_takes_the_best_of_the_beam_by_any_vocabulary(told, tmp_path):
    """The winner is the argmax over the beam's own rows; a text that the model cannot write is not preferred."""
    path, structure, params = told
    recognisers.write(tmp_path / "m.safetensors", recognisers.CONFIGS["lstm transducer"])
    fusion = Fusion(LanguageModel(path), WEIGHT, BONUS, rescore=True)
    plain, told_ = Recognizer(tmp_path / "m.safetensors", 6), Recognizer(tmp_path / "m.safetensors", 6, fusion=fusion)
    changed = 0
    for seed in range(6):
        x = recognisers.sound(seed=seed)
        plain.accept(x)
        rows = plain.finish_with()
        worth = [
            one.score + WEIGHT * log_of(structure, params, recognisers.TOKENS.encode(one.text)) + BONUS * one.labels
            for one in rows
        ]
        told_.accept(x)
        assert told_.finish().text == rows[int(np.argmax(worth))].text
        changed += int(np.argmax(worth)) != 0
    assert changed
    other = Tokens("characters", (*" AB",))
    assert fusion.check(other) is None
    with pytest.raises(ValueError, match=r"vocabulary of 6 characters is not the recogniser's of 3 characters"):
        fusion._replace(rescore=False).check(other)
    with pytest.raises(ValueError, match="2 or more"):
        Recognizer(tmp_path / "m.safetensors", 1, fusion=fusion)


def test_rescoring_in_jax_is_that_of_every_row(told):
    _, structure, params = told
    shape, rng = (2, 5, 7), np.random.default_rng(0)
    parts = (rng.integers(1, 7, shape), rng.integers(0, 8, shape[:2]), rng.normal(size=shape[:2]))
    rows = beam.Rows(*map(jnp.asarray, parts))
    found = jax.jit(lambda rows: lm.rescored(structure, params, rows, WEIGHT, BONUS))(rows)
    for one in range(2):
        said = [row[:n].tolist() for row, n in zip(rows.tokens_KxU[one], rows.count_K[one], strict=True)]
        worth = np.array([WEIGHT * log_of(structure, params, row) + BONUS * len(row) for row in said])
        worth += np.asarray(rows.score_K[one])
        order = np.argsort(-worth)
        assert np.allclose(found.score_K[one], worth[order], atol=1e-4)
        assert order.tolist() != [*range(5)]
        for place, row in enumerate(order):
            assert found.tokens_KxU[one, place, : len(said[row])].tolist() == said[row]
            assert found.count_K[one, place] == len(said[row])


def test_who_rescores_spells_what_it_does_not_know():
    """As perplexity does: otherwise one label for any word would be a bargain."""
    teller = SimpleNamespace(tokens=Tokens("words", ("AB", "<unk>")), score=lambda rows: np.zeros(len(rows)))
    found = Fusion(teller, rescore=True).scores(["AB", "AB ABBA", "C"])
    assert np.allclose(found, [0, -5 * np.log(3), -2 * np.log(3)])
