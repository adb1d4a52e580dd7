"""How is a method run? Its first state, its refreshes, and the move of every weight."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from csp import metrics, moments
from csp.methods import Decision, Memory, Method, View
from csp.methods.method import Keep, keep_worthiest, never, weights
from csp.rules import Target
from csp.select import Cut
from csp.sharding import automatically
from csp.state import SparsifyState, write_ledger
from csp.views import Plan, progress_of, second_moments, views_of, wide, with_budget, with_budgets


def first_state(plan: Plan, inner_state: Any, params: Any) -> SparsifyState:
    leaves = jax.tree.leaves(params)
    memory, remembered = [], []
    for target, second in zip(plan.targets, second_moments(plan, inner_state, params), strict=True):
        w = wide(leaves[target.index])
        own = Memory() if target.is_rank else plan.method.start(w, target.structure)
        point = w if target.is_rank else plan.method.iterate(w, own)
        sight = metrics.Sight(target.path, point, second=second)
        memory.append(own)
        remembered.append(() if target.is_rank else plan.metric(target).start(sight))
    violation = tuple(jnp.zeros((), jnp.float32) for _ in plan.targets)
    count, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)  # two buffers: the state may be donated
    ledger = write_ledger(plan.targets, plan.method.clock.end)
    return SparsifyState(count, inner_state, tuple(memory), tuple(remembered), violation, skipped, ledger)


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
        held = dataclasses.replace(
            plan.method, step=None, iterate=weights, free=never, support=None, metric=metrics.magnitude()
        )
        plan = plan._replace(method=held)
    leaves, treedef = jax.tree.flatten(params)
    slopes = treedef.flatten_up_to(gradients)
    _check_state(plan, state, slopes)
    shut = jnp.zeros((), bool)
    gates = [Gate(None, shut, shut)] * len(plan.targets)
    if plan.targets and not settled:
        gates, state = _look(plan, state, params, slopes, extra)
    views = views_of(plan, state, params, slopes, extra)

    points = list(leaves)
    for target, view in zip(plan.targets, views, strict=True):
        points[target.index] = view.sight.point.astype(target.dtype)
    passed = {name: value for name, value in extra.items() if name != "activations"}
    gradients = gradients if plan.guarded else jax.tree.map(plan.clean, gradients)
    updates, inner_state = inner.update(gradients, state.inner, treedef.unflatten(points), **passed)

    moves, seconds = treedef.flatten_up_to(updates), second_moments(plan, inner_state, params)
    memory = []
    for target, view, gate, second in zip(plan.targets, views, gates, seconds, strict=True):
        update, p = moves[target.index], leaves[target.index]
        view = view._replace(sight=view.sight._replace(second=second))  # the new one: to keep the old costs a copy
        if target.is_rank:
            moves[target.index], fast = _move_rank(plan.method, target, view, state.skipped, update, p)
        else:
            moves[target.index], fast = _move(plan.method, view, gate, update, p)
        memory.append(view.memory._replace(fast=fast))
    state = state._replace(count=state.count + 1, inner=inner_state)
    if not settled:
        seen = tuple(
            () if t.is_rank else plan.metric(t).observe(v.sight) for t, v in zip(plan.targets, views, strict=True)
        )
        state = state._replace(memory=tuple(memory), remembered=seen)
    return treedef.unflatten(moves), state


def _check_state(plan: Plan, state: SparsifyState, gradients: list) -> None:
    if len(state.ledger) != len(plan.targets):
        raise ValueError(
            f"this state is of {len(state.ledger)} pruned parameters, and here are {len(plan.targets)}: "
            "tx.init(params) makes the state of these"
        )
    for target in plan.targets:
        if gradients[target.index] is None:
            raise ValueError(f"{target.path!r} is pruned, but has no gradient: leave it alone, Rule({target.path!r})")


class Gate(NamedTuple):
    """What may pass at this step, as a refresh or its absence says it."""

    keep: Keep | None  # what may live; None where the method's memory or `params != 0` says it
    opened: jax.Array  # may a zero come back to life?
    loose: jax.Array  # may what lives become zero?


def _look(plan: Plan, state: SparsifyState, params: Any, slopes: list, extra: dict) -> tuple[list[Gate], SparsifyState]:
    """On a refresh: what may live from now on, the slow memories, and no momentum for what died or comes back.

    What only a refresh reads is computed inside its branch, and scalars leave through it, since XLA would compute them
    again for every weight. Everything that a refresh reads and a step overwrites goes through the branches,
    changed or not: XLA then updates it in place afterwards, where it would otherwise copy it on every step.
    """
    leaves, treedef = jax.tree.flatten(state.inner)
    numbers = {target.index: n for n, target in enumerate(plan.targets)}
    mirrors = [(leaf, numbers[i], prefix) for leaf, i, prefix in moments.match(state.inner, params) if i in numbers]
    masked = [plan.method.support is None and not target.is_rank for target in plan.targets]

    def decide():
        gates, memory, violation = [], list(state.memory or ()), list(state.violation)
        mirrored, latest = [leaves[i] for i, *_ in mirrors], None
        for n, view in enumerate(with_budgets(plan, views_of(plan, state, params, slopes, extra))):
            if plan.targets[n].is_rank:
                gates.append(Gate(None, *[jnp.ones((), bool)] * 2))
                continue
            view = _after(view, latest, in_place=plan.method.decide is keep_worthiest and view.in_place)
            decision = plan.method.decide(view)
            kept = view.entries(decision.keep)
            gates.append(Gate(decision.keep if masked[n] else None, jnp.ones((), bool), _loose(plan, n, state.count)))
            memory[n] = _remember(memory[n], decision)
            violation[n] = latest = view.tail(kept).astype(jnp.float32)
            if plan.method.forget_momentum:
                carries = kept & (view.w != 0)
                for m, (_, owner, prefix) in enumerate(mirrors):
                    mirrored[m] = moments.forget(mirrored[m], prefix, carries) if owner == n else mirrored[m]
        memory, remembered, mirrored = lax.optimization_barrier((tuple(memory), state.remembered, mirrored))
        return gates, memory, remembered, tuple(violation), mirrored

    def idle():
        gates = []
        for n, gate in enumerate(jax.eval_shape(decide)[0]):
            loose = _loose(plan, n, state.count)
            gates.append(Gate(_everything(gate.keep, n, state.count, _floor(plan.method, loose)), loose, loose))
        return gates, state.memory, state.remembered, state.violation, [leaves[i] for i, *_ in mirrors]

    refresh = plan.method.clock.latest(state.count) == state.count
    gates, memory, remembered, violation, mirrored = lax.cond(refresh, decide, idle)
    for (i, *_), leaf in zip(mirrors, mirrored, strict=True):
        leaves[i] = leaf
    state = state._replace(inner=treedef.unflatten(leaves), memory=memory, remembered=remembered, violation=violation)
    return gates, state


def _loose(plan: Plan, number: int, count: jax.Array) -> jax.Array:
    """May a living weight become zero, and come back?"""
    free = plan.method.free(count) & (count < plan.method.clock.end)
    return free | (progress_of(plan.method, plan.targets[number], count) <= 0)


def _remember(memory: Memory, decision: Decision) -> Memory:
    slow = jax.tree.map(lambda new, old: new.astype(old.dtype), decision.slow, memory.slow)
    return Memory(memory.fast if decision.fast is None else decision.fast, slow)


def _after(view: View, violation: jax.Array | None, in_place: bool) -> View:
    """The same view, but not before the previous choice: one parameter's scratch memory at a time.

    XLA drops barriers before it schedules, so the order has to be a dependence: on a zero, since no violation exceeds
    1. What is decided `in_place`, without an array of worths, waits for its budget.
    """
    if violation is None:
        return view
    zero = jnp.where(violation > 2, 1.0, 0.0)
    if in_place:
        return view._replace(budget=view.budget + zero.astype(jnp.int32))
    second = None if view.sight.second is None else view.sight.second + zero
    sight = view.sight._replace(point=view.sight.point + zero, second=second)
    return view._replace(w=view.w + zero, gradient=view.gradient + zero, sight=sight)


def _floor(method: Method, loose: jax.Array) -> jax.Array:
    """The size above which weights live between refreshes; of the iterate, which it may only bound if they are it."""
    return jnp.where(loose | (method.iterate is not weights), -jnp.inf, 0.0)


def _everything(like: Any, number: int, count: jax.Array, floor: jax.Array) -> Keep | None:
    """That all may live, in the form of `like`, or all above the floor; a mask by a test of its own for each parameter,
    since XLA would share one constant, and copy it.
    """
    if isinstance(like, Cut):
        lowest, no_tie = floor.astype(like.value.dtype), jnp.asarray(-1, like.last.dtype)
        return Cut(jnp.broadcast_to(lowest, like.value.shape), jnp.broadcast_to(no_tie, like.last.shape))
    return None if like is None else jnp.broadcast_to(count > -1 - number, like.shape)


def _move(method: Method, view: View, gate: Gate, update: jax.Array, p: jax.Array) -> tuple[jax.Array, Any]:
    """The update that lands on prox(w + u), on exactly +0.0 for what is dead, and never on zero for what lives."""
    alive = _alive(method, view, gate)
    if method.step is None:
        return _landing(update, p, alive, gate.loose), view.memory.fast
    z, fast = method.step(view, wide(update), alive)
    return _landing(_towards(z, update, p), p, alive, gate.loose), fast


def _alive(method: Method, view: View, gate: Gate) -> jax.Array:
    """Which weights live on after this step."""
    if method.support is not None:
        return method.support(view)
    if isinstance(gate.keep, Cut) and method.iterate is weights:
        return view.entries(gate.keep)  # between refreshes what is above zero, or everything
    alive = (view.w != 0) | gate.opened
    return alive if gate.keep is None else alive & view.entries(gate.keep)


def _towards(new: jax.Array, update: jax.Array, p: jax.Array) -> jax.Array:
    """The update that moves p there."""
    return (new - p.astype(new.dtype)).astype(jnp.promote_types(update.dtype, p.dtype))


def _landing(u: jax.Array, p: jax.Array, alive: jax.Array, loose: jax.Array) -> jax.Array:
    """u, but such that p + u is +0.0 for what is dead and, unless it is `loose`, not zero for what lives.

    `params != 0` is the only mask there is, so a weight of the support that would land on zero stops one rounding
    short, and never below the least normal number: what is smaller may be flushed to zero.
    """
    u, info = u.astype(jnp.promote_types(u.dtype, p.dtype)), jnp.finfo(p.dtype)
    w = p.astype(u.dtype)
    nowhere = jnp.where(loose, info.max, 0).astype(p.dtype)  # where none may land: a choice of numbers, not of masks
    short = w * (float(info.eps) - 1) + jnp.where(w < 0, -float(info.tiny), float(info.tiny)).astype(u.dtype)
    return jnp.where(alive, jnp.where((p + u).astype(p.dtype) == nowhere, short, u), -w)


def _move_rank(method: Method, target: Target, view: View, skipped: jax.Array, update: jax.Array, p: jax.Array):
    """Towards low rank: truncated on refreshes, at every tenth of what follows the freeze, and on each step of the last
    tenth of it, since a training of which steps are skipped ends before it has made them all."""
    assert method.project_rank is not None  # check_targets refuses the others
    project, count, end = method.project_rank, view.count, method.clock.end
    gap = max(1, (method.steps - end) // 10)
    late = (count >= end) & (((count - end) % gap == 0) | (count + skipped >= method.steps - gap))
    refresh = (method.clock.latest(count) == count) | late
    progress = jnp.where(count >= end, 1.0, view.progress)
    budget = with_budget(target, view._replace(progress=progress)).budget
    z = view.w + wide(update)
    new = lax.cond(refresh, lambda: project(z, budget, target.kept, progress), lambda: z)
    return _towards(new, update, p), ()
