"""Detection: its network, its data, its training, its average precision and its pictures."""

from sp_jax import extras

extras.require("detection", "eval.detection")
