"""The newcomer's recipe keeps its promises; all of the largest takes steps on real speech, where that is there."""

import csv
import time
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
    found = session.train(ROOT / "configs" / "librispeech_960.toml", tmp_path / "run", overrides, quiet=True)
    assert found["parameters"] > 100e6
    assert found["steps"] == 2
    assert np.isfinite(found["wer"])


@pytest.mark.slow
def test_a_newcomer_has_a_recogniser_in_eight_minutes(tmp_path):
    """On two cores that do nothing else."""
    pytest.importorskip("espeakng_loader", reason="the demo extra is not installed")
    start = time.monotonic()
    found = session.train(ROOT / "configs" / "digits.toml", tmp_path / "run", [], quiet=True)
    assert time.monotonic() - start < 8 * 60
    assert found["wer"] < 0.05
    assert found["pruned_density"] == 12 / 128
    assert found["bytes"] < found["dense_bytes"] / 10
