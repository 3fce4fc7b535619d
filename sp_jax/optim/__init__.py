"""Schedules, optimisers, and the rules that say which parameter decays."""

from sp_jax.optim.optimizers import get as get
from sp_jax.optim.rules import EVERYTHING as EVERYTHING
from sp_jax.optim.rules import KERNELS as KERNELS
from sp_jax.optim.rules import Rule as Rule
from sp_jax.optim.rules import assign as assign
from sp_jax.optim.schedules import cosine as cosine
from sp_jax.optim.schedules import linear_scaling as linear_scaling
from sp_jax.optim.schedules import warmup_cosine as warmup_cosine
from sp_jax.optim.schedules import warmup_drops as warmup_drops
