"""Libraries that only a part of the project needs; an extra of the package installs them."""

import importlib.util
import itertools
import sys

from sp_jax.errors import UserError

# The modules of each extra in pyproject.toml that is asked for; its others come with these.
MODULES = {
    "train": (
        *("PIL", "absl", "array_record", "clu", "filelock", "grain", "matplotlib"),
        *("ml_collections", "orbax"),
    ),
    "eval": ("jinja2", "sklearn"),
    "detection": ("pycocotools",),
    "curate": ("flask",),
    "faiss": ("faiss",),
    "slurm": ("submitit",),
    "tensorboard": ("tensorboardX",),
    "wandb": ("wandb",),
    "parquet": ("pyarrow",),
    "hf": ("datasets",),
    "tfds": ("tensorflow_datasets", "importlib_resources"),
}


def install(extra: str) -> str:
    """The command that installs an extra. The package is on no index: from a checkout."""
    return f'pip install ".[{extra}]" in the checkout of sp_jax'


def require(extra: str, what: str) -> None:
    """Check that the libraries of an extra are installed, without importing them.

    Args:
        extra: one of `MODULES`.
        what: needs it, as the beginning of the sentence.

    Raises:
        UserError: one is missing; the sentence says what to install. A program of ours that
            `python -m` is about to start prints it and ends with exit code 2 instead.

    Example:
        >>> require("train", "Training")
    """
    for module in MODULES[extra]:
        if importlib.util.find_spec(module) is None:
            sentence = (
                f"{what} needs {module}, which is not installed: {install(extra)}."
            )
            if _starts_program():
                print(f"error: {sentence}", file=sys.stderr)
                sys.exit(2)
            raise UserError(sentence)


def _starts_program() -> bool:
    ours = ("eval.", "input_pipeline.", "sp_jax.")
    words = itertools.pairwise(sys.orig_argv)
    return any(word == "-m" and name.startswith(ours) for word, name in words)
