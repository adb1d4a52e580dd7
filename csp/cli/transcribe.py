"""Prints what is said in recordings, or on standard input, by the compressed model, without jax.

csp transcribe runs/digits/model.safetensors a.wav b.flac
csp transcribe --stream runs/digits/model.safetensors long.mp3
csp transcribe runs/digits --lm runs/say --lm-weight 0.4 a.wav
arecord -f S16_LE -r 8000 -t raw | csp transcribe --stream --pause 1 runs/digits/model.safetensors -
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csp.cli import fusing
from csp.speech.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from csp.runtime import Recognizer, Result

_LONG = 60.0  # seconds after which a bar is worth its ink


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model file, or a run directory")
    parser.add_argument("--beam", type=int, metavar="N", help="hypotheses; those of the model's config by default")
    parser.add_argument("--stream", action="store_true", help="print words as they are heard")
    parser.add_argument(
        "--pause",
        type=float,
        metavar="S",
        help="seconds without a word that end a sentence; the next one is heard afresh. For streams without end, and "
        "recordings much longer than those of the training",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="recordings at once; 1 by default")
    parser.add_argument("--rate", type=int, metavar="HZ", help="of standard input; the model's by default")
    fusing.arguments(parser)
    parser.add_argument("audio", nargs="+", metavar="AUDIO", help="WAV, FLAC, Ogg, MP3; or -, raw 16-bit PCM, mono")


def run(options: argparse.Namespace) -> int:
    from csp.runtime import Recognizer, native
    from csp.runtime.model import file_of

    if options.threads < 1:
        raise ValueError(f"--threads {options.threads} must be positive")
    recognizer = Recognizer(file_of(options.model), options.beam, fusion=fusing.fusion(options), pause=options.pause)
    if native.why_not():
        print(f"csp transcribe: {native.why_not()}", file=sys.stderr)
    hear = partial(_growing if options.stream else _whole, options, recognizer)
    threads = 1 if options.stream else options.threads
    code = 0
    for name, found in zip(options.audio, _together(partial(_or_why_not, hear), options.audio, threads), strict=True):
        if isinstance(found, DataError):
            print(f"csp transcribe: {found}", file=sys.stderr, flush=True)
            code = 4
            if options.json:
                print(json.dumps({"path": name, "error": str(found)}), flush=True)
        elif options.json:
            print(json.dumps(_plain(name, found) | ({"final": True} if options.stream else {})), flush=True)
        elif found.text or not (options.stream and options.pause):  # whose sentences were printed as they ended
            print(f"{name}: {found.text}", flush=True)
    return code


def _or_why_not(hear: Callable[[str], "Result"], name: str) -> "Result | DataError":
    """One bad recording is told, and the others are heard."""
    try:
        return hear(name)
    except DataError as why:
        return why


def _whole(options: argparse.Namespace, recognizer: "Recognizer", name: str) -> "Result":
    stream = recognizer.stream()
    bar = _bar(name) if len(options.audio) == 1 else None
    for x, own in _sound(name, options.rate or recognizer.rate):
        stream.accept(x, own)
        if bar:
            bar(len(x) / own)
    return stream.finish()


def _growing(options: argparse.Namespace, recognizer: "Recognizer", name: str) -> "Result":
    """Words as they come: a line that grows, or a record for each change with --json; and the last sentence."""
    stream = recognizer.stream()
    said = ""

    def show(now: "Result", final: bool) -> None:
        line = f"{name}: {now.text}{'' if final else ' ...'}"
        print(json.dumps(_plain(name, now) | {"final": final}) if options.json else line, flush=True)

    for x, own in _sound(name, options.rate or recognizer.rate):
        step = max(1, own // 10)
        for first in range(0, len(x), step):
            stream.accept(x[first : first + step], own)
            for sentence in stream.sentences():
                show(sentence, final=True)
                said = ""
            now = stream.result()
            if now.text != said:
                said = now.text
                show(now, final=False)
    return stream.finish()


def _sound(name: str, rate: int) -> Iterator[tuple["np.ndarray", int]]:
    """Pieces of a recording with their rate."""
    from csp.speech import audio

    if name != "-":
        yield from audio.blocks(name)
        return
    import numpy as np

    pipe: Any = sys.stdin.buffer
    rest = b""
    while read := pipe.read1(1 << 16):
        whole = (rest + read)[: (len(rest) + len(read)) // 2 * 2]
        rest = (rest + read)[len(whole) :]
        yield np.frombuffer(whole, "<i2"), rate


def _together(
    f: Callable[[str], "Result | DataError"], names: list[str], threads: int
) -> Iterator["Result | DataError"]:
    if threads == 1:
        return map(f, names)
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(threads).map(f, names)


def _bar(name: str) -> Callable[[float], None] | None:
    """On a terminal, for recordings that take a while."""
    from csp.speech import audio

    if name == "-" or not sys.stderr.isatty() or (seconds := audio.describe(name).seconds) < _LONG:
        return None
    heard = 0.0

    def more(piece: float) -> None:
        nonlocal heard
        heard += piece
        done = min(1.0, heard / seconds)
        end = "\r" if done < 1 else "\r\033[K"
        print(f"[{'#' * int(24 * done):24}] {heard:.0f} of {seconds:.0f} s", end=end, file=sys.stderr, flush=True)

    return more


def _plain(name: str, found: "Result") -> dict[str, Any]:
    return {"path": name, "text": found.text, "words": [word._asdict() for word in found.words]}
