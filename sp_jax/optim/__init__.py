"""Schedules and optimisers."""

from sp_jax.optim.optimizers import get as get
from sp_jax.optim.optimizers import kernel_mask as kernel_mask
from sp_jax.optim.schedules import linear_scaling as linear_scaling
from sp_jax.optim.schedules import warmup_cosine as warmup_cosine
