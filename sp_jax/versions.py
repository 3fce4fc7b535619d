"""What a number was made with: the code, the packages, the device."""

import contextlib
import functools
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import tomllib

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
_ROOT = pathlib.Path(__file__).resolve().parents[1]


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, of the packages that affect numbers, and of the code.

    The code's is as in "0.1.0, commit 1a2b3c4, changed", where it runs from a git checkout;
    "changed" says that files which git knows differ from that commit.
    """
    found = {"sp_jax": _code(), "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _code() -> str:
    try:
        version = importlib.metadata.version("sp_jax")
    except importlib.metadata.PackageNotFoundError:  # a checkout
        file = _ROOT / "pyproject.toml"
        content = file.read_text(encoding="utf-8") if file.is_file() else ""
        version = tomllib.loads(content).get("project", {}).get("version", "not known")
    if not (
        _ROOT / ".git"
    ).exists():  # installed, maybe below another project's checkout
        return version
    # Without a tag in it: the commit alone.
    words = "git describe --always --exclude=* --abbrev=7 --dirty=,changed".split()
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        said = subprocess.run(
            words,
            cwd=_ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):  # no git, or a file system that hangs
        return version
    commit = said.stdout.strip().replace(",", ", ")
    return f"{version}, commit {commit}" if commit else version


def describe_command() -> str:
    """The command of this program, as it could be typed."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def describe_devices() -> str:
    """The devices of all processes, as in "8 x NVIDIA H200"."""
    import jax

    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
