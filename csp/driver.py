"""How is a method run? Its state, its views of the parameters, its refreshes, and the move of every weight."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from csp import metrics, moments, structures
from csp.methods import Memory, Method, View
from csp.methods.method import move, never, weights
from csp.rules import Target
from csp.sharding import automatically
from csp.structures import Rank, Structure, keep_count


class SparsifyState(NamedTuple):
    """Arrays only, so that any checkpointer saves it. `memory` and `remembered` are None once `settle` dropped them."""

    count: jax.Array
    inner: Any  # of the optimizer
    memory: tuple | None  # of the method, for each pruned parameter
    remembered: tuple | None  # by the metric, for each
    violation: tuple  # |W|_1 of what the last refresh cut away over |W|_1, for each
    skipped: jax.Array  # steps skipped for non-finite gradients
    ledger: jax.Array  # what was asked, in numbers: a row for each pruned parameter, see `read_ledger`


class Plan(NamedTuple):
    """What is known before a step is traced."""

    targets: Sequence[Target]
    method: Method

    def metric(self, target: Target) -> metrics.Metric:
        return self.method.metric or target.rule.metric


class Note(NamedTuple):
    """One line of the ledger, read."""

    index: int  # of the parameter, in jax's order of leaves
    rule: int
    structure: Structure
    asked: float
    violation: float


def _ledger(plan: Plan) -> jax.Array:
    rows = [(t.index, t.group, round(t.sparsity * 1e9), *structures.encode(t.structure)) for t in plan.targets]
    return jnp.asarray(rows, jnp.int32).reshape(len(rows), 6)


def read_ledger(state: SparsifyState) -> list[Note]:
    """What `sparsify` was asked for, from its state alone, as it comes out of any checkpoint."""
    return [
        Note(index, rule, structures.decode(*code), asked / 1e9, float(violation))
        for (index, rule, asked, *code), violation in zip(state.ledger.tolist(), state.violation, strict=True)
    ]


def find_state(state: Any) -> SparsifyState | None:
    """The state of `sparsify` inside that of whatever is around it."""
    found = [s for s in jax.tree.leaves(state, is_leaf=_is_state) if _is_state(s)]
    if state is not None and not found:
        raise ValueError("this optimizer state holds none of csp.sparsify: pass what tx.init or tx.update returned")
    return found[0] if found else None


def _is_state(x: Any) -> bool:
    return isinstance(x, SparsifyState)


def check_structures(targets: Sequence[Target], method: Method) -> None:
    for target in targets:
        if is_rank(target) and method.project_rank is None:
            raise ValueError(
                f"{target.path!r}: method {method.name} chooses units and cannot lower a rank: use compressed_sensing "
                "with its dual iterate, ste, gradual, one_shot or acdc, or csp.lowrank.ladder"
            )
        metric = method.metric or target.rule.metric
        if metric.needs_activations and len(target.shape) < 2:
            raise ValueError(
                f"{target.path!r}: metric {metric} needs the inputs of a matrix, and the shape is {target.shape}: "
                "use metrics.magnitude()"
            )


def is_rank(target: Target) -> bool:
    return isinstance(target.structure, Rank)


def first_state(plan: Plan, inner_state: Any, params: Any) -> SparsifyState:
    leaves = jax.tree.leaves(params)
    memory, remembered = [], []
    for target, second in zip(plan.targets, _second_moments(plan, inner_state, params), strict=True):
        w = _wide(leaves[target.index])
        own = Memory() if is_rank(target) else plan.method.start(w, target.structure)
        point = w if is_rank(target) else plan.method.iterate(w, own)
        sight = metrics.Sight(target.path, point, second=second)
        memory.append(own)
        remembered.append(() if is_rank(target) else plan.metric(target).start(sight))
    violation = tuple(jnp.zeros((), jnp.float32) for _ in plan.targets)
    count, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)  # two buffers: the state may be donated
    return SparsifyState(count, inner_state, tuple(memory), tuple(remembered), violation, skipped, _ledger(plan))


def step(
    inner, plan: Plan, gradients: Any, state: SparsifyState, params: Any, extra: dict
) -> tuple[Any, SparsifyState]:
    """One update of everything: look (on refreshes), let the inner optimizer speak, move."""
    arrays = {name: value for name, value in extra.items() if jax.tree.all(jax.tree.map(_is_array, value))}

    def whole(gradients, state, params, arrays):
        return _step(inner, plan, gradients, state, params, extra | arrays)

    return automatically(whole, (gradients, state, params, arrays), like=(gradients, state))


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray)


def _step(inner, plan: Plan, gradients: Any, state: SparsifyState, params: Any, extra: dict):
    settled = state.memory is None
    if settled:
        held = dataclasses.replace(plan.method, step=move, iterate=weights, free=never, metric=metrics.magnitude())
        plan = Plan(plan.targets, held)
    leaves, treedef = jax.tree.flatten(params)
    slopes = treedef.flatten_up_to(gradients)
    _check_state(plan, state, slopes)
    views = _views(plan, state, params, slopes, extra)
    keeps = [None] * len(views)
    if views and not settled:
        keeps, state = _look(plan, views, state, params)
        views = _views(plan, state, params, slopes, extra)

    points = list(leaves)
    for target, view in zip(plan.targets, views, strict=True):
        points[target.index] = view.sight.point.astype(target.dtype)
    passed = {name: value for name, value in extra.items() if name != "activations"}
    updates, inner_state = inner.update(gradients, state.inner, treedef.unflatten(points), **passed)

    moves = treedef.flatten_up_to(updates)
    memory = []
    for target, view, keep in zip(plan.targets, views, keeps, strict=True):
        go = _move_rank if is_rank(target) else _move
        moves[target.index], fast = go(plan.method, target, view, keep, moves[target.index], leaves[target.index])
        memory.append(view.memory._replace(fast=fast))
    state = state._replace(count=state.count + 1, inner=inner_state)
    if not settled:
        seen = tuple(plan.metric(t).observe(v.sight) for t, v in zip(plan.targets, views, strict=True))
        state = state._replace(memory=tuple(memory), remembered=seen)
    return treedef.unflatten(moves), state


def _wide(x: jax.Array) -> jax.Array:
    return jnp.asarray(x).astype(jnp.promote_types(jnp.result_type(x), jnp.float32))


def _second_moments(plan: Plan, inner_state: Any, params: Any) -> list[jax.Array | None]:
    known = moments.second_moments(inner_state, params)
    seconds = [known.get(target.index) for target in plan.targets]
    for target, second in zip(plan.targets, seconds, strict=True):
        if plan.metric(target).needs_second and second is None:
            raise ValueError(
                f"{target.path!r}: metric {plan.metric(target)} needs an optimizer with a full second moment (adam, "
                "rmsprop, ...): use metrics.fisher(), which keeps its own, or metrics.magnitude()"
            )
    return seconds


def _check_state(plan: Plan, state: SparsifyState, gradients: list) -> None:
    if len(state.ledger) != len(plan.targets):
        raise ValueError(
            f"this state is of {len(state.ledger)} pruned parameters, and here are {len(plan.targets)}: "
            "tx.init(params) makes the state of these"
        )
    for target in plan.targets:
        if gradients[target.index] is None:
            raise ValueError(f"{target.path!r} is pruned, but has no gradient: leave it alone, Rule({target.path!r})")


def _views(plan: Plan, state: SparsifyState, params: Any, gradients: list, extra: dict) -> list[View]:
    method, count = plan.method, state.count
    leaves, seconds, views = jax.tree.leaves(params), _second_moments(plan, state.inner, params), []
    for number, (target, second) in enumerate(zip(plan.targets, seconds, strict=True)):
        memory = Memory() if state.memory is None else state.memory[number]
        w, gradient = _wide(leaves[target.index]), _wide(gradients[target.index])
        sight = metrics.Sight(
            path=target.path,
            point=w if is_rank(target) else method.iterate(w, memory),
            gradient=gradient,
            second=second,
            memory=() if state.remembered is None else state.remembered[number],
            activations=_activations(plan.metric(target), target, extra),
        )
        views.append(
            View(
                w=w,
                gradient=gradient,
                memory=memory,
                structure=target.structure,
                progress=_progress(method, target, count),
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


def _activations(metric: metrics.Metric, target: Target, extra: dict) -> jax.Array | None:
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
    return given[target.path]


def _progress(method: Method, target: Target, count: jax.Array) -> jax.Array:
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


def _with_budgets(plan: Plan, views: list[View]) -> list[View]:
    """The views with the counts of units that stay at this progress."""
    views = [_with_budget(target, view) for target, view in zip(plan.targets, views, strict=True)]
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


def _with_budget(target: Target, view: View) -> View:
    on_the_way = target.structure.kept_at(target.shape, view.progress * target.sparsity)
    return view._replace(budget=jnp.where(view.progress >= 1, jnp.asarray(target.kept, jnp.int32), on_the_way))


def _look(plan: Plan, views: list[View], state: SparsifyState, params: Any) -> tuple[list, SparsifyState]:
    """On a refresh: what may live from now on, the slow memories, and no momentum for what died or comes back.

    Everything that a decision reads and a step overwrites goes through the branches, changed or not: XLA then updates
    it in place afterwards, where it would otherwise copy it on every step.
    """
    leaves, treedef = jax.tree.flatten(state.inner)
    numbers = {target.index: n for n, target in enumerate(plan.targets)}
    mirrors = [(leaf, numbers[i], prefix) for leaf, i, prefix in moments.match(state.inner, params) if i in numbers]
    nothing = jnp.zeros((), bool)

    def decide():
        keeps, memory, violation = [], list(state.memory or ()), list(state.violation)
        mirrored, latest = [leaves[i] for i, *_ in mirrors], None
        for n, view in enumerate(_with_budgets(plan, views)):
            if is_rank(plan.targets[n]):
                keeps.append(nothing)
                continue
            view = _after(view, latest)
            decision = plan.method.decide(view)
            keeps.append(decision.keep)
            slow = jax.tree.map(lambda new, old: new.astype(old.dtype), decision.slow, memory[n].slow)
            memory[n] = memory[n]._replace(slow=slow)
            violation[n] = latest = view.tail(decision.keep).astype(jnp.float32)
            if plan.method.forget_momentum:
                carries = view.spread(decision.keep) & (view.w != 0)
                for m, (_, owner, prefix) in enumerate(mirrors):
                    mirrored[m] = moments.forget(mirrored[m], prefix, carries) if owner == n else mirrored[m]
        memory, remembered, mirrored = lax.optimization_barrier((tuple(memory), state.remembered, mirrored))
        return keeps, memory, remembered, tuple(violation), mirrored

    def idle():
        keeps = [nothing if is_rank(t) else _everything(v) for t, v in zip(plan.targets, views, strict=True)]
        return keeps, state.memory, state.remembered, state.violation, [leaves[i] for i, *_ in mirrors]

    refresh = plan.method.clock.latest(state.count) == state.count
    keeps, memory, remembered, violation, mirrored = lax.cond(refresh, decide, idle)
    for (i, *_), leaf in zip(mirrors, mirrored, strict=True):
        leaves[i] = leaf
    inner = treedef.unflatten(leaves)
    return keeps, state._replace(inner=inner, memory=memory, remembered=remembered, violation=violation)


def _after(view: View, violation: jax.Array | None) -> View:
    """The same view, but not before the previous choice: one parameter's scratch memory at a time.

    XLA drops barriers before it schedules, so the order has to be a dependence: on a zero, since no violation exceeds
    1.
    """
    if violation is None:
        return view
    zero = jnp.where(violation > 2, 1.0, 0.0)
    sight = view.sight._replace(point=view.sight.point + zero)
    return view._replace(w=view.w + zero, gradient=view.gradient + zero, sight=sight)


def _everything(view: View) -> jax.Array:
    """All True, by a test of its own for each parameter: XLA would share one constant mask, and copy it."""
    return jnp.broadcast_to(view.count > -1 - view.number, jax.eval_shape(view.layout, view.w).shape)


def _move(method: Method, target: Target, view: View, keep: jax.Array | None, update: jax.Array, p: jax.Array):
    """The update that lands on prox(w + u), on exactly +0.0 for what is dead, and never on zero for what lives."""
    refresh = method.clock.latest(view.count) == view.count
    loose = (view.progress <= 0) | (method.free(view.count) & (view.count < method.clock.end))
    alive = view.w != 0
    if keep is not None:
        alive = view.spread(keep) & (alive | loose | refresh)
    z, fast = method.step(view, _wide(update), alive)
    new = jnp.where(alive, z, 0)
    return _landing(new, update, p, held=alive & ~loose), fast


def _landing(new: jax.Array, update: jax.Array, p: jax.Array, held: jax.Array) -> jax.Array:
    """u such that p + u, in the dtype of p, is `new`: exactly if that is zero, and not zero where `held`.

    `params != 0` is the only mask there is, so a weight of the support that would land on zero stops one rounding
    short, and never below the least normal number: what is smaller may be flushed to zero.
    """
    dtype, info = jnp.promote_types(update.dtype, p.dtype), jnp.finfo(p.dtype)
    w = p.astype(new.dtype)
    u = (new - w).astype(dtype)
    almost = jnp.copysign(jnp.maximum(jnp.abs(w) * float(info.eps), float(info.tiny)), w)
    return jnp.where(held & ((p + u).astype(p.dtype) == 0), (almost - w).astype(dtype), u)


def _move_rank(method: Method, target: Target, view: View, keep: None, update: jax.Array, p: jax.Array):
    """Towards low rank: truncated on refreshes, at every tenth of what follows the freeze, and on the last step."""
    assert method.project_rank is not None  # check_structures refuses the others
    project, count, end = method.project_rank, view.count, method.clock.end
    gap = max(1, (method.steps - end) // 10)
    late = (count >= end) & (((count - end) % gap == 0) | (count >= method.steps - 1))
    refresh = (method.clock.latest(count) == count) | late
    progress = jnp.where(count >= end, 1.0, view.progress)
    budget = _with_budget(target, view._replace(progress=progress)).budget
    z = view.w + _wide(update)
    new = lax.cond(refresh, lambda: project(z, budget, target.kept, progress), lambda: z)
    return _landing(new, update, p, held=jnp.zeros((), bool)), ()
