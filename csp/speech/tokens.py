"""How does text become numbers, and back? 0 is the blank of CTC and of the transducer, and the start of a sentence."""

import dataclasses
import functools
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from csp.speech.errors import DataError

KINDS = ("characters", "words", "pieces")
BLANK = 0
UNKNOWN = "<unk>"  # the unit of words that a vocabulary of words lacks, if it has it


@dataclasses.dataclass(frozen=True)
class Normaliser:
    """What is done to a transcript before anything else: visible, and part of the model."""

    upper: bool = True
    keep: str = "A-Z0-9' "  # a character class; what is outside becomes a space
    unicode: Literal["NFC", "NFD", "NFKC", "NFKD"] = "NFKC"

    def __call__(self, text: str) -> str:
        text = unicodedata.normalize(self.unicode, text)
        text = text.upper() if self.upper else text
        if self.keep:
            text = re.sub(f"[^{self.keep}]", " ", text)
        return " ".join(text.split())


@dataclasses.dataclass(frozen=True)
class Tokens:
    """A vocabulary: `units` of a kind; number 0 is the blank, number i + 1 is unit i."""

    kind: str  # "characters", "words" or "pieces"
    units: tuple[str, ...]
    normalise: Normaliser = Normaliser()

    def __post_init__(self):
        object.__setattr__(self, "_numbers", {unit: i + 1 for i, unit in enumerate(self.units)})

    @property
    def size(self) -> int:
        return len(self.units) + 1

    def split(self, text: str) -> list[str]:
        text = self.normalise(text)
        if self.kind == "words":
            return text.split()
        if self.kind == "characters":
            return list(text)
        return _cut(text, self._numbers)  # type: ignore[attr-defined]

    @property
    def open(self) -> bool:
        """Has a unit for unknown words."""
        return UNKNOWN in self._numbers  # type: ignore[attr-defined]

    def unknown(self, text: str) -> list[str]:
        """The units of a text that the vocabulary lacks."""
        return sorted(set(self.split(text)) - self._numbers.keys())  # type: ignore[attr-defined]

    def spelling(self, text: str) -> float:
        """Nats to spell what an open vocabulary lacks of a text, letter by letter, and the ends of those words."""
        if not self.open:
            return 0.0
        known = self._numbers  # type: ignore[attr-defined]
        return sum(len(word) + 1 for word in self.split(text) if word not in known) * self._letter

    @functools.cached_property
    def _letter(self) -> float:
        """Nats of one letter, if all that the units are made of, and the end of a word, are as likely."""
        return math.log(len({character for unit in self.units if unit != UNKNOWN for character in unit}) + 1)

    def encode(self, text: str) -> list[int]:
        numbers = self._numbers  # type: ignore[attr-defined]
        if UNKNOWN in numbers:
            return [numbers.get(unit, numbers[UNKNOWN]) for unit in self.split(text)]
        try:
            return [numbers[unit] for unit in self.split(text)]
        except KeyError as error:
            raise DataError(f"{error.args[0]!r} is no unit of the vocabulary: {text[:60]!r}") from None

    def decode(self, numbers: Iterable[int]) -> str:
        units = [self.units[n - 1] for n in numbers if n != BLANK]
        if self.kind == "words":
            return " ".join(units)
        joined = "".join(units)
        return joined.strip() if self.kind == "characters" else joined.replace("\u2581", " ").strip()

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "units": list(self.units), "normalise": dataclasses.asdict(self.normalise)}


def from_json(said: dict[str, Any]) -> Tokens:
    return Tokens(said["kind"], tuple(said["units"]), Normaliser(**said["normalise"]))


def learn(
    kind: str, texts: Sequence[str], normalise: Normaliser = Normaliser(), size: int = 256, most: int | None = None
) -> Tokens:
    """The vocabulary of these transcripts, in alphabetic order; `size` is that of word pieces.

    With `most`, words are the most frequent ones, so many, and the unknown one.
    """
    said = [normalise(text) for text in texts]
    if not any(said):
        raise DataError("no transcript has a character that the normaliser keeps: look at data.keep")
    if kind == "words" and most is not None:
        often = Counter(word for text in said for word in text.split())
        return Tokens(kind, (*sorted(word for word, _ in often.most_common(most)), UNKNOWN), normalise)
    if kind == "words":
        return Tokens(kind, tuple(sorted({word for text in said for word in text.split()})), normalise)
    if kind == "characters":
        return Tokens(kind, tuple(sorted({character for text in said for character in text})), normalise)
    if kind == "pieces":
        return Tokens(kind, _pieces(said, size), normalise)
    raise DataError(f"tokens {kind!r} are none of {', '.join(KINDS)}")


_ENOUGH = 100_000  # sentences from which pieces are learned


def _pieces(texts: Sequence[str], size: int) -> tuple[str, ...]:
    """Byte-pair pieces by sentencepiece; the longest match from the left cuts a text into them."""
    try:
        import sentencepiece
    except ImportError:
        raise DataError("word pieces need sentencepiece: pip install 'csp-jax[speech]'") from None
    import io

    model = io.BytesIO()
    every = sorted({character for text in texts for character in text} - {" "})
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts[:: -(-len(texts) // _ENOUGH)]),
            required_chars="".join(every),
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            character_coverage=1.0,
            bos_id=-1,
            eos_id=-1,
            minloglevel=2,
            num_threads=1,
        )
    except RuntimeError as error:
        raise DataError(
            f"{size} word pieces do not fit these transcripts: {str(error).splitlines()[-1][-120:]}"
        ) from None
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return tuple(sorted({processor.id_to_piece(i) for i in range(processor.get_piece_size())} - {"<unk>"}))


def _cut(text: str, known: dict[str, int]) -> list[str]:
    longest = max(map(len, known), default=1)
    text, pieces, at = "\u2581" + text.replace(" ", "\u2581"), [], 0
    while at < len(text):
        length = next((n for n in range(longest, 0, -1) if text[at : at + n] in known), 1)
        pieces.append(text[at : at + length])
        at += length
    return pieces


def save(tokens: Tokens, path: Path) -> None:
    path.write_text(json.dumps(tokens.as_json(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
