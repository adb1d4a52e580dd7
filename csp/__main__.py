"""`python -m csp`: a demonstration that trains, prunes, verifies and reports within a minute, and needs no data."""

import argparse
import time

import jax
import jax.numpy as jnp
import optax

import csp
from csp import methods, structures

SYMBOLS, HIDDEN, FRAMES, SECONDS_SHOWN = 11, 96, 24, 0.2
RULES = (
    csp.Rule(".*/bias", None),
    csp.Rule("recurrent/kernel", structures.n_of_m(12, 128)),
    csp.Rule("(input|output)/kernel", structures.entries(), sparsity=0.9),
)


def main() -> None:
    """Trains one network dense, one pruned gradually and one with compressed sensing, on the same noisy sequences."""
    parser = argparse.ArgumentParser(prog="python -m csp", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--steps", type=int, default=1_000, help="length of each training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    steps, seed = parser.parse_args().steps, parser.parse_args().seed
    print(__doc__)
