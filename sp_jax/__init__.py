"""sp_jax: self-supervised learning on semantic pairs, in JAX and Flax."""
