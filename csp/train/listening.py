"""A recogniser as a task: it hears recordings, and is judged by the words that it gets wrong."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import csp
from csp.speech import tokens
from csp.train import evaluate, modelfile, objective, recognise, task
from csp.train.config import Config
from csp.train.data import Prepared


class Listening(task.Task):
    def __init__(self, config: Config, inputs: dict[str, Any]):
        self.tokens = tokens.from_json(inputs["tokens"])
        structure, self.initial = modelfile.create(config, self.tokens)
        if config.train.init:
            self.initial = modelfile.initial(config, self.initial)
        teacher = modelfile.teacher(config, self.tokens)
        mean, deviation = (np.asarray(inputs[key], np.float32) for key in ("mean", "deviation"))
        self.setup = modelfile.setup(config, structure, mean, deviation, teacher)
        self._decode = evaluate.decoder(self.setup)
        self.loss = partial(objective.loss, self.setup)

    def judge(self, params: Any, data: Prepared) -> task.Judged:
        found = evaluate.evaluate(self._decode, jax.tree.map(np.asarray, params), data.valid, self.tokens).errors
        record = {"valid_wer": found.rate, "words": found.words}
        return task.Judged(found.rate, record, f"{found.rate:.2%} of {found.words} words wrong (valid)")

    def save(self, path: Path, params: Any, rules: tuple[csp.Rule, ...], about: dict[str, Any]) -> None:
        modelfile.save(path, self.setup, params, self.tokens, rules, about)

    def test(self, path: Path, data: Prepared) -> dict[str, Any]:
        """By the runtime."""
        return evaluate.listen(recognise.open_(path), data.test).summary()
