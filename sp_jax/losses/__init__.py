"""Losses of self-supervised learning as pure functions of arrays.

They need jax and nothing else, compute in float32, and are written over the global batch:
under `jax.jit` with sharded arguments they are right on any number of devices.
"""

from sp_jax.losses.nt_xent import l2_normalize as l2_normalize
from sp_jax.losses.nt_xent import nt_xent as nt_xent
from sp_jax.losses.representation import alignment as alignment
from sp_jax.losses.representation import effective_rank as effective_rank
from sp_jax.losses.representation import feature_std as feature_std
from sp_jax.losses.representation import uniformity as uniformity
