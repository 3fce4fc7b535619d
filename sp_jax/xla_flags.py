"""Flags that make XLA faster on a CPU, in one place.

The programs of this project add them to the environment variable XLA_FLAGS. XLA reads that
once, when jax first asks for a device. Other code that wants them calls `set_cpu_flags`
before; importing the library changes nothing.
"""

import importlib.metadata
import importlib.util
import logging
import os
import pathlib

import jax
import jaxlib.version

# XLA ends the process at a flag that it does not know, without an exception. So each is
# set for those versions of jaxlib only with which it was tried: from the first to below
# the second.
#
# YNNPACK runs most convolutions of a ResNet on one thread, whatever the number of cores.
# Without it XLA takes Eigen's, which are as fast on one core and use them all. Reductions
# and matrix products stay with YNNPACK: they are as fast there, or faster.
CPU_FLAGS = {
    "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution": ((0, 10), (0, 13))
}


DEVICES = pathlib.Path("/dev")  # where Linux shows GPUs


def set_cpu_flags() -> None:
    """Add `CPU_FLAGS` to the environment, where programs will run on a CPU."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    accelerator = bool(plugins) or importlib.util.find_spec("libtpu") is not None
    if runs_on_cpu(jax.config.jax_platforms, accelerator):
        flags = os.environ.get("XLA_FLAGS", "")
        version = jaxlib.version.__version_info__
        if added := add_cpu_flags(flags, version):
            os.environ["XLA_FLAGS"] = added


def warn_of_idle_gpu() -> None:
    """Warn if this machine has an NVIDIA GPU, but jax computes on the CPU."""
    idle = jax.default_backend() == "cpu" and not os.environ.get("JAX_PLATFORMS")
    if idle and any(DEVICES.glob("nvidia[0-9]*")):
        logging.warning(
            "This machine has an NVIDIA GPU, but jax runs on the CPU: install "
            'requirements-cuda.txt (pip install "jax[cuda13]"), or set JAX_PLATFORMS=cpu if '
            "that is intended."
        )


def runs_on_cpu(platforms: str | None, accelerator: bool) -> bool:
    """Whether jax will choose the CPU; asking jax itself would start it.

    Without `platforms` (JAX_PLATFORMS) jax prefers an accelerator whose support is installed,
    and the CPU gets no flags even if it then finds no such device.
    """
    return platforms.split(",")[0] == "cpu" if platforms else not accelerator


def add_cpu_flags(flags: str, version: tuple[int, ...]) -> str:
    """Add those `CPU_FLAGS` of a version of jaxlib that a value of XLA_FLAGS does not set."""
    taken = {flag.partition("=")[0] for flag in flags.split()}
    new = [
        flag
        for flag, (first, end) in CPU_FLAGS.items()
        if first <= version < end and flag.partition("=")[0] not in taken
    ]
    return " ".join([flags, *new]).strip()
