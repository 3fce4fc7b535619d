"""sp_jax: self-supervised learning on semantic pairs, in JAX and Flax."""

from sp_jax import xla_flags

xla_flags.set_cpu_flags()
