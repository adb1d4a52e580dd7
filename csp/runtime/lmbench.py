"""How fast does a language model run here, label by label? As it is stored, and against its own dense forms.

A label is a step with a past of CONTEXT labels: for one hypothesis, and for eight that a search asks about at once.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from csp.runtime.bench import FORMS, interleaved, matrices, onnxruntime_walk, walk
from csp.runtime.lm import LanguageModel, Past

CONTEXT = 24
AT_ONCE = (1, 8)


def measure(path: Path, repeats: int = 5) -> dict[str, Any]:
    """Plain JSON: a row for each form; times are medians of interleaved repetitions."""
    models = {name: LanguageModel(path, form=form) for name, form in FORMS.items()}
    loads = interleaved(
        {name: lambda form=form: LanguageModel(path, form=form) for name, form in FORMS.items()}, repeats
    )
    steps = {(n, name): step(model, n) for name, model in models.items() for n in AT_ONCE}
    times = interleaved(steps, 10 * repeats)
    walks = interleaved({name: walk(model.kernels, matrices(model)) for name, model in models.items()}, 10 * repeats)
    rows = [
        {
            "form": name,
            "load_ms": 1e3 * loads[name],
            "matrices_bytes": sum(w.nbytes for w in matrices(model)),
            "matrices_us": 1e6 * walks[name],
            "label_us": 1e6 * times[1, name],
            "labels_per_second": 1 / times[1, name],
            "beam_us": 1e6 * times[8, name],
            "beam_labels_per_second": 8 / times[8, name],
        }
        for name, model in models.items()
    ]
    other = onnxruntime_walk(matrices(models["dense float32"]))
    found = {"kernels": models["stored"].kernels.name, "forms": rows, "context": CONTEXT}
    return found | {"bytes": path.stat().st_size, "onnxruntime_int8_us": other}


def latency(path: Path, repeats: int = 100) -> float:
    """Microseconds of a label of one hypothesis, as the model is stored: the fastest tenth, whatever else runs."""
    call, times = step(LanguageModel(path), 1), []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.quantile(times, 0.1))


def step(model: LanguageModel, count: int) -> Callable[[], Any]:
    past = _past(model)
    labels = [1 + i % (model.tokens.size - 1) for i in range(count)]
    return lambda: model.after(labels, [past] * count)


def _past(model: LanguageModel) -> Past:
    rng, past = np.random.default_rng(0), model.start()
    for label in rng.integers(1, model.tokens.size, CONTEXT).tolist():
        ((_, past),) = model.after([label], [past])
    return past
