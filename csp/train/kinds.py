"""Which kinds of models can be trained? One visible table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from csp.train import data, language
from csp.train.config import Config
from csp.train.language import Language
from csp.train.listening import Listening


class Kind(NamedTuple):
    prepare: Callable[[Config, Path, Callable[[], None]], Any]  # reads the data; the third may raise, to stop it
    task: Callable[[Config, dict[str, Any]], Any]  # makes a model for the `inputs` of data


KINDS = {"recogniser": Kind(data.prepare, Listening), "lm": Kind(language.prepare, Language)}


def of(config: Config) -> Kind:
    return KINDS[config.kind]
