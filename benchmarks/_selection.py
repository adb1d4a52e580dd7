"""Selection in arrays of 1, 16 and 64 Mi floats, against `jnp.sort`, numpy and one pass that writes a mask."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from _timing import Record, compiled, medians, once, options, save, show

from csp import select

SIZES = (2**20, 2**24, 2**26)
GROUPS = ((2, 4), (8, 16), (12, 128))
COLUMNS = ("what", "size", "seconds", "times_mask", "sort_over_this", "temp_mb")


def main() -> None:
    args = options("Exact selection without sorting.", "select")
    records = []
    for size in SIZES[: -1 if args.quick else None]:
        records += whole(size)
    for n, m in GROUPS:
        records += groups(n, m)
    show(records, COLUMNS)
    save(records, args.out)


def whole(size: int) -> list[Record]:
    """One competition of `size` weights for a tenth of the places."""
    x = jax.random.normal(jax.random.key(0), (size // 1024, 1024))
    k = size // 10
    programs = {
        "mask": compiled(lambda x: x > 1.0, x),
        "kth_largest": compiled(lambda x: select.kth_largest(x, k), x),
        "cut": compiled(lambda x: select.cut(x, k), x),
        "keep_largest": compiled(lambda x: select.keep_largest(x, k), x),
    }
    on_host = np.asarray(x).ravel()
    calls = {name: functools.partial(program, x) for name, program in programs.items()}
    seconds = medians(calls | {"numpy.partition": lambda: np.partition(on_host, size - k)})
    sort = compiled(lambda x: jnp.sort(x.ravel()), x)
    seconds["jnp.sort"] = once(lambda: sort(x))
    assert programs["kth_largest"](x) == np.partition(on_host, size - k)[size - k]
    return _records(seconds, programs | {"jnp.sort": sort}, size)


def groups(n: int, m: int) -> list[Record]:
    """Twenty million weights, n of every m along the input axis."""
    x = jax.random.normal(jax.random.key(0), (20 * 2**20 // m // 1024, m, 1024))
    programs = {
        "mask": compiled(lambda x: x > 1.0, x),
        f"cut {n}:{m}": compiled(lambda x: select.cut(x, n, -2), x),
        f"keep {n}:{m}": compiled(lambda x: select.keep_largest(x, n, -2), x),
    }
    seconds = medians({name: functools.partial(program, x) for name, program in programs.items()})
    return _records(seconds, programs, x.size)


def _records(seconds: dict[str, float], programs: dict, size: int) -> list[Record]:
    records = []
    for name, s in seconds.items():
        record = {"what": name, "size": size, "seconds": s, "times_mask": s / seconds["mask"]}
        if "jnp.sort" in seconds:
            record["sort_over_this"] = seconds["jnp.sort"] / s
        if name in programs:
            record["temp_mb"] = programs[name].memory_analysis().temp_size_in_bytes / 2**20
        records.append(record)
    return records
