"""Pairs without labels: the parts of `input_pipeline.mine_pairs`."""
