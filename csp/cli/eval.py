"""Counts the words that a model gets wrong: substitutions, insertions, deletions, an interval, speakers, the worst.

csp eval runs/digits --manifest runs/digits/corpus/manifest.tsv --split test
"""

import argparse
import json
from pathlib import Path

from csp.cli.tables import table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="RUN|MODEL", help="a run directory, or a model file")
    parser.add_argument("--manifest", type=Path, required=True, help="TSV, JSON lines, or a LibriSpeech folder")
    parser.add_argument("--beam", type=int, metavar="N", help="hypotheses; those of the model's config by default")
    parser.add_argument("--split", default="", help="which split of the manifest; all by default")


def run(options: argparse.Namespace) -> int:
    from csp.train import recognise

    found = recognise.score(recognise.open_(options.model, options.beam), options.manifest, options.split)
    if options.json:
        print(json.dumps(found))
        return 0
    print(
        f"WER {found['wer']:.2%} ({found['wer_low']:.2%} to {found['wer_high']:.2%}) of {found['words']:,} words: "
        f"{found['substitutions']} substituted, {found['insertions']} inserted, {found['deletions']} deleted; "
        f"real-time factor {found['rtf']:.4f}"
    )
    if len(found["speakers"]) > 1:
        rows = [[name or "-", f"{of['wer']:.2%}", str(of["words"])] for name, of in found["speakers"].items()]
        print("\n" + table(["speaker", "WER", "words"], rows, right=(1, 2)))
    if found["worst"]:
        rows = [[one["id"], one["reference"], one["heard"]] for one in found["worst"]]
        print("\n" + table(["utterance", "said", "heard"], rows))
    return 0
