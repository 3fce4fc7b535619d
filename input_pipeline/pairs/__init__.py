"""Pair tables, how they are made, and the batches of a run. `resident` alone needs jax."""

from input_pipeline.pairs.table import PairTable as PairTable
from input_pipeline.pairs.table import check_table as check_table
from input_pipeline.pairs.table import load_table as load_table
from input_pipeline.pairs.table import save_table as save_table
