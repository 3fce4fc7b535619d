"""What the recipes here start from; `sp_jax/config.py` lists every key with its meaning."""

from sp_jax.config import get_config, is_quick, quick

__all__ = ["get_config", "is_quick", "quick"]
