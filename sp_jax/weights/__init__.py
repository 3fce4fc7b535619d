"""Read and write weights: our variables as PyTorch's state dicts, in several namings."""

from sp_jax.weights.find import find_network as find_network
from sp_jax.weights.folder import find_file as find_file
from sp_jax.weights.names import gather as gather
from sp_jax.weights.read import describe as describe
from sp_jax.weights.read import load as load
from sp_jax.weights.snippets import TESTED as TESTED
from sp_jax.weights.snippets import choose_naming as choose_naming
from sp_jax.weights.snippets import count_features as count_features
from sp_jax.weights.snippets import describe_loaders as describe_loaders
from sp_jax.weights.snippets import snippets as snippets
from sp_jax.weights.state_dict import NAMINGS as NAMINGS
from sp_jax.weights.state_dict import from_torch as from_torch
from sp_jax.weights.state_dict import names_of as names_of
from sp_jax.weights.state_dict import rename as rename
from sp_jax.weights.state_dict import to_torch as to_torch
from sp_jax.weights.write import check_target as check_target
from sp_jax.weights.write import save as save
from sp_jax.weights.write import write_card as write_card
