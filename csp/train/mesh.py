"""Where do arrays live? On one device; or batches over several, in one process or in many, and large parameters too.

Every process runs the same program and reads its share of each batch; rows go to the devices that they belong to, and
JAX moves what has to move. Only the first process writes.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from csp.train.config import Config, ConfigError

SMALLEST = 4096  # entries of an array that is worth splitting


def join() -> None:
    """Joins the other processes of a run: those of SLURM or Kubernetes, or those that the environment names.

    CSP_COORDINATOR is the first one's host:port, CSP_PROCESSES how many there are, CSP_PROCESS this one's number.
    """
    address = os.environ.get("CSP_COORDINATOR")
    if address is None:
        try:
            jax.distributed.initialize()
        except ValueError:  # neither SLURM nor anything else that jax knows has started this process
            raise ConfigError(
                "train.distributed, and nothing says where the others are: start all with srun, or set "
                "CSP_COORDINATOR=host:port, CSP_PROCESSES=n and CSP_PROCESS=i"
            ) from None
        return
    try:
        count, number = int(os.environ["CSP_PROCESSES"]), int(os.environ["CSP_PROCESS"])
    except (KeyError, ValueError):
        raise ConfigError("CSP_COORDINATOR is set: set CSP_PROCESSES and CSP_PROCESS to numbers too") from None
    jax.distributed.initialize(address, count, number)


def is_first() -> bool:
    return jax.process_index() == 0


def after_the_first(name: str) -> None:
    """All wait here for all; the first has done what the others need by then."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def of_the_first(value: float) -> float:
    """What the first process says, by which all decide alike."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.broadcast_one_to_all(np.float32(value)))


def local(tree: Any) -> Any:
    """The whole arrays, in this process's memory; all processes must ask together."""
    return jax.tree.map(_whole, tree)


def _whole(x: Any) -> Any:
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return x
    if x.is_fully_replicated:
        return np.asarray(x.addressable_data(0))
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


class Placement:
    """Puts states and batches where a config wants them."""

    def __init__(self, config: Config):
        count = config.train.devices or jax.device_count()
        if count > jax.device_count():
            raise ConfigError(f"train.devices {count}: there are {jax.device_count()}")
        if config.train.batch // config.train.accumulate % count:
            raise ConfigError(f"train.batch {config.train.batch} in its parts is no multiple of {count} devices")
        if count % jax.process_count():
            raise ConfigError(
                f"train.devices {count} is no multiple of {jax.process_count()} processes: take 0, for all"
            )
        self.count, self.shard = count, config.train.shard
        self.mesh = Mesh(np.array(jax.devices()[:count]), ("data",)) if count > 1 else None

    def compiled(self, step: Callable, state: Any) -> Callable:
        """`step` with its state where it was."""
        if self.mesh is None:
            return jax.jit(step, donate_argnums=0)
        where = jax.tree.map(self._sharding, state)
        return jax.jit(step, donate_argnums=0, out_shardings=(where, NamedSharding(self.mesh, P())))

    def state(self, state: Any) -> Any:
        """Replicated, or split along the longest axis that the devices divide."""
        if self.mesh is None:
            return state
        return jax.tree.map(lambda x: _put(np.asarray(x), self._sharding(x)), state)

    def batch(self, batch: Any) -> Any:
        """Split by rows."""
        if self.mesh is None:
            return batch
        sharding = NamedSharding(self.mesh, P("data"))
        return jax.tree.map(lambda x: _put(x, sharding), batch)

    @property
    def share(self) -> tuple[int, int]:
        """(i, n): this process's devices take the i-th of n equal parts of a batch."""
        if self.mesh is None or jax.process_count() == 1:
            return 0, 1
        owners = [device.process_index for device in self.mesh.devices.flat]
        one_behind_the_other = owners == sorted(owners) and self.count % jax.process_count() == 0
        return (jax.process_index(), jax.process_count()) if one_behind_the_other else (0, 1)

    def any(self, flag: bool) -> bool:
        """Is it true in any process? All must ask together."""
        if jax.process_count() == 1:
            return flag
        return bool(np.any(multihost_utils.process_allgather(np.array(flag))))

    def _sharding(self, x: Any) -> NamedSharding:
        assert self.mesh is not None
        divisible = [axis for axis, n in enumerate(x.shape) if n % self.count == 0]
        if not self.shard or x.size < SMALLEST or not divisible:
            return NamedSharding(self.mesh, P())
        longest = max(divisible, key=lambda axis: x.shape[axis])
        return NamedSharding(self.mesh, P(*("data" if axis == longest else None for axis in range(x.ndim))))


def _put(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(x.shape, sharding, lambda at: x[at])
