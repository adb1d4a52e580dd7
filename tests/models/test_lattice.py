"""The transducer's loss: against every alignment written out, against differences, and at its edges (FAULTS 26, 27)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csp.models import lattice


def every_path(blank, label, T, U) -> float:
    """log of the sum over all orders of T - 1 blanks and U labels, and a last blank."""
    total = -np.inf
    for labels in itertools.combinations(range(T + U - 1), U):
        t = u = 0
        said = 0.0
        for move in range(T + U - 1):
            if move in labels:
                said, u = said + label[t, u], u + 1
            else:
                said, t = said + blank[t, u], t + 1
        total = np.logaddexp(total, said + blank[T - 1, U])
    return total


def scores(B, T, U, K=5, seed=0):
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(K), size=(B, T, U + 1))).astype(np.float32)
    return log_probs[..., 0], log_probs[:, :, :-1, 1]


T_B = np.array([6, 1, 3, 5, 1, 6])
U_B = np.array([4, 4, 0, 1, 0, 2])


def test_all_paths_are_summed():
    blank, label = scores(6, 6, 4)
    found = lattice.log_likelihood(jnp.asarray(blank), jnp.asarray(label), jnp.asarray(T_B), jnp.asarray(U_B))
    right = [every_path(blank[i], label[i], T_B[i], U_B[i]) for i in range(6)]
    assert np.allclose(found, right, rtol=1e-5)


def test_the_gradient_is_that_of_the_sum():
    """The probability of passing each arc, from the paths themselves, in float64."""
    blank, label = (x.astype(np.float64) for x in scores(6, 6, 4))

    def total(blank, label):
        return lattice.log_likelihood(blank, label, jnp.asarray(T_B), jnp.asarray(U_B)).sum()

    of_blank, of_label = jax.grad(total, (0, 1))(jnp.asarray(blank, jnp.float32), jnp.asarray(label, jnp.float32))
    for row in range(6):
        for t, u in itertools.product(range(6), range(5)):
            for x, found in ((blank, of_blank), (label, of_label)):
                if u >= x.shape[2]:
                    continue
                sides = []
                for change in (1e-6, -1e-6):
                    x[row, t, u] += change
                    sides.append(every_path(blank[row], label[row], T_B[row], U_B[row]))
                    x[row, t, u] -= change
                assert found[row, t, u] == pytest.approx((sides[0] - sides[1]) / 2e-6, abs=2e-4)


def test_padding_is_never_read():
    """FAULTS 26."""
    blank, label = scores(6, 6, 4)
    outside = (np.arange(6)[:, None] >= T_B[:, None, None]) | (np.arange(5) > U_B[:, None, None])
    for filler in (np.nan, 1e30, -np.inf):
        loud = np.where(outside, filler, blank)
        louder = np.where(outside[:, :, :-1] | (np.arange(4) >= U_B[:, None, None]), filler, label)
        of = jax.value_and_grad(
            lambda b, k: lattice.log_likelihood(b, k, jnp.asarray(T_B), jnp.asarray(U_B)).sum(), (0, 1)
        )
        quiet_value, quiet = of(jnp.asarray(blank), jnp.asarray(label))
        value, grads = of(jnp.asarray(loud), jnp.asarray(louder))
        assert value == quiet_value
        assert all(np.array_equal(a, b) for a, b in zip(grads, quiet, strict=True))


def test_no_frames_weigh_nothing():
    """FAULTS 27."""
    blank, label = scores(2, 3, 2)
    of = jax.value_and_grad(
        lambda b: lattice.log_likelihood(b, jnp.asarray(label), jnp.array([0, 0]), jnp.array([0, 2])).sum()
    )
    value, grad = of(jnp.asarray(blank))
    assert value == 0
    assert not np.asarray(grad).any()


@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_the_fused_joint_is_the_plain_one(chunk):
    rng = np.random.default_rng(0)
    h, g = jnp.asarray(rng.normal(size=(3, 7, 8)), jnp.float32), jnp.asarray(rng.normal(size=(3, 5, 8)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(8, 6)), jnp.float32)
    labels, T, U = jnp.asarray(rng.integers(1, 6, (3, 4))), jnp.array([7, 2, 5]), jnp.array([4, 1, 0])

    def fused(h, g, w):
        return lattice.joint_likelihood(lambda h, g: jnp.tanh(h + g) @ w, h, g, labels, T, U, chunk).sum()

    def plain(h, g, w):
        log_probs = jax.nn.log_softmax(jnp.tanh(h[:, :, None] + g[:, None]) @ w)
        picked = jnp.take_along_axis(log_probs[:, :, :-1], labels[:, None, :, None], -1)[..., 0]
        return lattice.log_likelihood(log_probs[..., 0], picked, T, U).sum()

    ours, theirs = (jax.value_and_grad(f, (0, 1, 2))(h, g, w) for f in (fused, plain))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_joint_that_knows_only_the_next_label_is_ctc_like_at_one_frame():
    """One frame: the labels in order, then a blank; there is one path."""
    blank, label = scores(1, 1, 3)
    found = lattice.log_likelihood(jnp.asarray(blank), jnp.asarray(label), jnp.array([1]), jnp.array([3]))
    assert found[0] == pytest.approx(label[0, 0].sum() + blank[0, 0, 3], rel=1e-6)


def test_bfloat16_scores_are_summed_in_float32():
    blank, label = scores(1, 40, 10)
    low = [jnp.asarray(x, jnp.bfloat16) for x in (blank, label)]
    found = lattice.log_likelihood(*low, jnp.array([40]), jnp.array([10]))
    right = lattice.log_likelihood(*(x.astype(jnp.float32) for x in low), jnp.array([40]), jnp.array([10]))
    assert found.dtype == jnp.float32
    assert found[0] == right[0]
