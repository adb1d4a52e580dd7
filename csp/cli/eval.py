"""Counts the words that a model gets wrong: substitutions, insertions, deletions, an interval, speakers, the worst.

csp eval runs/digits --manifest runs/digits/corpus/manifest.tsv --split test
csp eval runs/digits --manifest runs/digits/corpus/manifest.tsv --split test --lm runs/say --lm-weight 0.4
csp eval runs/lm --text novels.txt.xz
"""

import argparse
import json
from pathlib import Path

from csp.cli import fusing
from csp.cli.tables import table


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="RUN|MODEL", help="a run directory, or a model file")
    parser.add_argument("--manifest", type=Path, help="TSV, JSON lines, or a LibriSpeech folder")
    parser.add_argument("--text", type=Path, help="of a language model: how a text, one sentence a line, surprises it")
    parser.add_argument("--beam", type=int, metavar="N", help="hypotheses; those of the model's config by default")
    parser.add_argument("--split", default="", help="which split of the manifest; all by default")
    fusing.arguments(parser)


def run(options: argparse.Namespace) -> int:
    if (options.manifest is None) == (options.text is None):
        raise ValueError("give --manifest for a recogniser, or --text for a language model")
    if options.text is not None:
        if options.lm is not None or options.beam is not None or fusing.fusion(options):
            raise ValueError("--lm and --beam are for a recogniser: --manifest")
        return _read(options)
    from csp.train import recognise

    recognizer = recognise.open_(options.model, options.beam, fusing.fusion(options))
    found = recognise.score(recognizer, options.manifest, options.split)
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


def _read(options: argparse.Namespace) -> int:
    from csp.runtime.model import file_of
    from csp.train import language

    found = language.read(file_of(options.model), options.text, options.split)
    if options.json:
        print(json.dumps(found))
        return 0
    print(
        f"perplexity {found['perplexity']:.2f} of a word ({found['perplexity_low']:.2f} to "
        f"{found['perplexity_high']:.2f}), {found['label_perplexity']:.2f} of a label, "
        f"{found['bits_per_character']:.3f} bits a character; "
        f"{found['words']:,} words, {found['sentences']:,} sentences"
    )
    if found["dropped"]:
        print(f"{found['dropped']:,} sentences are left out: the vocabulary cannot write them")
    return 0
