"""Matrices and factors to test ranks with, in float64 by NumPy, and what is known of them."""

import jax
import jax.numpy as jnp
import numpy as np

from csp import lowrank
from csp.lowrank import Factors

SHAPES = [(9, 6), (6, 9), (2, 3, 8, 5)]
RUNGS = (0.8, 0.5, 0.2)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def correlated(samples, n_in, seed=1):
    """Inputs whose Gram matrix has a condition number of about 1e5."""
    return normal(samples, n_in, seed=seed) * np.geomspace(3, 0.01, n_in) @ normal(n_in, n_in, seed=seed + 1)


def random_factors(*shape, k, seed=0):
    *lead, n_in, n_out = shape
    return Factors(jnp.asarray(normal(*lead, n_in, k, seed=seed)), jnp.asarray(normal(*lead, k, n_out, seed=seed + 1)))


def singular_values(w):
    return np.linalg.svd(w, compute_uv=False)


def tail(w, rank):
    return np.sum(singular_values(w)[..., rank:] ** 2, -1)


def squared_error(w, factors, x=None):
    gap = np.asarray(w) - np.asarray(lowrank.dense(factors))
    return np.sum((gap if x is None else x @ gap) ** 2, (-2, -1))


def assert_balanced(factors, atol=1e-10):
    s = singular_values(lowrank.dense(factors))[..., : factors.rank]
    diagonal = s[..., None] * np.eye(factors.rank)
    np.testing.assert_allclose(factors.u.mT @ factors.u, diagonal, atol=atol)
    np.testing.assert_allclose(factors.v @ factors.v.mT, diagonal, atol=atol)


def like(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)
