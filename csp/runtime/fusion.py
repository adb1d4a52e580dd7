"""How does a language model have a say in what was heard? While it is searched for, or among the best that was found.

A row of n labels is worth log p(sound) + weight log p(labels, end) + bonus n. In the search (shallow fusion) the
language model must have the recogniser's vocabulary; afterwards (rescoring) any that can write the words will do.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from csp.runtime.lm import LanguageModel, Past
from csp.speech.tokens import BLANK, Tokens

KEPT = 16  # times the width of a beam: rows whose guesses are remembered
UNHEARD = -1e3  # log-probability of a sentence that the language model cannot write


class Fusion(NamedTuple):
    """A language model and its say.

    Args:
      lm: the model.
      weight: of its log-probabilities.
      bonus: for each label of the recogniser, against the taste of language models for few words.
      rescore: among the best rows only, once all is heard.
    """

    lm: LanguageModel
    weight: float = 0.3
    bonus: float = 0.0
    rescore: bool = False

    def check(self, tokens: Tokens) -> None:
        if not (math.isfinite(self.weight) and math.isfinite(self.bonus)):
            raise ValueError(f"a weight of {self.weight} and a bonus of {self.bonus} must be finite")
        if not self.rescore and self.lm.tokens.units != tokens.units:
            raise ValueError(
                f"the language model's vocabulary of {self.lm.tokens.size - 1} {self.lm.tokens.kind} is not the "
                f"recogniser's of {tokens.size - 1} {tokens.kind}: train it with --data.vocabulary MODEL, or rescore"
            )
        if self.rescore and not any(map(self._reads, filter(_letters, tokens.units))):
            raise ValueError(
                f"the language model keeps nothing but {self.lm.tokens.normalise.keep!r} of a text, and of what the "
                "recogniser writes nothing: train it with --data.vocabulary MODEL"
            )

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """log p of each text, its unknown words spelled, and of its end; UNHEARD if the vocabulary cannot write it."""
        tokens, found = self.lm.tokens, np.full(len(texts), UNHEARD)
        known = [i for i, text in enumerate(texts) if self._reads(text) and (tokens.open or not tokens.unknown(text))]
        if known:
            found[known] = self.lm.score([tokens.encode(texts[i]) for i in known])
            found[known] -= [tokens.spelling(texts[i]) for i in known]
        return found

    def _reads(self, text: str) -> bool:
        """All of its letters and digits, and cuts none."""
        return _letters(self.lm.tokens.normalise(text)) >= _letters(text)


def _letters(text: str) -> int:
    return sum(map(str.isalnum, text))


class Place(Protocol):
    """A row of a search: its last label, and the row before it."""

    @property
    def key(self) -> int: ...
    @property
    def last(self) -> int: ...
    @property
    def before(self) -> "Place | None": ...


class Guess(NamedTuple):
    gain_K: np.ndarray  # of each label that may come next; nothing for the blank
    end: float  # gain of the end
    past: Past


class Guide:
    """What the language model says of the rows of one search."""

    def __init__(self, fusion: Fusion):
        self.fusion, self._known = fusion, dict[int, Guess]()

    def gains(self, rows: Sequence[Place]) -> np.ndarray:
        """[rows, labels]."""
        return np.stack([guess.gain_K for guess in self._guesses(rows)])

    def ends(self, rows: Sequence[Place]) -> np.ndarray:
        return np.array([guess.end for guess in self._guesses(rows)])

    def _guesses(self, rows: Sequence[Place]) -> list[Guess]:
        new = [row for row in rows if row.key not in self._known]
        if new:
            lm, (_, weight, bonus, _) = self.fusion.lm, self.fusion
            pasts = [lm.start() if row.before is None else self._known[row.before.key].past for row in new]
            said = lm.after([BLANK if row.before is None else row.last for row in new], pasts)
            for row, (log_K, past) in zip(new, said, strict=True):
                gain_K = weight * log_K + bonus
                gain_K[BLANK] = 0.0
                self._known[row.key] = Guess(gain_K, weight * float(log_K[BLANK]), past)
        if len(self._known) > KEPT * max(len(rows), 8):
            self._known = {row.key: self._known[row.key] for row in rows}
        return [self._known[row.key] for row in rows]
