"""Small trainings that the laws put every method through: one parameter of every kind, some steps, every state kept.

The gradient is that of a quadratic, with noise that depends on nothing but the step. A method is tried with every
structure at once, and the metrics take turns over the parameters, so that the methods together meet every pair.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import csp
from csp import methods, metrics, structures
from csp.rules import bind

STEPS = 20
LEARNING_RATE = 0.05
EPSILON = 1e-4  # of adam: the usual 1e-8 is zero in float16, and 0 / 0 is NaN


class Leaf(NamedTuple):
    """One parameter and what is asked of it."""

    shape: tuple[int, ...]
    structure: structures.Structure
    sparsity: Any = 0.5
    dtype: Any = jnp.float32
    fill: float | None = None  # all entries equal; random if None


LEAVES = {
    "entries": Leaf((5, 7), structures.entries(), 0.9),
    "taps": Leaf((2, 3, 4), structures.entries(), 0.7, jnp.float16),
    "vector": Leaf((9,), structures.entries(), 0.5, jnp.bfloat16),
    "two_of_four": Leaf((7, 3), structures.n_of_m(2, 4), None),
    "banks": Leaf((11, 2), structures.n_of_m(3, 8), None, jnp.bfloat16),
    "blocks": Leaf((5, 7), structures.blocks(2, 3)),
    "rows": Leaf((6, 4), structures.rows()),
    "gates": Leaf((3, 8), structures.columns(tied=4)),
    "heads": Leaf((4, 6), structures.heads(3), 0.34),
    "equal": Leaf((4, 5), structures.entries(), fill=1.0),  # FAULTS 23: ties, nothing to keep, nothing that lives
    "zero": Leaf((4, 5), structures.entries(), fill=0.0),
    "dense": Leaf((3, 3), structures.entries(), 0.0),
    "empty": Leaf((3, 3), structures.entries(), 1.0),
    "rank": Leaf((6, 5), structures.rank(), 0.25),
}
TURNS = (  # a method is tried on one of each
    ("taps", "vector"),
    ("two_of_four", "banks"),
    ("rows", "gates", "heads"),
    ("equal", "zero"),
    ("dense", "empty"),
)
FEW = {name: LEAVES[name] for name in ("entries", "two_of_four", "gates")}

METRICS = {
    "magnitude": metrics.magnitude(),
    "adam": metrics.adam(),
    "fisher": metrics.fisher(),
    "taylor": metrics.taylor(),
    "activation": metrics.activation(),
    "movement": metrics.movement(),
}


def _compressed(iterate: methods.method.Iterate | None = None, **choices) -> Callable[..., methods.Method]:
    return functools.partial(methods.compressed_sensing, iterate=iterate, **choices)


METHODS: dict[str, Callable[..., methods.Method]] = {
    "dual": _compressed(),
    "dual_pulled": _compressed(methods.dual(pull=2.0, firm=math.inf)),
    "dual_cycles": _compressed(cycles=2),
    "trimmed": _compressed(methods.trimmed()),
    "trimmed_metric": _compressed(methods.trimmed(shrink=methods.metric())),
    "ista": _compressed(methods.ista()),
    "ista_metric": _compressed(methods.ista(shrink=methods.metric())),
    "gradual": methods.gradual,
    "gradual_regrow": functools.partial(methods.gradual, regrow=0.3),
    "one_shot": methods.one_shot,
    "ste": methods.ste,
    "set": methods.set_,
    "rigl": methods.rigl,
    "granet": methods.granet,
    "acdc": functools.partial(methods.acdc, cycles=2),
    "str": methods.str_,
    "movement": methods.movement,
    "static": methods.static,
    "random": methods.random,
    "random_late": functools.partial(methods.random, end=0.6),
}
WITHOUT_PERIOD = ("one_shot", "acdc", "static")
FOR_ENTRIES = ("trimmed_metric", "ista_metric")  # shrinkage in the metric is not for pooled structures


def make_method(name: str, steps: int = STEPS, every: int | None = None) -> methods.Method:
    if every is None or name in WITHOUT_PERIOD:
        return METHODS[name](steps)
    return METHODS[name](steps, every=every)


def leaves_for(name: str, leaves: Mapping[str, Leaf] = LEAVES) -> dict[str, Leaf]:
    """What the method is tried on."""
    number = list(METHODS).index(name)
    absent = (
        {path for turn in TURNS for path in turn if path != turn[number % len(turn)]} if leaves is LEAVES else set()
    )
    pooled = {path for path, leaf in leaves.items() if leaf.structure.pooled} if name in FOR_ENTRIES else set()
    low = {"rank"} if make_method(name).project_rank is None else set()
    return {path: leaf for path, leaf in leaves.items() if path not in absent | pooled | low}


def make_rules(leaves: Mapping[str, Leaf], first_metric: int | None = 0) -> tuple[csp.Rule, ...]:
    """A rule for each leaf; the metrics take turns, from number `first_metric` on. None: magnitude for all."""
    rules = []
    for i, (path, leaf) in enumerate(leaves.items()):
        metric = metrics.magnitude() if first_metric is None else [*METRICS.values()][(i + first_metric) % len(METRICS)]
        if metric.needs_activations and len(leaf.shape) < 2:
            metric = metrics.fisher()
        if leaf.structure == structures.rank():
            metric = metrics.magnitude()
        rules.append(csp.Rule(path, leaf.structure, metric=metric, sparsity=leaf.sparsity))
    return tuple(rules)


def make_params(leaves: Mapping[str, Leaf], seed: jax.typing.ArrayLike = 0) -> dict[str, jax.Array]:
    params = {}
    for i, (path, leaf) in enumerate(leaves.items()):
        value = 2 * irregular(leaf.shape, seed + i + 1) if leaf.fill is None else jnp.full(leaf.shape, leaf.fill)
        params[path] = value.astype(leaf.dtype)
    return params


def gradient(params: Mapping[str, jax.Array], step: jax.typing.ArrayLike, equal: tuple[str, ...] = ("equal",)) -> dict:
    """Of a quadratic with an optimum away from zero; the leaves named in `equal` keep all their entries equal."""
    gradients = {}
    for path, w in params.items():
        target, noise = 0.3, 0.0
        if path not in equal:
            target = jnp.linspace(-1, 1, w.size).reshape(w.shape) + 0.05
            noise = 0.3 * irregular(w.shape, step + 0.5)
        gradients[path] = (w.astype(jnp.float32) - target + noise).astype(w.dtype)
    return gradients


def irregular(shape: tuple[int, ...], phase: jax.typing.ArrayLike) -> jax.Array:
    """Numbers in [-1, 1] without a pattern that matters; random ones would take as long to compile as all the rest.

    The angles are small, so that rounding them otherwise moves no number by more than 1e-5.
    """
    at = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    return jnp.sin(1.3 * at + 0.9 * phase + 0.02 * jnp.square(at))


def activations(params: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    return {path: jnp.linspace(0.5, 2.0, w.shape[-2]) for path, w in params.items() if w.ndim > 1}


def cast_to(dtype: Any) -> optax.GradientTransformation:
    """The last link of an optimizer whose updates have this dtype."""
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u: u.astype(dtype), updates))


def make_step(tx: optax.GradientTransformationExtraArgs) -> Callable:
    """(params, state, step) -> (params, state)."""

    def step(params, state, number):
        updates, state = tx.update(gradient(params, number), state, params, activations=activations(params))
        return optax.apply_updates(params, updates), state

    return step


def train(tx: optax.GradientTransformationExtraArgs, params: Any, steps: int) -> tuple[Any, Any]:
    """The whole training as one scan."""
    step = make_step(tx)

    def body(carry, number):
        return step(*carry, number), None

    return jax.lax.scan(body, (params, tx.init(params)), jnp.arange(steps))[0]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A training of which everything is known."""

    name: str
    method: methods.Method
    rules: tuple[csp.Rule, ...]
    step: Callable  # compiled
    history: list[tuple[Any, Any]]  # (params, state) as NumPy arrays, before each step and after the last

    @property
    def targets(self):
        return bind(self.history[0][0], self.rules, self.method.steps)

    @property
    def cut(self):
        """Those of which units live or die."""
        return [target for target in self.targets if not target.is_rank]


UPDATE_DTYPES = (None, jnp.float32, jnp.bfloat16, jnp.float16)


@functools.cache
def trial(name: str) -> Trial:
    """Every kind of parameter through one method, once per session."""
    tx, params = make_transformation(name), make_params(leaves_for(name))
    state = jax.jit(tx.init)(params)
    step = compiled(make_step(tx), params, state, 0)
    history = [to_numpy((params, state))]
    for number in range(STEPS):
        params, state = step(params, state, number)
        history.append(to_numpy((params, state)))
    return Trial(name, make_method(name), rules_for(name), step, history)


def rules_for(name: str) -> tuple[csp.Rule, ...]:
    return make_rules(leaves_for(name), first_metric=list(METHODS).index(name))


def make_transformation(name: str) -> optax.GradientTransformationExtraArgs:
    """The methods also take turns over the dtypes of the optimizer's updates."""
    dtype = UPDATE_DTYPES[list(METHODS).index(name) % len(UPDATE_DTYPES)]
    inner = optax.adamw(LEARNING_RATE, eps=EPSILON, weight_decay=0.01)
    inner = inner if dtype is None else optax.chain(inner, cast_to(dtype))
    return csp.sparsify(inner, *rules_for(name), method=make_method(name))


def compiled(function: Callable, *arguments) -> Callable:
    """Compiled for these arguments, and for no others."""
    return jax.jit(function).lower(*arguments).compile()


def to_numpy(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def to_jax(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


def bits(x: Any) -> np.ndarray:
    """The bit pattern, which tells -0.0 from +0.0."""
    return np.asarray(x).reshape(-1).view(np.uint8)


def same_bits(a: Any, b: Any) -> bool:
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(np.array_equal(bits(x), bits(y)) for x, y in zip(a, b, strict=True))


def living_units(structure: structures.Structure, w: Any) -> np.ndarray:
    """How many units live in each competition, counted in NumPy from the structure's definition alone."""
    alive = np.asarray(w) != 0
    if isinstance(structure, structures.NofM):
        rows = alive if alive.ndim > 1 else alive[:, None]
        starts = np.arange(0, rows.shape[-2], structure.m)
        return np.add.reduceat(rows.astype(int), starts, axis=-2)  # [..., groups, out]
    return np.asarray(len(set(np.unique(unit_numbers(structure, alive.shape)[alive]))))


def unit_numbers(structure: structures.Structure, shape: tuple[int, ...]) -> np.ndarray:
    """The number of the unit that each entry belongs to; entries of one unit live and die together."""
    at = np.indices(shape)
    if isinstance(structure, structures.Entries):
        keys = list(at)
    elif isinstance(structure, structures.Blocks):
        keys = [*at[:-2], at[-2] // structure.p, at[-1] // structure.q]
    elif isinstance(structure, structures.Slices):
        keys = [at[structure.axis] % (shape[structure.axis] // structure.tied)]
    elif isinstance(structure, structures.Heads):
        keys = [at[structure.axis] // (shape[structure.axis] // structure.n)]
    else:
        raise TypeError(f"{structure} has no fixed units")
    return np.unique(np.stack([k.ravel() for k in keys]), axis=1, return_inverse=True)[1].reshape(shape)
