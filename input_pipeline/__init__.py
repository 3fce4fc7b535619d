"""Image stores, pair tables and the stream of batches; free of jax (but `mine_pairs`)."""

from sp_jax import siblings as siblings  # the user may have an eval.py
