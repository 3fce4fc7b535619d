"""The identity of an encoder, for the recipes of the pairs that it found."""

import os
from typing import TYPE_CHECKING, Any

from input_pipeline.pairs.origin import digest_json
from input_pipeline.pairs.training import pairs_info
from sp_jax.train.identity import run_facts

if TYPE_CHECKING:
    from sp_jax.backbone import Backbone


def describe(backbone: "Backbone", path: str | os.PathLike[str]) -> dict[str, Any]:
    """A run by its facts and step, so that all its seeds count as one; a file by its weights.

    Args:
      backbone: what was loaded.
      path: from where.

    Returns:
      Plain JSON: "run", a digest, with "method", "step" and "of" (steps); or "weights".
    """
    from sp_jax.train.restore import find_checkpoint  # Starts jax: late.

    info = backbone.info
    if "run" not in info:
        return {"weights": backbone.identity()}
    pairs = pairs_info(find_checkpoint(path).parents[1], info.get("pairs"))
    return {
        "run": digest_json(run_facts(info["config"], pairs)),
        "method": info["config"]["method"],
        "step": info["step"],
        "of": info["run"]["total_steps"],
    }
