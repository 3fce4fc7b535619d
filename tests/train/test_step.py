"""What the step asks of a method."""

import jax.numpy as jnp
import pytest

from sp_jax.errors import UserError
from sp_jax.train.step import check_metrics


def test_metrics_are_single_numbers_with_names_of_their_own():
    check_metrics({"entropy": jnp.float32(1.0)})
    with pytest.raises(
        UserError, match=r"'entropy' must be one .* \[3\]: take its mean"
    ):
        check_metrics({"entropy": jnp.zeros(3)})
    with pytest.raises(UserError, match="'loss' needs another name"):
        check_metrics({"loss": jnp.float32(1.0)})
