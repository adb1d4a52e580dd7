"""Training of a small matrix, whose every step a test can foresee."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import csp
from csp import structures

SHAPE = (4, 5)
W = np.random.default_rng(0).permutation(np.arange(1.0, 21.0)).reshape(SHAPE).astype(np.float32)


def run(method, gradients=None, w=W, sparsity=0.5, inner=None, structure=None, steps=None, rule=None):
    """The weights before, and after each step; `gradients(step)` is zero by default. And every state."""
    rule = rule or csp.Rule("w", structure or structures.entries(), sparsity=sparsity)
    tx = csp.sparsify(inner or optax.sgd(1.0), rule, method=method)
    params = {"w": jnp.asarray(w)}
    state = tx.init(params)
    weights, states, update = [np.asarray(params["w"])], [state], jax.jit(tx.update)
    for step in range(method.steps if steps is None else steps):
        gradient = np.zeros(w.shape, np.float32) if gradients is None else gradients(step)
        updates, state = update({"w": jnp.asarray(gradient, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
        weights.append(np.asarray(params["w"]))
        states.append(state)
    return weights, states


def counts(weights) -> list[int]:
    return [int(np.sum(w != 0)) for w in weights]


def largest(k: int, worth=W) -> np.ndarray:
    return worth >= np.sort(worth, axis=None)[-k]
