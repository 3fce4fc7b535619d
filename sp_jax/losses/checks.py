"""Shapes of arguments, checked while tracing: no cost at run time."""

import jax


def same_matrix(function: str, *arrays: jax.Array) -> None:
    """Raise ValueError unless all arrays have one shape [N, D]."""
    shapes = [x.shape for x in arrays]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1:
        text = " and ".join(map(str, shapes))
        raise ValueError(f"{function} needs arrays of one shape [N, D], not {text}.")


def same_width(function: str, *arrays: jax.Array) -> None:
    """Raise ValueError unless all arrays are [rows, D] with one D."""
    shapes = [x.shape for x in arrays]
    if any(len(s) != 2 or s[1] != shapes[0][-1] for s in shapes):
        text = " and ".join(map(str, shapes))
        raise ValueError(f"{function} needs matrices of one width D, not {text}.")
