"""`python -m csp`: a demonstration that needs no data. It trains, prunes, verifies and reports within a minute.

Ten "digits", each a pair of formants that glide through 40 mel bands for 12 frames, are told apart in noise by a
network of
three layers: dense, pruned gradually and pruned by compressed sensing, with the same data, order and steps.
"""

import argparse
import itertools
import time
from functools import partial

import jax
import jax.numpy as jnp
import optax

import csp
from csp import methods, structures

BANDS, FRAMES, DIGITS, BATCH = 40, 12, 10, 64
RULES = (
    csp.Rule("hidden/.*/kernel", structures.n_of_m(8, 128)),
    csp.Rule("output/.*", None),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m csp", description="Train, prune, verify and report, within a minute."
    )
    parser.add_argument("--steps", type=int, default=1_500, help="length of each training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the weights (default: %(default)s)")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps {options.steps}: a training has at least one step")

    print(
        f"Digits of gliding formants, {options.steps:,} steps of {BATCH}; hidden layers keep 8 of every 128 weights.\n"
    )
    plain = optax.adamw(optax.cosine_decay_schedule(2e-3, options.steps), weight_decay=1e-2)
    optimizers = {
        "dense": plain,
        "gradual": csp.sparsify(plain, *RULES, method=methods.gradual(options.steps)),
        "compressed sensing": csp.sparsify(plain, *RULES, method=methods.compressed_sensing(options.steps)),
    }
    print(f"{'':20} {'density':>8} {'error':>8} {'seconds':>8}")
    for name, optimizer in optimizers.items():
        start = time.perf_counter()
        params, state = _train(optimizer, options.steps, options.seed)
        wrong = 1 - _accuracy(params, options.seed)
        density = csp.density(params["hidden"], total=True)
        print(f"{name:20} {density:8.2%} {wrong:8.2%} {time.perf_counter() - start:8.1f}", flush=True)

    csp.verify(params, *RULES)
    print(f"\nThe last one, its budgets verified:\n\n{csp.report(params, state)}\n")
    print(
        "Next: the same in your own loop is one line, tx = csp.sparsify(optax.adamw(1e-3), sparsity=0.9, steps=10_000)."
    )


def _train(optimizer: optax.GradientTransformation, steps: int, seed: int):
    def step(carry, key):
        params, state = carry
        gradients = jax.grad(_loss)(params, *_digits(key, BATCH))
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def run(params, state):
        keys = jax.random.split(jax.random.key(seed), steps)
        return jax.lax.scan(step, (params, state), keys)[0]

    params = _network(jax.random.key(seed + 1))
    return jax.block_until_ready(run(params, optimizer.init(params)))


def _network(key: jax.Array) -> dict:
    sizes = (BANDS * FRAMES, 256, 256, DIGITS)
    layers = [_layer(jax.random.fold_in(key, i), m, n) for i, (m, n) in enumerate(itertools.pairwise(sizes))]
    return {"hidden": layers[:-1], "output": layers[-1]}


def _layer(key: jax.Array, m: int, n: int) -> dict:
    return {"kernel": jax.random.normal(key, (m, n)) * (2 / m) ** 0.5, "bias": jnp.zeros(n)}


def _logits(params: dict, x: jax.Array) -> jax.Array:
    for layer in params["hidden"]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ params["output"]["kernel"] + params["output"]["bias"]


def _loss(params: dict, x: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(_logits(params, x), labels).mean()


@partial(jax.jit, static_argnames="seed")
def _accuracy(params: dict, seed: int) -> jax.Array:
    x, labels = _digits(jax.random.key(seed + 2), 10_000)
    return jnp.mean(jnp.argmax(_logits(params, x), axis=-1) == labels)


def _digits(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Two formants glide between bands that depend on the digit; voices shift them and noise covers them."""
    which, shift, noise = jax.random.split(key, 3)
    labels = jax.random.randint(which, (count,), 0, DIGITS)
    ends = jax.random.uniform(jax.random.key(7), (DIGITS, 2, 2), minval=6.0, maxval=34.0)
    glide = jnp.linspace(0, 1, FRAMES)[:, None]
    tracks = ends[labels][:, None, :, 0] * (1 - glide) + ends[labels][:, None, :, 1] * glide
    tracks = tracks + jax.random.normal(shift, (count, 1, 1)) * 2.0
    energy = jnp.exp(-0.5 * jnp.square(jnp.arange(BANDS)[:, None] - tracks[:, :, None, :])).sum(-1)
    return (energy + 0.9 * jax.random.normal(noise, energy.shape)).reshape(count, -1), labels


if __name__ == "__main__":
    main()
