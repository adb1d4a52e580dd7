"""How does a config name what is pruned? One visible table of words for each of the five questions."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

import csp
from csp import budgets, methods, metrics, rules, schedules, structures
from csp.methods import Method
from csp.structures import Structure
from csp.train.config import Config, ConfigError, Sparsity
from csp.train.limits import GIVEN

CALIBRATED = "calibrated"
CRITERIA = ("magnitude", "taylor", "fisher", "activation", "movement", "second_order", "admm")  # of `calibrate`
METHODS: dict[str, Callable[..., Method]] = {
    "compressed_sensing": methods.compressed_sensing,
    "gradual": methods.gradual,
    "one_shot": methods.one_shot,
    "ste": methods.ste,
    "set": methods.set_,
    "rigl": methods.rigl,
    "granet": methods.granet,
    "acdc": methods.acdc,
    "str": methods.str_,
    "movement": methods.movement,
    "static": methods.static,
    "random": methods.random,
    CALIBRATED: lambda steps, **options: _kept(steps),
}
METRICS: dict[str, Callable[[], metrics.Metric]] = {
    "magnitude": metrics.magnitude,
    "adam": metrics.adam,
    "fisher": metrics.fisher,
    "taylor": metrics.taylor,
    "movement": metrics.movement,
}
SCHEDULES: dict[str, Callable[[int, int], schedules.Schedule]] = {  # from 0 to 1
    "cubic": lambda begin, end: schedules.cubic(1.0, begin, end),
    "linear": lambda begin, end: schedules.linear(1.0, begin, end),
    "one_shot": lambda begin, end: schedules.one_shot(1.0, begin),
}
BUDGETS = {"uniform": budgets.uniform, "erk": budgets.erk, "global": budgets.global_, "lamp": budgets.lamp}
ITERATES = {"dual": methods.dual, "trimmed": methods.trimmed, "ista": methods.ista}
SHRINKS = {"decoupled": methods.decoupled, "metric": methods.metric}


def structure(said: str) -> Structure:
    """ "entries", "12:128", "blocks 16x1", "rows", "columns", "heads 4", "rank"; see `_part` for others."""
    plain = {
        "entries": structures.entries,
        "rows": structures.rows,
        "columns": structures.columns,
        "rank": structures.rank,
    }
    if said in plain:
        return plain[said]()
    if found := re.fullmatch(r"(\d+):(\d+)", said):
        return structures.n_of_m(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"blocks (\d+)x(\d+)", said):
        return structures.blocks(int(found[1]), int(found[2]))
    if found := re.fullmatch(r"heads (\d+)", said):
        return structures.heads(int(found[1]))
    raise ConfigError(
        f"structure {said!r} is none of entries, N:M, blocks PxQ, rows, columns, heads N, hidden, attention N, rank"
    )


def check(config: Config) -> None:
    """An error for a word that names nothing, and for options that no method has: before data are read."""
    sparsity = config.sparsity
    if sparsity.method == "dense":
        return
    method_of(sparsity, max(config.train.steps, 1))
    known = _metrics(sparsity)
    for said, metric in [(sparsity.structure, sparsity.metric), *((r.structure, r.metric) for r in sparsity.rules)]:
        if said and _part(said) is None:
            structure(said)
        if metric:
            _named(known, metric, "metric")
    if sparsity.budget != GIVEN:
        _named(BUDGETS, sparsity.budget, "budget")


def _metrics(sparsity: Sparsity) -> dict[str, Callable[[], metrics.Metric]]:
    if sparsity.method == CALIBRATED:  # by data, which `csp.train.calibrate` has looked at
        return dict.fromkeys(CRITERIA, metrics.magnitude)
    return METRICS


def rules_of(sparsity: Sparsity, params: Any, target: float | None) -> tuple[csp.Rule, ...]:
    """The config's rules, then one for every other matrix that is worth pruning."""
    if sparsity.method == CALIBRATED and sparsity.structure == "rank":
        return ()  # factors train as they are
    says = target is not None or sparsity.is_fixed or sparsity.budget == GIVEN
    if sparsity.method == "dense" or not (says or sparsity.rules):
        return ()
    known = _metrics(sparsity)
    given = []
    for r in sparsity.rules:
        own = metric_of(dataclasses.replace(sparsity, structure=r.structure, metric=r.metric))
        metric = _named(known, own, "metric")() if r.structure or r.metric else None
        given.append(csp.Rule(r.pattern, structure(r.structure) if r.structure else None, metric, r.target))
    if not says:
        return tuple(given)
    metric = _named(known, metric_of(sparsity), "metric")()
    budget = _own(params) if sparsity.budget == GIVEN else _named(BUDGETS, sparsity.budget, "budget")()
    share = None if sparsity.is_fixed else 0.0 if sparsity.budget == GIVEN else target
    if (part := _part(sparsity.structure)) is not None:
        if not any(re.fullmatch(part[0], path) for path, _ in rules.named_leaves(params)):
            raise ConfigError(f"structure {sparsity.structure!r} is of Transformers and Conformers, which this is not")
        return (*given, csp.Rule(part[0], part[1], metric, share, budget))
    found = structure(sparsity.structure)
    spared = rules.default_rules(params, 0.5)
    return (*given, *spared[:-1], csp.Rule(spared[-1].pattern, found, metric, share, budget))


def metric_of(sparsity: Sparsity) -> str:
    """The name of the config's metric: the method's choice, where it names none."""
    if sparsity.metric or sparsity.method == "dense":
        return sparsity.metric or "magnitude"
    method = method_of(sparsity, 1000)  # of whatever length
    return method.judged_by(None, sparsity.structure == "rank", adaptive=True).name


def _own(params: Any) -> budgets.Budget:
    """As many zeros in every matrix as it has."""
    shares = {
        f"(?:model/)?{re.escape(path)}": 1 - int(jnp.count_nonzero(w)) / w.size
        for path, w in rules.named_leaves(params)
        if rules.is_matrix(w.shape) and not re.fullmatch(rules.NOT_BY_DEFAULT, path.lower())
    }
    return budgets.given(shares)


def _part(said: str) -> tuple[str, Structure] | None:
    """Units of a network that die as a whole: hidden units of feed-forward networks, attention heads.

    What a unit says to nobody is removed from the file with it: the rule is that of its outgoing weights.
    """
    if said == "hidden":
        return r".*(feed|first|second)/down/kernel", structures.rows()
    if found := re.fullmatch(r"attention (\d+)", said):
        return r".*attention/out/kernel", structures.heads(int(found[1]), axis=-2)
    return None


def method_of(sparsity: Sparsity, steps: int) -> Method:
    make = _named(METHODS, sparsity.method, "method")
    options = dict(sparsity.options)
    try:
        if "iterate" in options or "iterate_options" in options:
            own = dict(options.pop("iterate_options", {}))
            if "shrink" in own:
                own["shrink"] = _named(SHRINKS, own["shrink"], "options.iterate_options.shrink")()
            options["iterate"] = _named(ITERATES, options.get("iterate", "dual"), "iterate")(**own)
        return _scheduled(make(steps, **options), sparsity.schedule)
    except TypeError as error:
        raise ConfigError(f"sparsity.options of {sparsity.method}: {str(error).split(') ')[-1]}") from None


def _scheduled(method: Method, name: str) -> Method:
    """With another ramp, where the config names one, which ends when the method's own does."""
    if not name:
        return method
    times = method.clock.times
    full = next((t for t in times if float(method.ramp(jnp.asarray(t))) > 1 - 1e-6), times[-1])
    return dataclasses.replace(method, ramp=_named(SCHEDULES, name, "schedule")(times[0], full))


def _kept(steps: int) -> Method:
    """What was pruned before the first step stays so."""
    return dataclasses.replace(methods.static(max(steps, 1)), name=CALIBRATED)


def targets_of(config: Config) -> list[float | None]:
    """One target for each model that the run delivers, in order."""
    return list(config.sparsity.targets) or [config.sparsity.target]


def rungs_of(config: Config) -> list[tuple[float | None, bool]]:
    """(target, does it deliver a model) of every stage: with `options.rungs` a target is neared along a cubic."""
    sparsity, found = config.sparsity, list[tuple[float | None, bool]]()
    rungs = sparsity.options.get("rungs", 1) if sparsity.method == CALIBRATED else 1
    for target in targets_of(config):
        begin = found[-1][0] or 0.0 if found else 0.0
        way = [1 - (1 - i / rungs) ** 3 for i in range(1, rungs)]
        found += [(begin + ((target or 0.0) - begin) * share, False) for share in way]
        found.append((target, True))
    return found


def _named(table: dict[str, Any], name: str, what: str) -> Any:
    if name not in table:
        raise ConfigError(f"sparsity.{what} {name!r} is none of {', '.join(table)}")
    return table[name]
