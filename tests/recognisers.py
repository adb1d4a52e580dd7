"""Small recognisers with random weights, written as files, and how JAX hears by them."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from csp import models
from csp.models import ModelConfig
from csp.speech.tokens import Tokens
from csp.train import modelfile
from csp.train.config import Config, Data, Decode, Features

SMALL = ModelConfig(width=16, predictor=8, joint=12, layers=2, stack=2, kernel=5, chunk=3, left=1, heads=2)
CONFIGS = {
    "lstm transducer": SMALL,
    "lstm ctc": dataclasses.replace(SMALL, head="ctc"),
    "lstm reduced": dataclasses.replace(SMALL, reduce_after=1),
    "conformer transducer": dataclasses.replace(SMALL, encoder="conformer"),
    "conformer ctc": dataclasses.replace(SMALL, encoder="conformer", head="ctc"),
    "conformer whole": dataclasses.replace(SMALL, encoder="conformer", head="ctc", streaming=False),
}
TOKENS = Tokens("characters", tuple(" ABCDE"))
FEATURES = Features(rate=8000, bins=6)


def write(
    path: Path, model: ModelConfig, *, values: str = "f32", keep: float = 0.5, louder: float = 3.0, seed: int = 0
) -> modelfile.Model:
    """A model whose matrices have that share of their weights, large enough that it says something."""
    config = Config(data=Data(synth="digits"), features=FEATURES, model=model, decode=Decode(values=values))
    structure, params = modelfile.create(config, TOKENS)
    rng = np.random.default_rng(seed)

    def sparse(w):
        w = louder * np.asarray(w) * (rng.random(w.shape) < keep) if w.ndim > 1 else np.asarray(w)
        return w.astype(np.float32)

    params = jax.tree.map(sparse, params)
    setup = modelfile.setup(config, structure, np.full(6, -3, np.float32), np.full(6, 2, np.float32))
    modelfile.save(path, setup, params, TOKENS)
    return modelfile.load(path)


def sound(seconds: float = 2.0, seed: int = 0) -> np.ndarray:
    """Noise that comes and goes and changes colour."""
    rng = np.random.default_rng(seed)
    count = int(8000 * seconds)
    time = np.arange(count) / 8000
    tone = np.sin(2 * np.pi * (300 + 200 * np.sin(2 * np.pi * 1.3 * time)) * time)
    return (0.2 * (tone + 0.3 * rng.normal(size=count)) * (1 + np.sin(2 * np.pi * 2.1 * time)) / 2).astype(np.float32)


_apply = jax.jit(models.apply, static_argnums=(0, 2, 5))


def heard(model: modelfile.Model, x: np.ndarray, method: str, *more):
    """What JAX makes of the whole recording: "greedy", "search" or "encode"."""
    setup = model.setup
    y_TxF = (setup.mel(jnp.asarray(x), jnp) - setup.mean) / setup.deviation
    params = jax.tree.map(jnp.asarray, model.params)
    return _apply(setup.structure, params, method, y_TxF[None], jnp.array([len(y_TxF)]), *more)


def labels(model: modelfile.Model, x: np.ndarray, beam: int) -> list[int]:
    numbers, counts = heard(model, x, "greedy") if beam == 1 else heard(model, x, "search", beam)
    return np.asarray(numbers)[0, : int(counts[0])].tolist()
