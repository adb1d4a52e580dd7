"""Finds how much a language model shall have to say, by the words that are wrong on a development set.

csp tune runs/digits --lm runs/say --manifest runs/digits/corpus/manifest.tsv --split valid
csp tune model.safetensors --lm lm.safetensors --manifest dev.tsv --rescore
"""

import argparse
import json
import sys
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="RUN|MODEL", help="a recogniser, or its run directory")
    parser.add_argument("--lm", type=Path, required=True, metavar="FILE", help="a language model, or its run directory")
    parser.add_argument("--manifest", type=Path, required=True, help="of a development set, not of the test")
    parser.add_argument("--split", default="", help="which split of the manifest; all by default")
    parser.add_argument("--beam", type=int, default=8, metavar="N", help="hypotheses; 8 by default")
    parser.add_argument("--rescore", action="store_true", help="among the best hypotheses only, not in the search")


def run(options: argparse.Namespace) -> int:
    from csp.runtime.model import file_of
    from csp.train import tune

    if options.beam < 2:
        raise ValueError(f"--beam {options.beam}: a language model chooses among 2 or more")

    def say(text: str) -> None:
        if not options.json:
            print(text, file=sys.stderr, flush=True)

    found = tune.tune(
        options.model, file_of(options.lm), options.manifest, options.split, options.beam, options.rescore, say
    )
    if options.json:
        print(json.dumps(found))
        return 0
    best, how = found["best"], " --rescore" if options.rescore else ""
    print(f"WER {found['without']:.2%} without, {found['rescored']['wer']:.2%} rescored", end="")
    print(f", {found['fused']['wer']:.2%} fused" if "fused" in found else "", end="")
    print(f", of {found['words']:,} words; {found['oracle']:.2%} with the best of each {found['beam']} hypotheses")
    print(f"the language model's perplexity of a word is {found['perplexity']:.2f}")
    print(
        f"use: csp transcribe {options.model} --lm {options.lm} --lm-weight {best['weight']:g} "
        f"--lm-bonus {best['bonus']:g} --beam {found['beam']}{how} AUDIO"
    )
    return 0
