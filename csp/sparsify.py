"""The optax transformation: any optimizer, any rules, any method, one update.

    tx = csp.sparsify(optax.adamw(1e-3), sparsity=0.9, steps=10_000)

A step costs the inner optimizer's, at most a byte a weight and whatever the method's iterate needs. Everything that
looks at a whole tensor (thresholds, counts, scores) happens on refreshes only, in one branch of a `lax.cond`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from csp import driver, methods, moments, placement, rules, schedules, views
from csp import nonfinite as nonfinite_
from csp.methods import Method
from csp.rules import Rule

if TYPE_CHECKING:
    import optax


def sparsify(
    inner: optax.GradientTransformation,
    *rules_: Rule,
    method: Method | None = None,
    sparsity: float | schedules.Schedule | None = None,
    steps: int | None = None,
    nonfinite: str = "drop",
) -> optax.GradientTransformationExtraArgs:
    """Wraps a complete optimizer (its learning rate included) so that training ends exactly on the rules' budgets.

    The update u of the inner optimizer becomes prox(w + u) - w, computed so that `optax.apply_updates` lands on exactly
    +0.0 where a weight is pruned. `optax.MultiSteps`, averaging and the like go around the whole.

    Args:
      inner: any optax optimizer.
      *rules_: which parameters are pruned how; the first whose pattern matches a parameter's whole path wins. None:
        every matrix that is not an embedding, an output layer or a positional term, entry by entry.
      method: how the weights get there; `methods.compressed_sensing(steps)` by default.
      sparsity: the final fraction of zeros, for rules that do not say.
      steps: the length of training in updates, where no `method` says it; within `optax.MultiSteps(..., k)` it is one
        for k batches.
      nonfinite: what becomes of NaN and infinite gradients. "drop" takes them entry by entry as zero, which is free
        (an `optax.apply_if_finite` inside is shown them, and does its own);
        "skip" leaves parameters and state as they are for a step with any of them, and counts it; "raise" raises, under
        `jit` as the runtime's error that quotes ours.

    Returns:
      An optax transformation; `update` needs `params`, and passes other keyword arguments on.

    >>> import jax, optax
    >>> import jax.numpy as jnp
    >>> from csp import structures
    >>> tx = sparsify(optax.adam(1e-3), Rule("w", structures.entries(), sparsity=0.75), method=methods.one_shot(2))
    >>> params = {"w": jnp.arange(1.0, 5.0).reshape(2, 2), "b": jnp.ones(2)}
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    ...     params = optax.apply_updates(params, updates)
    >>> params["w"].tolist()
    [[0.0, 0.0], [0.0, 4.0]]
    """
    import optax  # here, not above: `import csp` should not take much longer than `import jax`

    method = _method(method, steps)
    if nonfinite not in nonfinite_.POLICIES:
        raise ValueError(f"nonfinite is one of {', '.join(map(repr, nonfinite_.POLICIES))}, got {nonfinite!r}")
    placement.refuse_type(inner)
    inner = optax.with_extra_args_support(inner)

    def plan(params, inner_state) -> views.Plan:
        targets = rules.bind(params, rules.complete(rules_, sparsity, params), method.steps)
        clean = nonfinite_.finite if nonfinite == "drop" else lambda g: g
        guarded = placement.looks_for_nan(inner_state)
        now = views.Plan(targets, method, clean, guarded, moments.second_moments(inner_state, params).keys())
        views.check(now)
        return now

    def init(params):
        placement.refuse_surroundings()
        placement.refuse_strangers(params)
        inner_state = inner.init(params)
        now = plan(params, inner_state)
        placement.refuse_optimizer(inner, inner_state, params, now.targets)
        return driver.first_state(now, inner_state, params)

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("sparsify needs the parameters: call tx.update(grads, state, params)")
        now = plan(params, state.inner)
        seen = extra.get("activations") or {}

        def step(gradients, activations):
            more = extra | {"activations": activations} if "activations" in extra else extra
            return driver.step(inner, now, gradients, state, params, more)

        return nonfinite_.guarded(nonfinite, step, updates, seen, state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyrefly: ignore[bad-argument-type]


def _method(method: Method | None, steps: int | None) -> Method:
    if method is None:
        if steps is None:
            raise ValueError("sparsify needs the length of training: give steps=... or method=methods....(steps)")
        return methods.compressed_sensing(steps)
    if not isinstance(method, Method):
        raise ValueError(f"method is made by one of csp.methods, e.g. methods.gradual(steps=10_000), got {method!r}")
    if steps is not None and steps != method.steps:
        raise ValueError(f"steps={steps}, but the method was made for {method.steps} steps: give the length once")
    return method
