"""What do the streams of one recogniser share? Its file, checked: packed weights, sizes, vocabulary."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from csp import formats
from csp.runtime import encoders, native
from csp.runtime.decoders import CTCHead, GreedyCTC, GreedyTransducer, TransducerHead
from csp.runtime.fusion import Fusion, Guide
from csp.runtime.layers import Source, expect
from csp.runtime.matrix import sparse
from csp.runtime.search import BeamCTC, BeamTransducer
from csp.speech import tokens as tokens_
from csp.speech.features import Given, LogMel, bands
from csp.speech.tokens import Tokens

KIND = "recogniser"


def file_of(path: str | Path) -> Path:
    """A model file itself, or the one of a run directory."""
    return Path(path) / "model.safetensors" if Path(path).is_dir() else Path(path)


def kind_of(path: str | Path) -> str:
    """ "recogniser" or "lm"; nothing if csp did not train it."""
    with formats.open(path) as file:
        return _kind(file.manifest.config)


def _kind(said: Any) -> str:
    return said.get("kind", "") if isinstance(said, dict) else ""


class Model:
    """What streams share: packed weights, nothing that changes. `form` "float32" or "int8" makes the weights dense."""

    def __init__(self, path: str | Path, kernels: str | None = None, form: str | None = None):
        with formats.open(path) as file:
            said = file.manifest.config
            if (kind := _kind(said)) != KIND:
                shown = f"csp inspect {path} shows what it holds"
                hint = f"it is for --lm {path}, or csp eval --text" if kind == "lm" else shown
                raise ValueError(f"{path} holds no recogniser that csp trained: {hint}")
            try:
                self._read(said, Source(file, native.kernels(kernels), form))
            except (formats.FormatError, KeyError, AttributeError, TypeError, ValueError) as error:
                raise formats.FormatError(f"{path}: {str(error) or 'its config is not whole'}") from None

    def _read(self, said: dict[str, Any], source: Source) -> None:
        self.config, self.kernels = _config(said["model"]), source.kernels
        self.beam = said["decode"]["beam"]
        expect(type(self.beam) is int and self.beam > 0, "decode.beam", f"is {str(self.beam)[:20]}")
        self.tokens: Tokens = tokens_.from_json(said["tokens"])
        self.mel = _mel(said["features"])
        self.mean = source.vector("features/mean", self.mel.bins)
        self.deviation = source.vector("features/deviation", self.mel.bins)
        expect(bool((self.deviation > 0).all()), "features/deviation", "is not positive")
        self.bands: Any = None
        if isinstance(self.mel, LogMel):
            triangles = bands(self.mel.rate, self.mel.bins, self.mel.length)
            self.bands = source.kernels.pack(sparse(triangles, "float32"))
        encoder = encoders.LSTMEncoder if self.config.encoder == "lstm" else encoders.Conformer
        self.encoder = encoder(self.config, self.mel.bins, source, "model/encoder")
        transducer, size = self.config.head == "transducer", self.tokens.size
        self.ctc = None if transducer else CTCHead(self.config, size, source, "model/ctc")
        self.transducer = TransducerHead(self.config, size, source, "model/transducer") if transducer else None

    @property
    def seconds_per_frame(self) -> float:
        halved = self.config.encoder == "lstm" and self.config.reduce_after
        return self.mel.step / self.mel.rate * self.config.stack * (2 if halved else 1)

    def decoder(self, beam: int, fusion: Fusion | None = None) -> Any:
        guide = Guide(fusion) if fusion is not None and not fusion.rescore else None
        if self.transducer is not None:
            return GreedyTransducer(self.transducer) if beam == 1 else BeamTransducer(self.transducer, beam, guide)
        assert self.ctc is not None
        return GreedyCTC(self.ctc) if beam == 1 else BeamCTC(self.ctc, beam, guide)

    def features(self, power: np.ndarray) -> np.ndarray:
        """Energies of the bands."""
        return self.kernels.linear(self.bands, None, power)


def _config(said: dict[str, Any]) -> SimpleNamespace:
    """Sizes within reason."""
    config = SimpleNamespace(**said)
    expect(
        config.encoder in ("lstm", "conformer") and config.head in ("ctc", "transducer"), "model", "is of no known kind"
    )
    least = {"layers": 1, "width": 1, "stack": 1, "reduce_after": 0, "predictor": 1, "joint": 1}
    least |= {"heads": 1, "kernel": 1, "chunk": 1, "left": 0}
    for key, low in least.items():
        value = said[key]
        expect(type(value) is int and low <= value <= 1 << 20, f"model.{key}", f"is {str(value)[:20]}")
    expect(config.layers <= 1000 and config.reduce_after < config.layers, "model.layers", f"are {config.layers}")
    return config


def _mel(said: dict[str, Any]) -> LogMel | Given:
    rate, bins, window, hop = (said[key] for key in ("rate", "bins", "window", "hop"))
    slowest = 1 if said.get("given") else 4_000
    right = type(rate) is int and slowest <= rate <= 192_000 and type(bins) is int and 1 <= bins <= 4096
    expect(right and 0 < hop <= window <= 1, "features", "have a rate, bins, window or hop beyond all reason")
    return Given(rate, bins) if said.get("given") else LogMel(rate, bins, window, hop)
