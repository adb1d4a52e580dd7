"""Checks a manifest, or makes a corpus: speaks one, connects words, unpacks features.

csp data check manifest.tsv --rate 16000 --longest 20
csp data synth runs/voices --grammar digits --count 2000
csp data connect FSDD/manifest.tsv data/fsdd --noise 5,20
csp data unpack an4_mfcc13.npz an4/manifest.tsv data/an4
"""

import argparse
import json
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", required=True, metavar="check|synth|connect|unpack")
    check = kinds.add_parser("check", help="open every recording, and say everything that is wrong")
    check.add_argument("manifest", type=Path, help="TSV, JSON lines (ours, NeMo's, Lhotse's), or a LibriSpeech folder")
    check.add_argument("--rate", type=int, help="samples a second that the model wants")
    check.add_argument("--longest", type=float, help="seconds")
    check.add_argument("--model", type=Path, help="a model file whose vocabulary the transcripts must have")
    check.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")
    synth = kinds.add_parser("synth", help="speak a corpus in synthetic voices")
    synth.add_argument("out", type=Path, metavar="DIR")
    synth.add_argument("--grammar", default="digits", choices=("digits", "commands"))
    synth.add_argument("--count", type=int, default=2000, help="utterances of the training split")
    synth.add_argument("--rate", type=int, default=16_000, help="samples a second")
    synth.add_argument("--seed", type=int, default=0)
    synth.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")
    connect = kinds.add_parser("connect", help="make sentences of recordings of single words")
    connect.add_argument("manifest", type=Path, help="of single words, with speakers and splits")
    connect.add_argument("out", type=Path, metavar="DIR")
    for split, count in (("train", 3000), ("valid", 300), ("test", 600)):
        connect.add_argument(f"--{split}", type=int, default=count, help=f"sentences; default: {count}")
    connect.add_argument("--rate", type=int, default=8000, help="samples a second")
    connect.add_argument("--seed", type=int, default=0)
    connect.add_argument("--held-out", default="", metavar="SPEAKER", help="test on this speaker, train on the others")
    connect.add_argument(
        "--noise", metavar="LOW,HIGH", help="decibels above white noise, such as 5,20; none by default"
    )
    unpack = kinds.add_parser("unpack", help="make a corpus of features that stand in one .npz file")
    unpack.add_argument("features", type=Path, metavar="NPZ", help="feats, offsets and utts")
    unpack.add_argument("manifest", type=Path, help="TSV with utt, split, text, speaker")
    unpack.add_argument("out", type=Path, metavar="DIR")
    unpack.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")
    connect.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs")


def run(options: argparse.Namespace) -> int:
    return {"check": _check, "synth": _synth, "connect": _connect, "unpack": _unpack}[options.what](options)


def _unpack(options: argparse.Namespace) -> int:
    from csp.speech import unpack

    path = unpack.unpack(options.features, options.manifest, options.out)
    print(json.dumps({"manifest": str(path)}) if options.json else path)
    return 0


def _connect(options: argparse.Namespace) -> int:
    from csp.speech import connect

    noise = None
    if options.noise:
        try:
            low, high = map(float, options.noise.split(","))
        except ValueError:
            raise ValueError(f"--noise {options.noise!r} is no LOW,HIGH, such as 5,20") from None
        noise = (low, high)
    counts = {"train": options.train, "valid": options.valid, "test": options.test}
    more = {"rate": options.rate, "seed": options.seed, "held_out": options.held_out, "noise": noise}
    path = connect.connect(options.manifest, options.out, counts, **more)
    print(json.dumps({"manifest": str(path)}) if options.json else path)
    return 0


def _check(options: argparse.Namespace) -> int:
    from csp.speech import check

    tokens = None
    if options.model:
        from csp.train import modelfile

        tokens = modelfile.load(options.model).tokens
    found, problems = check.check(options.manifest, options.rate, options.longest, tokens)
    if options.json:
        print(json.dumps({"utterances": len(found), "problems": [p._asdict() for p in problems]}))
    else:
        print("\n".join(map(str, problems)), end="\n" if problems else "")
        print(f"{options.manifest}: {len(found)} utterances, {len(problems) or 'no'} problems")
    return 1 if problems else 0


def _synth(options: argparse.Namespace) -> int:
    from csp.speech import synth

    if options.count < 1:
        raise ValueError(f"--count {options.count} must be positive")
    path = synth.speak(options.out, options.grammar, options.count, options.rate, options.seed)
    print(json.dumps({"manifest": str(path)}) if options.json else path)
    return 0
