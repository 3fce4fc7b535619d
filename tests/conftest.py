"""Settings that every test shares; they must be in place before jax is imported."""

import os
import pathlib

import pytest
from jaxtyping import install_import_hook

# Eight devices on a CPU, for the tests of 1 device = 8 devices. Most programs run once:
# optimising them would take twice the time. Collectives of steps that were not waited for
# can otherwise starve the thread pool on a small machine.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
)
os.environ.setdefault("PJRT_NPROC", "32")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(pathlib.Path(__file__).resolve().parents[1] / ".cache" / "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

# Shapes and dtypes in annotations are checked in each call (a call that is compiled: while it
# is traced). An int is a float, as type checkers say.
install_import_hook(
    [
        *(
            f"sp_jax.augment.{m}"
            for m in ("blur", "color", "geometry", "params", "views")
        ),
        "sp_jax.models",
        "sp_jax.optim",
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Drop the compiled programs of a test module: they are large and not used again."""
    yield
    import jax

    jax.clear_caches()
