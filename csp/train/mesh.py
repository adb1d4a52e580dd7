"""Where do arrays live? On one device; or batches over several, and large parameters too if asked."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from csp.train.config import Config, ConfigError
from csp.train.corpus import Batch

SMALLEST = 4096  # entries of an array that is worth splitting


class Placement:
    """Puts states and batches where a config wants them."""

    def __init__(self, config: Config):
        count = config.train.devices or jax.device_count()
        if count > jax.device_count():
            raise ConfigError(f"train.devices {count}: there are {jax.device_count()}")
        if config.train.batch % count or (config.train.batch // config.train.accumulate) % count:
            raise ConfigError(f"train.batch {config.train.batch} in parts is no multiple of {count} devices")
        self.count, self.shard = count, config.train.shard
        self.mesh = Mesh(np.array(jax.devices()[:count]), ("data",)) if count > 1 else None

    def state(self, state: Any) -> Any:
        """Replicated, or split along the longest axis that the devices divide."""
        if self.mesh is None:
            return state
        return jax.tree.map(lambda x: jax.device_put(x, NamedSharding(self.mesh, self._spec(x))), state)

    def batch(self, batch: Batch) -> Batch:
        """Split by utterances; each process brings its own."""
        if self.mesh is None:
            return batch
        sharding = NamedSharding(self.mesh, P("data"))
        return Batch(*(jax.make_array_from_callback(x.shape, sharding, lambda at, x=x: x[at]) for x in batch))

    def _spec(self, x: Any) -> P:
        if not self.shard or x.size < SMALLEST:
            return P()
        divisible = [axis for axis, n in enumerate(x.shape) if n % self.count == 0]
        if not divisible:
            return P()
        axis = max(divisible, key=lambda axis: x.shape[axis])
        return P(*(["data" if i == axis else None for i in range(x.ndim)]))
