"""FAULTS 50: sound without end. What a stream keeps of it is bounded, and what it hears stays right."""

import jax
import numpy as np
import pytest
import recognisers

from csp.runtime import Recognizer
from csp.runtime.model import Model

STREAMING = [name for name in recognisers.CONFIGS if "whole" not in name]


@pytest.mark.parametrize("name", ["conformer transducer", "conformer ctc"])
def test_after_ten_hours_a_conformer_hears_as_at_first(name, tmp_path):
    """Positions grow, and what they do to a chunk depends on their distances only: JAX's begin at 0."""
    model = recognisers.write(tmp_path / "m.safetensors", recognisers.CONFIGS[name])
    late, x = Model(tmp_path / "m.safetensors"), recognisers.sound(5)
    y = (late.mel(x, energies=late.features) - late.mean) / late.deviation
    state = late.encoder.start() | {"seen": 10 * 3600 * 50}  # frames of 20 ms
    ours = np.concatenate([late.encoder.push(y, state), late.encoder.finish(state)])
    theirs, counts = recognisers.heard(model, x, "encode")
    theirs = np.asarray(theirs)[0, : int(counts[0])]
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("name", STREAMING)
def test_what_is_kept_does_not_grow(name, tmp_path):
    """In odd pieces, searched with two hypotheses; labels apart, which are the answer."""
    recognisers.write(tmp_path / "m.safetensors", recognisers.CONFIGS[name])
    recognizer = Recognizer(tmp_path / "m.safetensors", 2)
    x, sizes = recognisers.sound(5), []
    for _ in range(4):
        for first in range(0, len(x), 12_345):
            recognizer.accept(x[first : first + 12_345])
        waiting = getattr(recognizer._decoder, "_frames", ())  # of a transducer's slowest hypothesis
        sizes.append(sum(np.size(x) for x in jax.tree.leaves([recognizer._state, recognizer._mel._rest, waiting])))
    assert max(sizes) <= 1.2 * sizes[0]
