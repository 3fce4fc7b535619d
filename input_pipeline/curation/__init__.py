"""Pairs looked at by a person: what `input_pipeline.curate` is made of."""

from sp_jax import extras

extras.require("curate", "The page of curation")
