"""What does a kind of model have to say, so that a run can train, judge and deliver it?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

import csp
from csp.train.config import Config, ConfigError


class Judged(NamedTuple):
    """How good it is on what it was not trained on: the lower `value`, the better."""

    value: float
    record: dict[str, Any]  # for metrics.jsonl
    line: str  # for a person


class Data(Protocol):
    """What a run trains on, is judged by and is tested on."""

    @property
    def inputs(self) -> dict[str, Any]:
        """What a model file needs of it, as plain JSON."""
        ...

    def digest(self) -> str:
        """Of what is trained on."""
        ...

    def said(self) -> str:
        """What was read, in half a line."""
        ...

    def facts(self) -> dict[str, Any]:
        """For the report: plain JSON."""
        ...

    def batches(self, config: Config, share: tuple[int, int]) -> Any:
        """By position; see `csp.train.corpus.Ahead`."""
        ...


class Task:
    """A model of a config and of the `inputs` of its data; `initial` are its parameters before the first step."""

    initial: Any
    REMEMBERED: tuple[str, ...] = ()  # what `calibrated` adds to what a checkpoint says

    def calibrated(
        self, target: float | None, params: Any, batches: Any, said: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """The parameters pruned to the target by what data say of them; and what a checkpoint has to remember of it."""
        raise ConfigError("sparsity.method 'calibrated' prunes language models: kind = \"lm\"")

    def shaped(self, params: Any, said: Mapping[str, Any]) -> Any:
        """Parameters like those of a checkpoint that says this."""
        return params

    def loss(self, params: Any, key: jax.Array, batch: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Its sum; how many labels it is of, and how many rows have none."""
        raise NotImplementedError

    def judge(self, params: Any, data: Any) -> Judged:
        raise NotImplementedError

    def save(self, path: Path, params: Any, rules: tuple[csp.Rule, ...], about: dict[str, Any]) -> None:
        raise NotImplementedError

    def test(self, path: Path, data: Any) -> dict[str, Any]:
        """What the file that was saved can do, as plain JSON."""
        raise NotImplementedError
