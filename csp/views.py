"""What does a method see of each parameter at this step, and how many units may it keep?"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from csp import metrics, moments
from csp.methods import Memory, Method, View
from csp.rules import Target, check_sign, final_value
from csp.schedules import Schedule
from csp.state import SparsifyState
from csp.structures import keep_count

_UNTRACEABLE = jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError


class Plan(NamedTuple):
    """What is known before a step is traced."""

    targets: Sequence[Target]
    method: Method
    clean: Callable[[jax.Array], jax.Array]  # of gradients, where they are read
    guarded: bool  # does the optimizer itself look for gradients that are not finite?
    adaptive: Collection[int]  # the leaves of which the optimizer keeps a second moment

    def metric(self, target: Target) -> metrics.Metric:
        return self.method.judged_by(target.rule.metric, target.is_rank, target.index in self.adaptive)


def check(plan: Plan) -> None:
    """What no rule knows alone: can this method do that?"""
    method = plan.method
    for target in plan.targets:
        if callable(target.rule.sparsity):
            pattern, path = target.rule.pattern, target.rule.sparsity
            final = final_value(pattern, path, method.clock.end, f"the freeze of {method.name}")
            _check_path(pattern, path, final, method.clock.times)
        if target.structure.pooled and not target.is_rank and not method.pools:
            raise ValueError(
                f"{target.path!r}: metric shrinkage is for entries and N of M, not for {target.structure}: use "
                "methods.decoupled()"
            )
        if target.is_rank and method.project_rank is None:
            raise ValueError(
                f"{target.path!r}: method {method.name} chooses units and cannot lower a rank: use compressed_sensing "
                "with its dual iterate, ste, gradual, one_shot or acdc, or csp.lowrank.ladder"
            )
        metric = plan.metric(target)
        check_sign(repr(target.path), target.rule.budget, metric)
        if target.is_rank and metric != metrics.magnitude():
            raise ValueError(
                f"{target.path!r}: a rank is chosen by singular values, and metric {metric} knows none: use "
                "metrics.magnitude(), or csp.lowrank, which weighs them"
            )
        if metric.needs_activations and len(target.shape) < 2:
            raise ValueError(
                f"{target.path!r}: metric {metric} needs the inputs of a matrix, and the shape is {target.shape}: "
                "use metrics.magnitude()"
            )


def _check_path(pattern: str, schedule: Schedule, final: float, times: Sequence[int]) -> None:
    """A budget is made for the sparsity at the end; a schedule that goes beyond it cannot be followed."""
    with jax.ensure_compile_time_eval():
        try:
            on_the_way = jax.vmap(lambda at: jnp.asarray(schedule(at), jnp.float32))(jnp.asarray(times, jnp.int32))
        except (jax.errors.ConcretizationTypeError, *_UNTRACEABLE):
            raise ValueError(
                f"rule {pattern!r}: its schedule is run inside jax.jit and cannot be traced: write jnp.minimum for "
                "min and jnp.where for if, or take one of csp.schedules"
            ) from None
        highest = float(jnp.max(on_the_way))
    if highest > final + 1e-6:
        raise ValueError(
            f"rule {pattern!r}: its schedule goes up to {highest:g} and ends at {final:g}: the end is the "
            "sparsest there is, so let it end at its highest value"
        )


def views_of(plan: Plan, state: SparsifyState, params: Any, gradients: list, extra: dict) -> list[View]:
    method, count = plan.method, state.count
    leaves, seconds, views = jax.tree.leaves(params), second_moments(plan, state.inner, params), []
    for number, (target, second) in enumerate(zip(plan.targets, seconds, strict=True)):
        memory = Memory() if state.memory is None else state.memory[number]
        w, gradient = wide(leaves[target.index]), wide(plan.clean(gradients[target.index]))
        sight = metrics.Sight(
            path=target.path,
            point=w if target.is_rank else method.iterate(w, memory),
            gradient=gradient,
            second=second,
            memory=() if state.remembered is None else state.remembered[number],
            activations=_activations(plan, target, extra),
        )
        views.append(
            View(
                w=w,
                gradient=gradient,
                memory=memory,
                structure=target.structure,
                progress=progress_of(method, target, count),
                budget=target.kept,
                final=lambda kept=target.kept: kept,
                count=count,
                last=count == method.clock.end,
                number=number,
                sight=sight,
                metric=plan.metric(target),
            )
        )
    return views


def _activations(plan: Plan, target: Target, extra: dict) -> jax.Array | None:
    metric = plan.metric(target)
    if not metric.needs_activations:
        return None
    given = extra.get("activations") or {}
    if target.path not in given:
        raise ValueError(
            f"{target.path!r}: metric {metric} needs the mean squared inputs: call tx.update(grads, state, params, "
            f"activations={{{target.path!r}: vector of {target.shape[-2]}}})"
        )
    if jnp.shape(given[target.path]) != target.shape[-2:-1]:
        raise ValueError(
            f"{target.path!r}: activations have shape {jnp.shape(given[target.path])}, one mean square an input is "
            f"{target.shape[-2:-1]}"
        )
    return plan.clean(jnp.asarray(given[target.path]))


def progress_of(method: Method, target: Target, count: jax.Array) -> jax.Array:
    """Of the sparsity, as it was at the latest refresh: 0 is dense, 1 the final budget."""
    latest = method.clock.latest(count)
    if callable(target.rule.sparsity):
        final = target.rule.target(method.steps)
        progress = target.rule.sparsity(latest) / max(final, 1e-9)
    else:
        progress = method.ramp(latest)
    progress = jnp.clip(jnp.asarray(progress, jnp.float32), 0, 1)
    on_target = (latest >= method.clock.end) | (progress > 1 - 1e-6)
    return jnp.where(latest < 0, 0.0, jnp.where(on_target, 1.0, progress))


def with_budgets(plan: Plan, views: list[View]) -> list[View]:
    """The views with the counts of units that stay at this progress."""
    views = [with_budget(target, view) for target, view in zip(plan.targets, views, strict=True)]
    for group in {t.group for t in plan.targets if t.rule.budget.joint}:
        mine = [n for n, t in enumerate(plan.targets) if t.group == group]
        rule, worths = plan.targets[mine[0]].rule, [views[n].worth for n in mine]
        units, sparsity = sum(worth.size for worth in worths), rule.target(plan.method.steps)
        total, progress = keep_count(units, sparsity), views[mine[0]].progress
        now = jnp.where(progress >= 1, total, jnp.round(units * (1 - progress * sparsity))).astype(jnp.int32)
        budgets = rule.budget.allocate(worths, now)
        for i, n in enumerate(mine):
            final = lambda i=i, rule=rule, worths=worths, total=total: rule.budget.allocate(worths, total)[i]  # noqa: E731
            views[n] = views[n]._replace(budget=budgets[i], final=final)
    return views


def with_budget(target: Target, view: View) -> View:
    on_the_way = target.structure.kept_at(target.shape, view.progress * target.sparsity)
    return view._replace(budget=jnp.where(view.progress >= 1, jnp.asarray(target.kept, jnp.int32), on_the_way))


def wide(x: jax.Array) -> jax.Array:
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32))


def second_moments(plan: Plan, inner_state: Any, params: Any) -> list[jax.Array | None]:
    known = moments.second_moments(inner_state, params)
    seconds = [known.get(target.index) for target in plan.targets]
    for target, second in zip(plan.targets, seconds, strict=True):
        if plan.metric(target).needs_second and second is None:
            raise ValueError(
                f"{target.path!r}: metric {plan.metric(target)} needs an optimizer with a full second moment (adam, "
                "rmsprop, ...): use metrics.fisher(), which keeps its own, or metrics.magnitude()"
            )
    return seconds
