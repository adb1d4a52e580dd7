"""Can these recordings be trained on? Opens every one, and says everything that is wrong, with line numbers."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from csp.speech import audio, features, manifest
from csp.speech.errors import DataError
from csp.speech.manifest import Problem, Utterance
from csp.speech.tokens import Tokens

CLIPPED = 0.01  # of the samples at full scale


def check(
    path: str | Path,
    rate: int | None = None,
    longest: float | None = None,
    tokens: Tokens | None = None,
    workers: int = 4,
) -> tuple[list[Utterance], list[Problem]]:
    """(utterances, problems); `rate`, `longest` seconds and `tokens` are those of the model that shall be trained."""
    found, problems = manifest.scan(path)
    with ThreadPoolExecutor(workers) as pool:
        for u, wrong in zip(found, pool.map(lambda u: _wrong(u, rate, longest, tokens), found), strict=True):
            problems += [Problem(u.line, what) for what in wrong]
    problems += _twice(found)
    if not found and not problems:
        problems.append(Problem(0, "it has no utterance"))
    return found, sorted(set(problems))


def _wrong(u: Utterance, rate: int | None, longest: float | None, tokens: Tokens | None) -> list[str]:
    wrong = []
    if tokens and (unknown := tokens.unknown(u.text)):
        wrong.append(f"out of vocabulary: {' '.join(map(repr, unknown[:8]))}")
    if u.path.suffix == ".npy":
        return [*wrong, *_wrong_features(u)]
    try:
        info = audio.describe(u.path)
        x = audio.read(u.path, offset=u.offset, duration=u.duration)
    except DataError as error:
        return [*wrong, str(error)]
    seconds = len(x) / info.rate
    if rate is not None and info.rate != rate:
        wrong.append(f"{u.path} has {info.rate} samples a second, the model {rate}: training resamples it each time")
    if seconds < 0.025:
        wrong.append(f"{u.path} is empty: {len(x)} samples")
    if longest is not None and seconds > longest:
        wrong.append(f"{u.path} lasts {seconds:.1f} s, data.longest is {longest:g}")
    if len(x) and np.mean(np.abs(x) >= 0.999) > CLIPPED:
        wrong.append(f"{u.path} is clipped: {np.mean(np.abs(x) >= 0.999):.0%} of its samples")
    if len(x) and not np.abs(x).max() > 1e-5:
        wrong.append(f"{u.path} is silent")
    return wrong


def _wrong_features(u: Utterance) -> list[str]:
    try:
        return [] if len(features.read(u.path)) else [f"{u.path} is empty: 0 frames"]
    except DataError as error:
        return [str(error)]


def _twice(found: Iterable[Utterance]) -> list[Problem]:
    """The same stretch of the same file on two lines; the same file in training and in a test; however it is named."""
    files = [(u, u.path.resolve()) for u in found]
    places = Counter((file, u.offset) for u, file in files)
    problems = [Problem(u.line, f"{u.path} stands there twice") for u, file in files if places[file, u.offset] > 1]
    splits: dict[Path, set[str]] = {}
    for u, file in files:
        splits.setdefault(file, set()).add(u.split)
    return problems + [
        Problem(u.line, f"{u.path} is in {' and '.join(sorted(splits[file]))}")
        for u, file in files
        if len(splits[file]) > 1
    ]
