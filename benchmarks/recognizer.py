"""Is a delivered recogniser as good, and as fast, as promised? The runtime against JAX on the same file and recordings.

First: csp train configs/digits.toml. Targets: real-time factor <= 0.01 on one core, loading <= 50 ms, `import
csp.runtime` <= 0.15 s without jax, words wrong within 0.2 points of JAX's with the same int8 weights.
"""

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from _timing import save, show

from csp.runtime import Recognizer, native
from csp.runtime.bench import FORMS
from csp.runtime.model import Model


def main() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("runs/digits/model.safetensors"))
    parser.add_argument("--manifest", default="runs/digits/corpus/manifest.tsv")
    parser.add_argument("--split", default="test")
    parser.add_argument("--beam", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("results/recognizer.json"))
    chosen = parser.parse_args()
    if not chosen.model.is_file():
        parser.error(f"{chosen.model} is no file: csp train configs/digits.toml, or name another with --model")
    from csp.train import corpus, evaluate, modelfile

    model = modelfile.load(chosen.model)
    found = corpus.load(chosen.manifest, chosen.split, model.setup.config, model.tokens, training=False)
    records = [*_imports(), _loads(chosen.model)]
    for beam in (1, chosen.beam):
        config = model.setup.config
        config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, beam=beam))
        setup = model.setup._replace(config=config)
        heard = evaluate.evaluate(evaluate.decoder(setup), model.params, found, model.tokens)
        records.append(_row(f"jax, float32 activations, beam {beam}", heard))
        for name, form in FORMS.items():
            for kernels in _kernels() if form is None and beam == 1 else (None,):
                recognizer = Recognizer(Model(chosen.model, kernels, form), beam)
                heard = evaluate.listen(recognizer, found)
                records.append(_row(f"{name}, {recognizer.model.kernels.name}, beam {beam}", heard))
    for record in records:
        record["model"] = str(chosen.model)
    show(records, ["what", "seconds", "wer", "words", "rtf"])
    save(records, chosen.out)


def _kernels() -> list[str]:
    if isinstance(native.kernels(), native.Native):
        return [name for name in (*native.SETS, "reference") if _runs(name)]
    return ["reference"]


def _runs(name: str) -> bool:
    try:
        return native.kernels(name) is not None
    except ValueError:
        return False


def _row(what: str, heard) -> dict:
    summary = heard.summary()
    return {"what": what} | {key: summary[key] for key in ("wer", "wer_low", "wer_high", "words", "rtf")}


def _imports(repeats: int = 9) -> list[dict]:
    """A new process that imports the runtime, or its recogniser, less one that imports nothing."""

    def once(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - start

    environment = {"PYTHONDONTWRITEBYTECODE": ""}
    os.environ.update(environment)
    codes = ("import csp.runtime", "from csp.runtime import Recognizer", "import numpy")
    times = [[once(code) for code in (*codes, "pass")] for _ in range(repeats)]
    *found, nothing = (statistics.median(column) for column in zip(*times, strict=True))
    return [{"what": code, "seconds": seconds - nothing} for code, seconds in zip(codes, found, strict=True)]


def _loads(path: Path, repeats: int = 15) -> dict:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        Model(path)
        times.append(time.perf_counter() - start)
    return {"what": "loading", "seconds": float(np.median(times))}


if __name__ == "__main__":
    main()
