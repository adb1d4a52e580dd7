"""The ladder: what is not trained is truncated at once, what is trained goes on, every rung is a model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ranked import RUNGS, correlated, normal, random_factors, tail

from csp import lowrank
from csp.lowrank import Factors


def leave(params, fraction):
    return params


def model(seed=0):
    return {
        "encoder": [
            {"kernel": jnp.asarray(normal(12, 10, seed=seed + i), jnp.float32), "bias": jnp.ones(10)} for i in range(2)
        ],
        "taps": jnp.asarray(normal(3, 12, 10, seed=seed + 2), jnp.bfloat16),
        "output": jnp.asarray(normal(10, 8, seed=seed + 3), jnp.float32),
    }


class TestLadder:
    def test_every_rung_keeps_its_budget_and_touches_nothing_else(self):
        params = model()
        total = 4 * 2 * 12 * 10 + 2 * 3 * 12 * 10
        previous = None
        for rung, fraction in zip(lowrank.ladder(params, RUNGS, leave, "encoder/.*|taps"), RUNGS, strict=True):
            assert rung.fraction == fraction
            assert rung.bytes <= fraction * total
            selected = [layer["kernel"] for layer in rung.params["encoder"]] + [rung.params["taps"]]
            assert rung.bytes == sum(x.nbytes for x in jax.tree.leaves(selected))
            assert list(rung.ranks) == ["encoder/0/kernel", "encoder/1/kernel", "taps"]
            for w, rank in zip(selected, rung.ranks.values(), strict=True):
                assert w.rank == rank if isinstance(w, Factors) else rank == min(w.shape[-2:])
            assert rung.params["taps"].dtype == jnp.bfloat16
            assert rung.params["output"] is params["output"]
            assert rung.params["encoder"][0]["bias"] is params["encoder"][0]["bias"]
            if previous:
                assert rung.bytes < previous.bytes
                assert all(rung.ranks[path] <= rank for path, rank in previous.ranks.items())
            previous = rung

    @pytest.mark.parametrize("whitened", [False, True])
    def test_without_training_it_equals_truncation_at_once(self, x64, whitened):
        params = {name: jnp.asarray(normal(12, 10, seed=i)) for i, name in enumerate("ab")}
        x = correlated(60, 12)
        gram = {"a": x.T @ x, "b": np.sum(x**2, 0)} if whitened else None
        for rung in lowrank.ladder(params, RUNGS, leave, "[ab]", gram):
            for path, rank in rung.ranks.items():
                at_once = (
                    lowrank.factor_whitened(params[path], rank, gram[path])
                    if gram
                    else lowrank.factor(params[path], rank)
                )
                if rank < 10:
                    np.testing.assert_allclose(lowrank.dense(rung.params[path]), lowrank.dense(at_once), atol=1e-8)

    def test_ranks_do_not_depend_on_the_scale_of_a_tensor(self):
        params = {name: jnp.asarray(normal(12, 10, seed=i), jnp.float32) for i, name in enumerate("ab")}
        scaled = params | {"b": 1000 * params["b"]}
        for one, other in zip(*(lowrank.ladder(p, RUNGS, leave, ".") for p in (params, scaled)), strict=True):
            assert one.ranks == other.ranks

    def test_embeddings_outputs_and_depthwise_kernels_are_left_alone_by_default(self):
        params = {"embedding": jnp.ones((30, 8)), "depthwise": jnp.ones((5, 1, 8)), **model()}
        rung = next(lowrank.ladder(params, (0.5,), leave))
        assert set(rung.ranks) == {"encoder/0/kernel", "encoder/1/kernel", "taps"}

    def test_a_ladder_can_be_taken_up_again(self, x64):
        params = {"w": jnp.asarray(normal(12, 10))}
        whole = list(lowrank.ladder(params, RUNGS, leave, "w"))
        again = list(lowrank.ladder(whole[0].params, RUNGS[1:], leave, "w"))
        for one, other in zip(whole[1:], again, strict=True):
            assert (one.ranks, one.bytes) == (other.ranks, other.bytes)
            np.testing.assert_allclose(lowrank.dense(one.params["w"]), lowrank.dense(other.params["w"]), atol=1e-10)

    def test_fine_tuning_a_student_of_a_linear_teacher(self):
        x = correlated(256, 24)
        x = jnp.asarray(x / np.std(x, 0), jnp.float32)
        y = x @ jnp.asarray(normal(24, 16, seed=9), jnp.float32)

        def loss(params):
            return jnp.mean(jnp.square(lowrank.apply(x, params["kernel"]) - y))

        @jax.jit
        def tune(params, fraction):
            tx = optax.adam(optax.cosine_decay_schedule(3e-2, 500))

            def step(carry, _):
                params, state = carry
                updates, state = tx.update(jax.grad(loss)(params), state)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(step, (params, tx.init(params)), length=500)[0][0]

        params = {"kernel": jnp.linalg.lstsq(x, y)[0]}
        untuned = [float(loss(rung.params)) for rung in lowrank.ladder(params, RUNGS, leave, "kernel")]
        tuned = list(lowrank.ladder(params, RUNGS, tune, "kernel"))
        losses = [float(loss(rung.params)) for rung in tuned]
        optimum = [float(tail(np.asarray(y), rung.ranks["kernel"])) / y.size for rung in tuned]
        assert (untuned, losses) == (sorted(untuned), sorted(losses))
        for bound, after, before in zip(optimum, losses, untuned, strict=True):
            assert 0.99 * bound - 1e-6 <= after < 0.8 * before

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"rungs": (0.5, 0.8)}, "must descend"),
            ({"rungs": (0.5, 0.5)}, "must descend"),
            ({"rungs": (1.0, 0.5)}, r"each in \(0, 1\)"),
            ({"rungs": ()}, r"each in \(0, 1\)"),
            ({"rungs": (0.5, 0.05)}, r"the smallest possible fraction of the dense bytes is 0\.1"),
            ({"select": "encodr/.*"}, "matches no matrix; the nearest are encoder/"),
            ({"select": ".*bias"}, "matches no matrix"),
            ({"gram": {"encoder/0/kernel": jnp.ones(12)}}, r"no Gram matrix for \['encoder/1/kernel'\]"),
        ],
    )
    def test_bad_arguments_are_refused_at_the_call(self, changes, match):
        arguments = {"rungs": RUNGS, "tune": leave, "select": "encoder/.*"} | changes
        with pytest.raises(ValueError, match=match):
            lowrank.ladder(model(), **arguments)

    def test_a_single_rung_misses_no_gram_matrix_unnoticed(self):
        with pytest.raises(ValueError, match=r"no Gram matrix for \['encoder/1/kernel'\]"):
            lowrank.descend(model(), 0.8, "encoder/.*", {"encoder/0/kernel": jnp.ones(12)})

    def test_a_tune_that_returns_something_else_is_refused(self):
        with pytest.raises(ValueError, match="tune must return the parameters"):
            next(lowrank.ladder(model(), RUNGS, lambda params, fraction: None, "encoder/.*"))

    def test_factors_that_save_nothing_are_refused(self):
        with pytest.raises(ValueError, match=r"rank 5 of 'w' .* save nothing"):
            lowrank.ladder({"w": random_factors(8, 8, k=5)}, RUNGS, leave, "w")
