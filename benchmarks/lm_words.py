"""What does it do to the words that are recognised if the language model in the search is pruned?

Each language model's weight and bonus are tuned on the validation split; its test is paired with that of the first,
word by word, and both its sentences and its speakers are drawn again and again.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from _timing import save, show

from csp.runtime import Recognizer
from csp.runtime.fusion import Fusion
from csp.runtime.lm import LanguageModel
from csp.runtime.model import file_of
from csp.speech import paired, wer
from csp.train import evaluate, language, recognise, tune

BEAM = 8
SHOWN = ("lm", "bytes", "perplexity", "weight", "bonus", "wer", "wer_low", "wer_high", "less_than_first", "low", "high")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recogniser", type=Path, metavar="RUN|MODEL", help="of the same characters or pieces")
    parser.add_argument("lms", type=Path, nargs="+", metavar="LM", help="runs or files; the first is dense")
    parser.add_argument("--manifest", type=Path, required=True, help="with the splits valid and test")
    parser.add_argument("--out", type=Path, default=Path("results/lm_words.json"), help="default: %(default)s")
    chosen = parser.parse_args()
    plain = recognise.open_(chosen.recogniser, BEAM)
    corpus = recognise.corpus_of(plain, chosen.manifest, "test")
    records, first = [], None
    for lm in chosen.lms:
        model = file_of(lm)
        found = tune.tune(chosen.recogniser, model, chosen.manifest, "valid", BEAM, False, print)
        weight, bonus = found["fused"]["weight"], found["fused"]["bonus"]
        fused = Recognizer(plain.model, BEAM, fusion=Fusion(LanguageModel(model), weight, bonus))
        heard = evaluate.listen(fused, corpus)
        first = heard if first is None else first
        summary = heard.summary()
        records.append(
            {"lm": str(lm), "bytes": model.stat().st_size, "weight": weight, "bonus": bonus}
            | {"perplexity": language.read(model, chosen.manifest, "test")["perplexity"]}
            | {key: summary[key] for key in ("wer", "wer_low", "wer_high", "words", "rtf")}
            | {"valid_wer": found["fused"]["wer"], "valid_rescored": found["rescored"]["wer"]}
            | _less(heard, first)
        )
        show(records, SHOWN)
    save(records, chosen.out)


def _less(heard: evaluate.Result, first: evaluate.Result) -> dict[str, Any]:
    if heard is first:
        return {}
    groups = [(one.id, one.speaker) for one in first.scored for _ in one.reference.split()]
    found = paired.difference(_charged(heard), _charged(first), list(zip(*groups, strict=True)))
    return {"less_than_first": found.mean, "low": found.low, "high": found.high, "p": found.p}


def _charged(heard: evaluate.Result) -> np.ndarray:
    return np.array([[error for one in heard.scored for error in wer.charged(one.reference, one.heard)]])


if __name__ == "__main__":
    main()
