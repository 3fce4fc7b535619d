"""Pairs without labels: what `input_pipeline.mine_pairs` is made of."""
