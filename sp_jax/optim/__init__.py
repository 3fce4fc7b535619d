"""Schedules, optimisers, and the rules that say which parameter decays."""

from sp_jax.optim.optimizers import adamw as adamw
from sp_jax.optim.optimizers import by_rules as by_rules
from sp_jax.optim.optimizers import get as get
from sp_jax.optim.optimizers import larc as larc
from sp_jax.optim.optimizers import lars as lars
from sp_jax.optim.optimizers import lars_inside as lars_inside
from sp_jax.optim.optimizers import sgd as sgd
from sp_jax.optim.rules import DECAY_ALL as DECAY_ALL
from sp_jax.optim.rules import DECAY_KERNELS as DECAY_KERNELS
from sp_jax.optim.rules import Rule as Rule
from sp_jax.optim.rules import assign as assign
from sp_jax.optim.schedules import cosine as cosine
from sp_jax.optim.schedules import linear_scaling as linear_scaling
from sp_jax.optim.schedules import warmup_cosine as warmup_cosine
from sp_jax.optim.schedules import warmup_drops as warmup_drops
