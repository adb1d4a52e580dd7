"""Is a ladder of ranks better than going down at once? Incremental low rank against one-shot, at every size.

First a dense model: csp train configs/lm.toml --decode.values f32. The ladder fine-tunes `--steps` at every rung and
goes on from there; "one shot" factors the dense model for that size alone and fine-tunes as long as one rung, "one
shot, as long" as long as the ladder has needed until there. Both are given the same ranks' budgets, batches and rates.
The difference is that of nats per word, its interval a paired bootstrap over the test's sentences.
"""

import argparse
import json
from pathlib import Path

from _timing import save, show

from csp.train import config, kinds, language, session
from csp.train.perplexity import difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/lm_grid.toml"))
    parser.add_argument("--init", type=Path, default=Path("runs/lm/model.safetensors"))
    parser.add_argument("--metric", default="second_order", help="magnitude, fisher, activation or second_order")
    parser.add_argument("--targets", default="0.2,0.4,0.6,0.75,0.85", help="fractions of the bytes saved")
    parser.add_argument("--steps", type=int, default=100, help="of fine-tuning at each rung")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--runs", type=Path, default=Path("runs/lm_ladder"))
    parser.add_argument("--out", type=Path, default=Path("results/lm_ladder.json"))
    chosen, rest = parser.parse_known_args()
    if not chosen.init.is_file():
        parser.error(f"{chosen.init} is no file: csp train configs/lm.toml --decode.values f32, or --init another")
    more = [(key.removeprefix("--"), value) for key, value in zip(rest[::2], rest[1::2], strict=True)]
    targets, records = [float(t) for t in chosen.targets.split(",")], []
    for seed in chosen.seeds.split(","):
        said = [("train.init", json.dumps(str(chosen.init))), ("sparsity.structure", "rank"), ("train.seed", seed)]
        said += [("sparsity.method", "calibrated"), ("sparsity.metric", chosen.metric), *more]
        records += _family(chosen, said, targets, int(seed))
    columns = ["target", "seed", "bytes", "ladder", "one_shot", "as_long", "less_than_one_shot", "low", "high"]
    show(records, [*columns, "less_than_as_long", "as_long_low", "as_long_high"])
    save(records, chosen.out)


def _family(chosen: argparse.Namespace, said: list[tuple[str, str]], targets: list[float], seed: int) -> list[dict]:
    runs, steps, name = chosen.runs, chosen.steps, f"{chosen.metric}-{seed}"
    found = _run(chosen.config, runs / f"ladder-{name}", said, targets, steps * len(targets))
    read = config.read(chosen.config, [*said, ("sparsity.targets", json.dumps(targets))])
    data = kinds.of(read).prepare(read, runs)
    task = language.Language(read, data.inputs)
    records = []
    for number, (target, model) in enumerate(zip(targets, found["models"], strict=True), 1):
        once = _run(chosen.config, runs / f"once-{target}-{name}", said, [target], steps)
        way = "long" if number > 1 else "once"  # the first rung's are the same
        long = _run(chosen.config, runs / f"{way}-{target}-{name}", said, [target], steps * number)
        files = [runs / f"ladder-{name}" / model["file"]]
        files += [runs / f"{which}-{target}-{name}" / "model.safetensors" for which in ("once", way)]
        ours, theirs, as_long = (task.score(path, data.test) for path in files)
        records.append(
            {
                "target": target,
                "seed": seed,
                "metric": chosen.metric,
                "steps": steps,
                "bytes": model["bytes"],
                "one_shot_bytes": once["bytes"],
                "ladder": model["perplexity"],
                "one_shot": once["perplexity"],
                "as_long": long["perplexity"],
                **dict(zip(("less_than_one_shot", "low", "high"), difference(ours, theirs), strict=True)),
                **dict(
                    zip(("less_than_as_long", "as_long_low", "as_long_high"), difference(ours, as_long), strict=True)
                ),
            }
        )
    return records


def _run(recipe: Path, out: Path, said: list[tuple[str, str]], targets: list[float], steps: int) -> dict:
    if (out / "report.json").exists():
        return json.loads((out / "report.json").read_text())
    more = [*said, ("sparsity.targets", json.dumps(targets)), ("train.steps", str(steps)), ("sweep", "[]")]
    return session.train(recipe, out, more, resume=(out / "config.toml").exists())


if __name__ == "__main__":
    main()
