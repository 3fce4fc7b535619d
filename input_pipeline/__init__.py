"""Image stores, pair tables and the stream of batches; free of jax (but `mine_pairs`)."""

import sys

from sp_jax.siblings import FOLDER

sys.path.insert(0, FOLDER)  # the user may have an eval.py
