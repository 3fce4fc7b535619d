"""Weights in and out: our variables as PyTorch's state dicts, in several namings."""

from sp_jax.weights.files import load as load
from sp_jax.weights.files import save as save
from sp_jax.weights.guess import guess_module as guess_module
from sp_jax.weights.names import NAMINGS as NAMINGS
from sp_jax.weights.names import from_torch as from_torch
from sp_jax.weights.names import rename as rename
from sp_jax.weights.names import to_torch as to_torch
