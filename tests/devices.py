"""More devices than there are: for the processes of tests that need a mesh."""

import os


def eight_devices() -> dict[str, str]:
    """The environment of a process that has eight."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
