"""What do the transducer's loss and its gradient cost? Time and temporary memory, beside the plain way.

The plain way forms the logits of all frames, labels and units at once, normalises them, and scans the lattice frame by
frame in the log semiring, with automatic differentiation. Targets at B = 16, T = 200, U = 40, V = 512: a third of its
memory, and no slower.
"""

import jax
import jax.numpy as jnp
from _timing import compiled, medians, options, save, show

from csp.models import lattice


def main() -> None:
    chosen = options(__doc__, "transducer_loss")
    sizes = [(4, 50, 10, 64), (16, 200, 40, 512)] if not chosen.quick else [(4, 50, 10, 64)]
    records = [record for size in sizes for record in _records(*size, rounds=3 if chosen.quick else 7)]
    show(records, ["size", "way", "seconds", "time_ratio", "memory_mb", "memory_ratio", "loss_difference"])
    save(records, chosen.out)


def _records(B: int, T: int, U: int, V: int, rounds: int, D: int = 128) -> list[dict]:
    keys = jax.random.split(jax.random.key(0), 4)
    h, g = jax.random.normal(keys[0], (B, T, D)), jax.random.normal(keys[1], (B, U + 1, D))
    w = 0.1 * jax.random.normal(keys[2], (D, V))
    labels = jax.random.randint(keys[3], (B, U), 1, V)
    frames, counts = jnp.full(B, T) - jnp.arange(B) % 7, jnp.full(B, U) - jnp.arange(B) % 5

    def fused(h, g, w):
        return -lattice.joint_likelihood(lambda h, g: jnp.tanh(h + g) @ w, h, g, labels, frames, counts).sum()

    def plain(h, g, w):
        log_probs = jax.nn.log_softmax(jnp.tanh(h[:, :, None] + g[:, None]) @ w)
        return -_plain_lattice(log_probs, labels, frames, counts).sum()

    steps = {
        name: compiled(jax.value_and_grad(f, (0, 1, 2)), h, g, w) for name, f in (("fused", fused), ("plain", plain))
    }
    seconds = medians({name: lambda step=step: step(h, g, w) for name, step in steps.items()}, rounds)
    memory = {name: step.memory_analysis().temp_size_in_bytes for name, step in steps.items()}
    losses = {name: float(step(h, g, w)[0]) for name, step in steps.items()}
    return [
        {
            "size": f"B={B} T={T} U={U} V={V}",
            "way": name,
            "seconds": seconds[name],
            "time_ratio": seconds[name] / seconds["plain"],
            "memory_mb": memory[name] / 1e6,
            "memory_ratio": memory[name] / memory["plain"],
            "loss_difference": abs(losses[name] / losses["plain"] - 1),
        }
        for name in steps
    ]


def _plain_lattice(log_probs_BxTxVxK, labels_BxU, frames_B, counts_B):
    """alpha frame by frame; within a frame, labels one after the other."""
    blank = log_probs_BxTxVxK[..., 0]
    label = jnp.take_along_axis(log_probs_BxTxVxK[:, :, :-1], labels_BxU[:, None, :, None], -1)[..., 0]

    def climb(start_BxV, label_BxU):
        def up(alpha_B, at):
            arrived_B, said_B = at
            alpha_B = jnp.logaddexp(alpha_B + said_B, arrived_B)
            return alpha_B, alpha_B

        first = start_BxV[:, 0]
        _, rest = jax.lax.scan(up, first, (start_BxV[:, 1:].T, label_BxU.T))
        return jnp.concatenate([first[:, None], rest.T], 1)

    def frame(alpha_BxV, at):
        blank_BxV, label_BxU = at
        alpha_BxV = climb(alpha_BxV, label_BxU)
        return alpha_BxV + blank_BxV, alpha_BxV + blank_BxV

    start = jnp.full(blank[:, 0].shape, -1e30).at[:, 0].set(0.0)
    _, after_TxBxV = jax.lax.scan(frame, start, (jnp.swapaxes(blank, 0, 1), jnp.swapaxes(label, 0, 1)))
    return after_TxBxV[frames_B - 1, jnp.arange(len(frames_B)), counts_B]


if __name__ == "__main__":
    main()
