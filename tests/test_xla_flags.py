"""Flags of XLA: which program gets which, and that this XLA accepts and follows them."""

import os
import pathlib
import subprocess
import sys

import pytest

from sp_jax.xla_flags import add_cpu_flags, runs_on_cpu

ROOT = pathlib.Path(__file__).parents[1]
NAME = "--xla_cpu_experimental_ynn_fusion_type"
FLAG = f"{NAME}=-individual_convolution"


@pytest.mark.parametrize(
    ("flags", "version", "expected"),
    [
        ("", (0, 10, 2), FLAG),
        ("", (0, 12, 0, 1), FLAG),
        ("--xla_a=1 --xla_b", (0, 11, 2), f"--xla_a=1 --xla_b {FLAG}"),
        (f"{NAME}=dot", (0, 10, 2), f"{NAME}=dot"),
        (f"{NAME}_b=dot", (0, 10, 2), f"{NAME}_b=dot {FLAG}"),
        ("--xla_a=1", (0, 9, 9), "--xla_a=1"),
        ("", (0, 13, 0), ""),
    ],
    ids=["none", "newest", "others", "own", "longer name", "older", "unknown"],
)
def test_a_flag_is_added_where_it_is_known_and_free(flags, version, expected):
    assert add_cpu_flags(flags, version) == expected


@pytest.mark.parametrize(
    ("platforms", "accelerator", "expected"),
    [
        ("", False, True),
        (None, True, False),
        ("cpu", True, True),
        ("cuda,cpu", True, False),
        ("cpu,cuda", True, True),
    ],
)
def test_flags_are_for_the_platform_that_jax_prefers(platforms, accelerator, expected):
    assert runs_on_cpu(platforms, accelerator) is expected


PROGRAM = """
import jax, jax.numpy as jnp
from sp_jax import xla_flags
from sp_jax.models.layers import Conv
xla_flags.set_cpu_flags()
x = jnp.ones((4, 16, 16, 64))
compiled = jax.jit(Conv(64).apply).lower({"params": {"kernel": jnp.ones((3, 3, 64, 64))}}, x)
print("ynn" in compiled.compile().as_text())
"""


@pytest.mark.parametrize(
    ("flags", "expected"), [("", "False"), (f"{NAME}=individual_convolution", "True")]
)
def test_a_process_compiles_with_the_flags(flags, expected):
    environ = dict(
        os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT)
    )
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == expected
