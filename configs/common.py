"""The starting point of the recipes here; `sp_jax/config.py` explains every key."""

from sp_jax.config import get_config, is_quick, quick

__all__ = ["get_config", "is_quick", "quick"]
