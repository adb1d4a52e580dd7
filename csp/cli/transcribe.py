"""Prints what is said in recordings.

csp transcribe runs/digits/model.safetensors a.wav b.flac
"""

import argparse
import json
from pathlib import Path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model file, or a run directory")
    parser.add_argument("--beam", type=int, metavar="N", help="hypotheses; those of the model's config by default")
    parser.add_argument("audio", type=Path, nargs="+", metavar="AUDIO", help="WAV, FLAC, Ogg or MP3")


def run(options: argparse.Namespace) -> int:
    from csp.train import recognise

    model = recognise.open_(options.model, options.beam)
    for path in options.audio:
        said = recognise.transcribe(model, path)
        print(json.dumps({"path": str(path), "text": said}) if options.json else f"{path}: {said}", flush=True)
    return 0
