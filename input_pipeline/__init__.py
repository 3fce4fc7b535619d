"""Image stores, pair tables and the stream of batches; free of jax (but `mine_pairs`)."""
