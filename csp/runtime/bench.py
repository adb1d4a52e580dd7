"""How fast is a model here, and how small in memory? As it is stored, and against its own dense forms.

Times are medians of interleaved repetitions in one process; memory is measured in a process for each form.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from csp.runtime.matrix import Matrix
from csp.runtime.model import Model
from csp.runtime.native import Kernels
from csp.runtime.recognizer import Recognizer
from csp.speech import audio, formants
from csp.speech.features import LogMel

FORMS: dict[str, str | None] = {"stored": None, "dense int8": "int8", "dense float32": "float32"}
CHUNK = 0.1  # seconds between two looks at a stream
_TEXT = "ONE TWO THREE FOUR FIVE SIX SEVEN EIGHT NINE ZERO "


def measure(path: Path, sound: Path | None = None, repeats: int = 5) -> dict[str, Any]:
    """Plain JSON: a row for each form."""
    models = {name: Model(path, form=form) for name, form in FORMS.items()}
    rate = models["stored"].mel.rate
    x = audio.read(sound, rate) if sound else stimulus(models["stored"])
    if not len(x):
        raise ValueError(f"{sound} is empty: nothing of it can be timed")
    loads = interleaved({name: lambda form=form: Model(path, form=form) for name, form in FORMS.items()}, repeats)
    whole = interleaved({name: lambda m=m: _hear(Recognizer(m), x) for name, m in models.items()}, repeats)
    walks = interleaved({name: walk(m.kernels, matrices(m)) for name, m in models.items()}, 10 * repeats)
    rows = []
    for name, model in models.items():
        chunks, first = _latencies(Recognizer(model), x)
        rows.append(
            {
                "form": name,
                "load_ms": 1e3 * loads[name],
                "peak_mb": peak(path, name),
                "rtf": whole[name] / (len(x) / rate),
                "chunk_p50_ms": 1e3 * float(np.percentile(chunks, 50)),
                "chunk_p99_ms": 1e3 * float(np.percentile(chunks, 99)),
                "first_word_s": first,
                "matrices_us": 1e6 * walks[name],
                "matrices_bytes": sum(w.nbytes for w in matrices(model)),
            }
        )
    other = onnxruntime_walk(matrices(models["dense float32"]))
    found = {"kernels": models["stored"].kernels.name, "seconds": len(x) / rate, "forms": rows}
    return found | {"bytes": path.stat().st_size, "onnxruntime_int8_us": other}


def stimulus(model: Model, seconds: float = 20.0) -> np.ndarray:
    """Speech; or frames, for a model whose features are given."""
    if isinstance(model.mel, LogMel):
        return speech(model.mel.rate, seconds)
    rng = np.random.default_rng(0)
    return rng.normal(size=(int(seconds * model.mel.rate), model.mel.bins)).astype(np.float32)


def speech(rate: int, seconds: float = 20.0) -> np.ndarray:
    """A voice that speaks digits, for models whose user gives no recording."""
    style = SimpleNamespace(speed=0.5, pitch=0.5)
    said, own = formants.say(_TEXT * int(1 + seconds / 3), formants.VOICES[0], style)
    said = said[: int(seconds * own)]
    at = np.arange(int(len(said) * rate / own)) * own / rate
    return np.interp(at, np.arange(len(said)), said).astype(np.float32)


def peak(path: Path, name: str) -> float:
    """MB of a process that loads this form and hears something."""
    code = "import sys; from csp.runtime import bench; bench.show_peak(*sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, str(path), name], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def show_peak(path: str, name: str) -> None:
    model = Model(path, form=FORMS[name])
    _hear(Recognizer(model), stimulus(model, 3.0))
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def matrices(model: Any) -> list[Matrix]:
    """Every packed matrix of a network."""
    parts = [model.encoder, model.ctc, model.transducer] if isinstance(model, Model) else [model]
    found, left, seen = [], parts, set[int]()
    while left:
        part = left.pop()
        if isinstance(part, Matrix):
            found.append(part)
        elif isinstance(part, list | tuple):
            left += part
        elif type(part).__module__.startswith("csp.runtime") and id(part) not in seen and hasattr(part, "__dict__"):
            seen.add(id(part))
            left += vars(part).values()
    return found


def walk(kernels: Kernels, found: Sequence[Matrix]) -> Callable[[], None]:
    """One row through every matrix: what a frame costs, but for the rest."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(1, w.inputs)).astype(np.float32) for w in found]

    def once() -> None:
        for w, x in zip(found, rows, strict=True):
            kernels.linear(w, None, x)

    return once


def onnxruntime_walk(found: list[Any], repeats: int = 50) -> float | None:
    """Microseconds that onnxruntime takes for one row through dynamically quantised matrices of these sizes."""
    try:
        import onnxruntime  # pyrefly: ignore  # where it is installed
    except ImportError:
        return None
    from csp.formats.onnx import quantised_product

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    rng = np.random.default_rng(0)
    made = {(w.inputs, w.outputs) for w in found}
    sessions = {
        (i, o): onnxruntime.InferenceSession(
            quantised_product(rng.integers(-127, 128, (i, o)).astype(np.int8)), options, ["CPUExecutionProvider"]
        )
        for i, o in made
    }
    rows = {i: rng.normal(size=(1, i)).astype(np.float32) for i, _ in made}

    def walk() -> None:
        for w in found:
            sessions[w.inputs, w.outputs].run(None, {"x": rows[w.inputs]})

    return 1e6 * interleaved({"": walk}, repeats)[""]


def _hear(recognizer: Recognizer, x: np.ndarray) -> str:
    _accept(recognizer, x)
    return recognizer.finish().text


def _accept(recognizer: Recognizer, x: np.ndarray) -> None:
    recognizer.accept(x) if x.ndim == 1 else recognizer.accept_features(x)


def _latencies(recognizer: Recognizer, x: np.ndarray) -> tuple[list[float], float | None]:
    """Seconds of computing after each chunk; and when the first word is known, as a listener's clock has it."""
    step = max(1, int(CHUNK * recognizer.rate))
    times, first = [], None
    for i in range(0, len(x), step):
        start = time.perf_counter()
        _accept(recognizer, x[i : i + step])
        found = recognizer.result()
        times.append(time.perf_counter() - start)
        if found.words and first is None:
            first = min(i + step, len(x)) / recognizer.rate + times[-1]
    return times, first


def interleaved(tasks: Mapping[Any, Callable[[], Any]], repeats: int) -> dict[Any, float]:
    """The median time of each."""
    times: dict[Any, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(repeats):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(of)) for name, of in times.items()}
