"""Pairs checked by a person: the parts of `input_pipeline.curate`."""

from sp_jax import extras

extras.require("curate", "The page of curation")
