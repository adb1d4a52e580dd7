"""A corpus that a formant voice speaks in a second, and the smallest recipe that learns from it."""

import json
from pathlib import Path

import jax
import pytest

from csp.speech import formants, synth
from csp.train import session

RECIPE = """
name = "tiny"

[data]
train = {corpus}
tokens = "words"
keep = "A-Z "
buckets = 1
masks = []

[features]
rate = 8000
bins = 8

[model]
layers = 1
width = 16
predictor = 8
joint = 8

[train]
steps = 12
batch = 4
checkpoint_every = 4
evaluate_every = 6

[sparsity]
target = 0.75
"""


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synth, "_engine", lambda: (formants.say, formants.VOICES))
        synth.main(folder, "digits", 24, 8000, 0)
    return folder / "manifest.tsv"


@pytest.fixture
def recipe(corpus, tmp_path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(corpus=json.dumps(str(corpus))))
    return path


@pytest.fixture(scope="session")
def whole(corpus, tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = folder / "tiny.toml"
    recipe.write_text(RECIPE.format(corpus=json.dumps(str(corpus))))
    return folder / "run", session.train(recipe, folder / "run", quiet=True)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory):
    """Runs that are alike are compiled once."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    yield
    jax.config.update("jax_compilation_cache_dir", None)
