"""Compressed recognisers and language models at work, in real time, on an ordinary CPU, without jax.

recognizer = csp.runtime.Recognizer("model.safetensors")
recognizer.accept(samples)
print(recognizer.result().text)
print(recognizer.finish().words)

Each name is imported when it is first used: a program that says what it can do must not wait for NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csp.runtime.fusion import Fusion as Fusion
    from csp.runtime.lm import LanguageModel as LanguageModel
    from csp.runtime.recognizer import Hypothesis as Hypothesis
    from csp.runtime.recognizer import Recognizer as Recognizer
    from csp.runtime.recognizer import Result as Result
    from csp.runtime.recognizer import Word as Word

HOMES = {
    "Fusion": "fusion",
    "Hypothesis": "recognizer",
    "LanguageModel": "lm",
    "Recognizer": "recognizer",
    "Result": "recognizer",
    "Word": "recognizer",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'csp.runtime' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"csp.runtime.{HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(HOMES)
