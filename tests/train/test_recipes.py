"""The largest recipe takes steps on real speech, where that is there: its widths, its input, two of its 17 blocks."""

import csv
from pathlib import Path

import numpy as np
import pytest

from csp.train import session

ROOT = Path(__file__).parent.parent.parent
MINI = ROOT.parent / "shared" / "data" / "librispeech_mini"


@pytest.mark.slow
@pytest.mark.skipif(not MINI.is_dir(), reason="../shared/data/librispeech_mini is not there")
def test_the_960_hours_recipe_takes_a_step_on_the_mini_set(tmp_path):
    with (MINI / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file, delimiter="\t"), key=lambda row: int(row["samples"]))[:12]
    lines = ["split\tpath\ttext"]
    for i, row in enumerate(rows):
        lines.append(f"{('train', 'valid', 'test')[max(0, i - 9)]}\t{MINI / row['path']}\t{row['text']}")
    manifest = tmp_path / "manifest.tsv"
    manifest.write_text("\n".join(lines) + "\n")
    where = f'"{manifest}"'
    overrides = [("data.train", where), ("data.valid", where), ("data.test", where), ("data.pieces", "48")]
    overrides += [("data.train_split", '"train"'), ("data.valid_split", '"valid"'), ("data.test_split", '"test"')]
    overrides += [("train.steps", "2"), ("train.batch", "4"), ("data.buckets", "1"), ("train.checkpoint_every", "1")]
    overrides += [("model.layers", "2")]  # 17 take a quarter of an hour to compile on two cores
    found = session.train(ROOT / "configs" / "librispeech_960.toml", tmp_path / "run", overrides, quiet=True)
    assert found["parameters"] > 10e6
    assert found["steps"] == 2
    assert np.isfinite(found["wer"])
