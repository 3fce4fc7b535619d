"""Pairs looked at by a person: what `input_pipeline.curate` is made of."""
