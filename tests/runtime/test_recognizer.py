"""The runtime hears what JAX hears, however the sound is cut into pieces, and says so where it cannot."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import recognisers

import csp
from csp import formats
from csp.formats import FormatError
from csp.runtime import Recognizer, native
from csp.runtime.model import Model

NAMES = list(recognisers.CONFIGS)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """name -> (path, model) of a model in float32."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, config in recognisers.CONFIGS.items():
        path = folder / f"{name.replace(' ', '-')}.safetensors"
        found[name] = (path, recognisers.write(path, config))
    return found


def frames(model: Model, x: np.ndarray) -> np.ndarray:
    """What the encoder makes of the whole recording."""
    y = (model.mel(x, energies=model.features) - model.mean) / model.deviation
    state = model.encoder.start()
    return np.concatenate([model.encoder.push(y, state), model.encoder.finish(state)])


@pytest.mark.parametrize("kernels", [None, "reference"])
@pytest.mark.parametrize("name", NAMES)
def test_frames_are_those_of_jax(written, name, kernels):
    path, model = written[name]
    x = recognisers.sound()
    ours = frames(Model(path, kernels), x)
    theirs, counts = recognisers.heard(model, x, "encode")
    theirs = np.asarray(theirs)[0, : int(counts[0])]
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_labels_are_those_of_jax(written, name, beam):
    path, model = written[name]
    recognizer = Recognizer(path, beam)
    for seed in range(3):
        x = recognisers.sound(seed=seed)
        recognizer.accept(x)
        recognizer._decoder.push(recognizer.model.encoder.finish(recognizer._state))
        recognizer._decoder.finish()
        expected = recognisers.labels(model, x, beam)
        assert [label.number for label in recognizer._decoder.labels] == expected
        assert len(expected) > 3
        recognizer.reset()


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_pieces_of_any_size_give_the_same_words_times_and_confidences(written, name, beam):
    recognizer = Recognizer(written[name][0], beam)
    x = recognisers.sound(1.5)
    recognizer.accept(x)
    whole = recognizer.finish()
    assert whole.words
    rng = np.random.default_rng(0)
    for size in (0, 1, 37, 799, 4001):
        first = 0
        while first < len(x):
            step = size or int(rng.integers(0, 900))
            recognizer.accept(x[first : first + step])
            first += step
        assert recognizer.finish() == whole, size


def test_words_come_early_and_their_times_are_within_the_sound(written):
    recognizer = Recognizer(written["lstm ctc"][0])
    x = recognisers.sound()
    recognizer.accept(x[:8000])
    early = recognizer.result()
    recognizer.accept(x[8000:])
    found = recognizer.finish()
    assert early.words
    assert found.words[: len(early.words) - 1] == early.words[:-1]
    assert found.text.split() == [word.text for word in found.words]
    for word, after in zip(found.words, [*found.words[1:], None], strict=True):
        assert 0 <= word.start < word.end <= 2.0
        assert 0 < word.confidence <= 1
        assert after is None or word.end <= after.start + 1e-6


def test_int8_weights_give_the_words_of_jax_with_the_same_weights(tmp_path):
    """Its activations are int8 as well, so that single labels may differ: counted as words wrong are."""
    from csp.speech import wer

    path = tmp_path / "m.safetensors"
    model = recognisers.write(path, recognisers.SMALL, values="int8", louder=2.0)
    recognizer, errors = Recognizer(path), []
    for seed in range(20):
        x = recognisers.sound(seed=seed)
        recognizer.accept(x)
        ours = recognizer.finish().text.replace(" ", "_")
        theirs = recognisers.TOKENS.decode(recognisers.labels(model, x, 1)).replace(" ", "_")
        errors.append(wer.count(" ".join(theirs), " ".join(ours)))
    assert wer.total(errors).words > 100
    assert wer.total(errors).rate < 0.1


@pytest.mark.parametrize("name", ["lstm transducer", "conformer ctc"])
def test_int8_words_are_the_same_on_all_kernels(name, tmp_path):
    path = tmp_path / "m.safetensors"
    recognisers.write(path, recognisers.CONFIGS[name], values="int8")
    x = recognisers.sound()
    found = {}
    for kernels in (*native.SETS, "reference"):
        try:
            recognizer = Recognizer(path, kernels=kernels)
        except ValueError:
            continue
        recognizer.accept(x)
        found[kernels] = recognizer.finish()
    texts = {result.text for result in found.values()}
    assert len(texts) == 1


def test_factors_run_as_factors(tmp_path):
    path = tmp_path / "m.safetensors"
    model = recognisers.write(path, recognisers.SMALL, keep=1.0)
    like = {"model": model.params, "features": {"mean": model.setup.mean, "deviation": model.setup.deviation}}
    factored = tmp_path / "f.safetensors"
    with formats.open(path) as file:
        config = file.manifest.config
    formats.save(factored, like, {".*(input|recurrent|kernel)": "factors"}, config)
    x, texts = recognisers.sound(), []
    for one in (path, factored):
        recognizer = Recognizer(one)
        recognizer.accept(x)
        texts.append(recognizer.finish().text)
    assert texts[0] == texts[1] != ""


def test_streams_share_a_model_between_threads(written):
    shared = Recognizer(written["lstm transducer"][0])
    sounds = [recognisers.sound(seed=seed) for seed in range(8)]

    def hear(x):
        stream = shared.stream()
        assert stream.model is shared.model
        for first in range(0, len(x), 500):
            stream.accept(x[first : first + 500])
        return stream.finish()

    alone = [hear(x) for x in sounds]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(hear, sounds)) == alone


@pytest.mark.slow  # test_long_streams.py has seconds of it
def test_half_an_hour_does_not_drift_and_takes_no_more_memory(written):
    """FAULTS 50: what a stream keeps is bounded, and its frames stay those of JAX."""
    path, model = written["lstm ctc"]
    recognizer = Recognizer(path)
    minute = recognisers.sound(60)
    sizes = []
    for _ in range(30):
        recognizer.accept(minute)
        sizes.append(len(recognizer._mel._rest) + sum(np.size(v) for v in recognizer._state.values() if len(v)))
    assert max(sizes) <= sizes[0] + recognizer.model.mel.size
    theirs, counts = recognisers.heard(model, np.tile(minute, 30), "encode")
    expected = np.asarray(theirs)[0, : int(counts[0])]
    ours = frames(recognizer.model, np.tile(minute, 30))
    assert ours.shape == expected.shape
    assert np.abs(ours[-500:] - expected[-500:]).max() <= 1e-4 * np.abs(expected).max()


def test_another_rate_is_resampled_the_same_in_pieces(written):
    recognizer = Recognizer(written["lstm ctc"][0])
    x = np.repeat(recognisers.sound(1.0), 2)
    recognizer.accept(x, 16_000)
    whole = recognizer.finish()
    for first in range(0, len(x), 333):
        recognizer.accept(x[first : first + 333], 16_000)
    assert recognizer.finish().text == whole.text != ""


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ([0.0, float("nan")], "NaN, infinite"),
        ([float("inf")], "NaN, infinite"),
        ([1e30], "beyond 100"),
        (np.zeros((5, 2)), "give one channel"),
        (np.zeros(4, np.int32), "samples of type int32"),
        (["a"], "samples of type"),
    ],
)
def test_what_is_no_sound_is_refused_and_loses_nothing(written, samples, why):
    recognizer = Recognizer(written["lstm ctc"][0])
    x = recognisers.sound(1.0)
    recognizer.accept(x)
    before = recognizer.result()
    with pytest.raises(ValueError, match=why):
        recognizer.accept(samples)
    assert recognizer.result() == before


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_heard_in_nothing(written, name):
    for beam in (1, 3):
        recognizer = Recognizer(written[name][0], beam)
        recognizer.accept([])
        recognizer.accept(np.zeros(100, np.float32))
        assert recognizer.finish() == ("", [])
        assert recognizer.finish() == ("", [])


def test_rates_beyond_reason_are_refused(written):
    recognizer = Recognizer(written["lstm ctc"][0])
    with pytest.raises(ValueError, match="csp hears 4000 to 192000"):
        recognizer.accept(np.zeros(10, np.float32), 1)
    recognizer.accept(np.zeros(10, np.float32), 16_000)
    with pytest.raises(ValueError, match="44100 samples a second after 16000"):
        recognizer.accept(np.zeros(10, np.float32), 44_100)


def test_beams_below_one_and_files_of_another_kind_are_refused(written, tmp_path):
    with pytest.raises(ValueError, match="beam of 0"):
        Recognizer(written["lstm ctc"][0], 0)
    other = formats.save(tmp_path / "w.safetensors", {"w": np.ones((4, 4), np.float32)})
    with pytest.raises(ValueError, match="holds no recogniser"):
        Recognizer(other)


SPOILED = {
    "stack": 0,
    "layers": 10**9,
    "width": 17,
    "heads": 0,
    "encoder": "rnn",
    "head": "none",
    "predictor": 9,
    "joint": 13,
    "kernel": 4,
    "chunk": -1,
    "left": "many",
    "reduce_after": 5,
}


@pytest.mark.parametrize("key", SPOILED)
def test_a_config_that_does_not_fit_the_weights_is_refused(written, key, tmp_path):
    """The kernels believe the sizes they are told."""
    path, _ = written["conformer transducer" if key in ("heads", "kernel") else "lstm transducer"]
    _refused(path, tmp_path, lambda config, params: config["model"].update({key: SPOILED[key]}))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config, params: config.pop("model"),
        lambda config, params: config["features"].update(rate=1),
        lambda config, params: config["features"].update(bins=5),
        lambda config, params: config["features"].update(hop=0.0),
        lambda config, params: config["tokens"].update(units=["A"]),
        lambda config, params: config["tokens"].update(kind=3, units=7),
        lambda config, params: params["model"]["encoder"]["layers"]["0"].update(bias=np.zeros(3, np.float32)),
        lambda config, params: params["model"]["encoder"]["norms"]["0"].update(scale=np.zeros(3, np.float32)),
        lambda config, params: params["model"]["encoder"]["layers"]["1"].update(recurrent=np.ones((8, 64), np.float32)),
        lambda config, params: params["model"]["transducer"].pop("output"),
        lambda config, params: params["features"].update(deviation=np.zeros(6, np.float32)),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(written, spoil, tmp_path):
    _refused(written["lstm transducer"][0], tmp_path, spoil)


def _refused(path, folder, spoil):
    params, config = formats.load(path)
    config = json.loads(json.dumps(config))
    spoil(config, params)
    spoiled = formats.save(folder / "spoiled.safetensors", params, "auto", config)
    with pytest.raises(FormatError, match=r"spoiled.safetensors: "):
        Recognizer(spoiled)


def test_hearing_does_not_wait_for_jax(written, tmp_path):
    code = f"""
import sys
import numpy as np
import csp.runtime
recognizer = csp.runtime.Recognizer({str(written["lstm ctc"][0])!r})
recognizer.accept(np.zeros(8000, np.float32))
recognizer.finish()
import csp.cli.transcribe
assert not {{"jax", "flax", "optax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_says_what_it_offers():
    assert csp.runtime.Recognizer is Recognizer
