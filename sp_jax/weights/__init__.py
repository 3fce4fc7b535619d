"""Weights in and out: our variables as PyTorch's state dicts, in several namings."""

from sp_jax.weights.folder import find_file as find_file
from sp_jax.weights.guess import guess_module as guess_module
from sp_jax.weights.libraries import NAMINGS as NAMINGS
from sp_jax.weights.libraries import from_hugging_face as from_hugging_face
from sp_jax.weights.libraries import rename as rename
from sp_jax.weights.names import from_torch as from_torch
from sp_jax.weights.names import to_torch as to_torch
from sp_jax.weights.read import describe as describe
from sp_jax.weights.read import load as load
from sp_jax.weights.write import check_target as check_target
from sp_jax.weights.write import save as save
