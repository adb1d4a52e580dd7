"""What does a run look like? Three pictures: quality against size, training, and the density of every layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csp import formats
from csp.train import logs, report

_FORMS = ("o", "s", "^", "D", "*", "v", "P")
_FAR = 20
_COLOURS = ("#0b6e99", "#d95f02", "#2b8a3e", "#9c36b5", "#c92a2a", "#495057", "#e8a400", "#5c7cfa")


class Finished(NamedTuple):
    folder: Path
    report: dict[str, Any]


def find(folders: Sequence[Path]) -> list[Finished]:
    """The finished runs in these folders and right below them."""
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder: name a run directory")
        places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
        found += [Finished(path, said) for path in places if (said := report.read(path)) is not None]
    if not found:
        raise ValueError(f"{folders[0]} holds no finished run: a run that was stopped goes on with csp train --resume")
    if len({"wer" in run.report for run in found}) > 1:
        raise ValueError("runs of recognisers and of language models do not share a picture: name folders of one kind")
    return found


def draw(runs: Sequence[Finished], out: Path) -> list[Path]:
    try:
        import matplotlib
    except ImportError:
        raise ValueError("drawing needs matplotlib: pip install 'csp-jax[speech]'") from None
    matplotlib.use("Agg")
    speech = "wer" in runs[0].report
    return [
        _quality(runs, out / "quality.png") if speech else surprise(runs, out / "quality.png"),
        _training(runs, out / "training.png"),
        _layers(runs[-1], out / "layers.png"),
    ]


def _style(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def _figure(columns: int, height: float = 3.8) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, columns, figsize=(4.8 * columns, height), layout="constrained", squeeze=False)
    return figure, axes[0]


def _save(figure: Any, path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=140)
    plt.close(figure)
    return path


def _quality(runs: Sequence[Finished], path: Path) -> Path:
    """Words wrong with their intervals, against bytes, sparsity and the runtime's time; a colour for each method."""
    models = [model for run in runs for model in run.report["models"]]
    figure, (by_size, by_share, by_time) = _figure(3)
    for colour, method in zip(_COLOURS * 4, sorted({model["method"] for model in models}), strict=False):
        mine = [model for model in models if model["method"] == method]
        y = np.array([100 * model["wer"] for model in mine])
        error = np.array([[100 * (m["wer"] - m["wer_low"]), 100 * (m["wer_high"] - m["wer"])] for m in mine]).T
        share = [0.0 if method == "dense" else 100 * (1 - m["pruned_density"]) for m in mine]
        sizes, times = [m["bytes"] / 1e3 for m in mine], [1e3 * m["rtf"] for m in mine]
        for axes, x in ((by_size, sizes), (by_share, share), (by_time, times)):
            axes.errorbar(x, y, np.maximum(error, 0), fmt="o", color=colour, capsize=2, markersize=5, label=method)
    _style(by_size, "Words wrong against the size of the file", "kB", "WER, %")
    _style(by_share, "Words wrong against sparsity", "zeros in pruned matrices, %", "WER, %")
    _style(by_time, "Words wrong against latency", "ms of one core for a second of sound", "WER, %")
    by_size.set_xscale("log")
    for axes in (by_size, by_share, by_time):
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    return _save(figure, path)


def surprise(runs: Sequence[Finished], path: Path) -> Path:
    """Perplexity against bytes and against the time of a label; a colour for each structure, a form for each way.

    What is far worse than the best would press all others together, and is counted only.
    """
    models = [(run.report["config"], model) for run in runs for model in run.report["models"]]
    worst = _FAR * min(model["perplexity"] for _, model in models)
    shown = [(config, model) for config, model in models if model["perplexity"] <= worst]
    beyond, models = len(models) - len(shown), shown
    figure, (by_size, by_time) = _figure(2, 4.8)
    structures = sorted({model["structure"] for _, model in models})
    ways = sorted({_way(*one) for one in models})
    forms = dict(zip(ways, _FORMS * len(ways), strict=False))
    for axes, key, scale in ((by_size, "bytes", 1e-3), (by_time, "label_us", 1.0)):
        for config, model in models:
            axes.plot(
                model[key] * scale,
                model["perplexity"],
                forms[_way(config, model)],
                color=_COLOURS[structures.index(model["structure"]) % len(_COLOURS)],
                markersize=5,
                alpha=0.75,
            )
        front = pareto([(model[key] * scale, model["perplexity"]) for _, model in models])
        ring = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 0.8}
        axes.step(*zip(*front, strict=True), where="post", color="black", linewidth=0.8, label="Pareto front", **ring)
    label = "perplexity of a word" + (f"; {beyond} beyond {worst:,.0f} left out" if beyond else "")
    _style(by_size, "Perplexity against the size of the file", "kB", label)
    _style(by_time, "Perplexity against the time of a label", "microseconds, one hypothesis", "perplexity of a word")
    for axes in (by_size, by_time):
        axes.set_xscale("log")
        axes.set_yscale("log")
        _numbers(axes.xaxis)
        _numbers(axes.yaxis)
    for structure, colour in zip(structures, _COLOURS, strict=False):
        by_size.plot([], [], "s", color=colour, label=structure)
    for name, form in forms.items():
        by_time.plot([], [], form, color="grey", label=name, linestyle="")
    for axes in (by_size, by_time):
        axes.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return _save(figure, path)


def _numbers(axis: Any) -> None:
    """Few and plain ones along a logarithmic axis, however short it is."""
    from matplotlib import ticker

    low, high = axis.get_view_interval()
    axis.set_major_locator(
        ticker.LogLocator(subs=(1, 2, 5)) if high > 8 * low else ticker.MaxNLocator(5, steps=[1, 2, 5, 10])
    )
    axis.set_major_formatter(lambda x, _: f"{x:,g}")
    axis.set_minor_formatter(ticker.NullFormatter())


def _way(config: dict[str, Any], model: dict[str, Any]) -> str:
    if model["method"] == "dense":
        return "dense"
    if model["method"] != "calibrated":
        return model["method"].replace("_", " ")
    if config["sparsity"]["options"].get("rungs", 1) > 1 or len(config["sparsity"]["targets"]) > 1:
        return "calibrated, in rungs"
    return "calibrated, trained" if model["steps"] else "calibrated"


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats or equals in both numbers, the smaller the better, by the first."""
    front: list[tuple[float, float]] = []
    for point in sorted(set(points)):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _training(runs: Sequence[Finished], path: Path) -> Path:
    figure, (loss, sparsity, valid) = _figure(3)
    for colour, run in zip(_COLOURS * 8, runs, strict=False):
        records = logs.records(run.folder / "metrics.jsonl")
        steps = [r for r in records if "loss" in r]
        heard = [(r["step"], 100 * r["valid_wer"]) for r in records if "valid_wer" in r]
        heard += [(r["step"], r["valid_perplexity"]) for r in records if "valid_perplexity" in r]
        loss.plot(
            [r["step"] for r in steps], [r["loss"] for r in steps], color=colour, linewidth=1, label=run.folder.name
        )
        sparsity.plot([r["step"] for r in steps], [100 * r["sparsity"] for r in steps], color=colour, linewidth=1.5)
        valid.plot(*np.array(heard).reshape(-1, 2).T, "o-", color=colour, markersize=4)
    _style(loss, "Loss for each label", "step", "nats")
    _style(sparsity, "Zeros in matrices", "step", "%")
    speech = "wer" in runs[0].report
    _style(
        valid, f"{'Words wrong' if speech else 'Perplexity'}, validation", "step", "WER, %" if speech else "of a word"
    )
    loss.set_yscale("log")
    if speech:
        valid.set_ylim(bottom=0)
    if len(runs) <= len(_COLOURS):
        loss.legend(frameon=False, fontsize=8)
    return _save(figure, path)


def _layers(run: Finished, path: Path) -> Path:
    """A bar for each matrix: how much of it is not zero, and how many bytes it takes."""
    rows = [row for row in formats.inspect(run.folder / run.report["file"])["tensors"] if len(row["shape"]) > 1]
    names = [row["name"].removeprefix("model/") for row in rows]
    figure, (dense, size) = _figure(2, 1.2 + 0.28 * len(rows))
    dense.barh(names, [100 * row["density"] for row in rows], color=_COLOURS[0])
    size.barh(names, [row["bytes"] / 1e3 for row in rows], color=_COLOURS[1])
    _style(dense, f"Density of each matrix, {run.folder.name}", "% not zero", "")
    _style(size, "Bytes of each matrix", "kB", "")
    for axes in (dense, size):
        axes.invert_yaxis()
    size.set_yticklabels([])
    return _save(figure, path)
