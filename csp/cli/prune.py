"""Makes a trained model sparse: at once, or with more training by a config.

csp prune model.safetensors --sparsity 0.8 -o small.safetensors
csp prune lm.safetensors --structure 12:128 --metric admm --text my.txt -o small.safetensors
csp prune model.safetensors --structure 12:128 --config configs/digits.toml --out-run runs/pruned
"""

import argparse
import json
from pathlib import Path

from csp.cli.tables import amount


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a model file that csp trained, or a run directory")
    parser.add_argument("--sparsity", type=float, metavar="S", help="the share of zeros, between 0 and 1")
    parser.add_argument("--structure", help='"entries", "12:128", "blocks 16x1", ...; entries, or what CONFIG says')
    parser.add_argument("--metric", help="of a language model: fisher, admm, ... by what --text says; magnitude")
    parser.add_argument("--text", type=Path, metavar="FILE", help="of a language model, one sentence a line")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="where to write, without training")
    parser.add_argument("--config", type=Path, metavar="CONFIG", help="train on by this config")
    parser.add_argument("--out-run", type=Path, metavar="DIR", help="the run directory of that training")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(options: argparse.Namespace) -> int:
    from csp.train import export, session

    if (options.config is None) == (options.out is None):
        raise ValueError("give -o FILE to prune at once, or --config CONFIG to train on")
    if options.config is not None:
        if options.overwrite:
            raise ValueError("--overwrite is for -o FILE; a run directory is never replaced: --out-run DIR")
        if options.text is not None:
            raise ValueError("--text is for pruning at once; what is trained on, the config says, or --data.train")
        said = {"target": options.sparsity, "structure": options.structure, "metric": options.metric}
        start = [("train.init", str(options.model))]
        start += [(f"sparsity.{key}", str(value)) for key, value in said.items() if value is not None]
        found = session.train(options.config, options.out_run, [*start, *options.overrides], quiet=options.json)
        path, size = found["file"], found["bytes"]
        rest = (
            f", {found['wer']:.2%} of the words wrong" if "wer" in found else f", perplexity {found['perplexity']:.2f}"
        )
    else:
        structure, metric = options.structure or "entries", options.metric or "magnitude"
        how = (options.sparsity, structure, metric, options.text, options.overwrite)
        found = export.prune(options.model, options.out, *how)
        path, size, before = options.out, found["bytes"], found["bytes_before"]
        rest = f", of {amount(before)}"
        if size >= before:
            rest += ": no smaller, since that has fewer weights, or cheaper ones, already"
    print(json.dumps(found) if options.json else f"{path}: {amount(size)}{rest}")
    return 0
