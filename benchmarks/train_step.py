"""How many utterances a second does training eat? A dense step, a csp step, the same LSTM in PyTorch, the input.

Targets: csp over dense >= 0.95, over many steps, refreshes included; the input at least five times as fast as the step,
also where the recordings do not fit into memory and are decoded again for every batch.
The model is that of configs/fsdd.toml; PyTorch's part is left out where it is not installed.
"""

import itertools
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import soundfile
from _timing import options, save, show

from csp import models
from csp.speech.manifest import Utterance
from csp.speech.tokens import Tokens
from csp.train import config, corpus, modelfile, objective, pruning, step
from csp.train.corpus import Corpus

BATCH, SECONDS, LABELS, VOCABULARY = 16, 2.5, 6, 11
FILES = {"wav": {}, "flac": {}, "opus": {"format": "OGG", "subtype": "OPUS"}}


def main() -> None:
    chosen = options(__doc__, "train_step")
    read = config.read("configs/fsdd.toml")
    blocks = 3 if chosen.quick else 9
    batches = corpus.Batches(_corpus(256), BATCH, 1, 0)
    ways = {"dense": _way(read, batches, "dense"), "csp": _way(read, batches, read.sparsity.method)}
    torch = _torch(read)
    if torch is not None:
        ways["torch"] = torch
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(blocks):
        for name, run in ways.items():
            rates[name].append(run())
    found = {name: float(np.median(many)) for name, many in rates.items()}
    found["pipeline"] = _pipeline(batches)
    found |= {f"pipeline, {name} on disk": _from_disk(read, name) for name in FILES}
    records = [
        {"what": name, "utterances_per_second": rate, "over_dense": rate / found["dense"]}
        for name, rate in found.items()
    ]
    show(records, ["what", "utterances_per_second", "over_dense"])
    save(records, chosen.out)


def _corpus(count: int) -> Corpus:
    rng = np.random.default_rng(0)
    audio = [(3000 * rng.normal(size=int(8000 * SECONDS))).astype(np.int16) for _ in range(count)]
    labels = [rng.integers(1, VOCABULARY, LABELS).tolist() for _ in range(count)]
    return Corpus([Utterance(None, "", str(i), duration=SECONDS) for i in range(count)], audio, labels, {})  # type: ignore[arg-type]


def _way(read, batches, method: str, steps: int = 40):
    """A call that takes `steps` steps in the middle of training and returns utterances a second."""
    read = replace(read, sparsity=replace(read.sparsity, method=method), data=replace(read.data, noise=()))
    structure, params = models.create(read.model, read.features.bins, VOCABULARY)
    setup = modelfile.setup(
        read, structure, np.zeros(read.features.bins, np.float32), np.ones(read.features.bins, np.float32)
    )
    tx = step.optimizer(read, read.train.steps, pruning.rules_of(read.sparsity, params, read.sparsity.target))
    take = jax.jit(step.make(partial(objective.loss, setup), read.train, tx), donate_argnums=0)
    holder = [step.start(params, tx, read)]
    positions = itertools.count()

    def some(count: int) -> None:
        for _ in range(count):
            holder[0], _ = take(holder[0], batches.at(next(positions)))
        jax.block_until_ready(holder[0])

    some(read.train.steps // 10)  # past the dense beginning

    def run() -> float:
        start = time.perf_counter()
        some(steps)
        return steps * BATCH / (time.perf_counter() - start)

    return run


def _torch(read, steps: int = 40):
    """The encoder and the CTC loss alone on ready features: less work than ours, which computes features and masks."""
    try:
        import torch
    except ImportError:
        return None
    m, frames = read.model, int(SECONDS * 100) // read.model.stack
    lstms = torch.nn.ModuleList(
        [
            torch.nn.LSTM(w, m.width, batch_first=True)
            for w in (read.features.bins * m.stack, *[m.width] * (m.layers - 1))
        ]
    )
    norms = torch.nn.ModuleList([torch.nn.LayerNorm(m.width) for _ in lstms])
    output = torch.nn.Linear(m.width, VOCABULARY)
    every = [*lstms.parameters(), *norms.parameters(), *output.parameters()]
    optimizer = torch.optim.AdamW(every, lr=1e-3)
    x = torch.randn(BATCH, frames, read.features.bins * m.stack)
    y = torch.randint(1, VOCABULARY, (BATCH, LABELS))
    sizes = torch.full((BATCH,), frames), torch.full((BATCH,), LABELS)

    def run() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            h = x
            for lstm, norm in zip(lstms, norms, strict=True):
                out = norm(lstm(h)[0])
                h = out + h if out.shape == h.shape else out
            loss = torch.nn.functional.ctc_loss(output(h).log_softmax(-1).transpose(0, 1), y, *sizes)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(every, 5.0)
            optimizer.step()
        return steps * BATCH / (time.perf_counter() - start)

    return run


def _from_disk(read, name: str, count: int = 256) -> float:
    """As `_pipeline`, of files that are not kept in memory."""
    made = _corpus(count)
    with tempfile.TemporaryDirectory() as folder:
        lines = ["path\ttext"]
        for number, x in enumerate(made.audio):
            soundfile.write(f"{folder}/{number}.{name}", x, read.features.rate, **FILES[name])
            lines.append(f"{number}.{name}\tONE TWO")
        manifest = Path(folder, "manifest.tsv")
        manifest.write_text("\n".join(lines) + "\n")
        here = replace(read, data=replace(read.data, memory=0))
        found = corpus.load(str(manifest), "", here, Tokens("words", ("ONE", "TWO")), training=True)
        return _pipeline(corpus.Batches(found, BATCH, 1, 0), 100)


def _pipeline(batches, count: int = 2000) -> float:
    start = time.perf_counter()
    for position in range(count):
        batches.at(position)
    return count * BATCH / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
