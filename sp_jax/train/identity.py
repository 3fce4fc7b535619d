"""The identity of a run: the facts that all its seeds share."""

import json
from collections.abc import Mapping
from typing import Any

from sp_jax.config import OPEN_SECTIONS, flatten, get_config

# What may change between the start of a run and its resumption: nothing that affects the
# parameters. `data.store`, `data.pairs` and `init` are only places: fingerprints prove that
# images, table of pairs and first weights ("init_weights" in config.json) are the same.
FREE_TO_CHANGE = tuple(
    "init init_heads loggers log_every profile evals checkpoint fsdp steps_per_call "
    "test_batch_size test_every checkpoint_of_backbone data.dir data.store data.pairs "
    "data.placement data.prefetch data.workers".split()
)


def is_free(name: str) -> bool:
    """Whether a key of the flattened config is one of `FREE_TO_CHANGE`, or below one."""
    return f"{name}.".startswith(tuple(f"{free}." for free in FREE_TO_CHANGE))


def run_facts(config: Mapping[str, Any], pairs: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a run without its seed: runs with equal facts are seeds of one another.

    Args:
        config: nested dicts of JSON values. Keys that an older version lacked get today's
            defaults, except in open sections, where a missing key may mean another default.
        pairs: the record of the pairs in a checkpoint; `recipe` and `store` are read.

    Returns:
        The flattened config without `seed` and what is free to change, and also "images",
        the fingerprint of the training images, and "pairs", the recipe of their table as JSON.
    """
    given = json.loads(json.dumps(config))  # as in the file: tuples become lists
    defaults = flatten(get_config().to_dict())
    closed = {
        name: value
        for name, value in defaults.items()
        if name.partition(".")[0] not in OPEN_SECTIONS
    }
    facts = closed | flatten(given)
    facts = {n: x for n, x in facts.items() if n != "seed" and not is_free(n)}
    recipe = json.dumps(pairs["recipe"], sort_keys=True)
    return facts | {"images": pairs["store"], "pairs": recipe}


# What the features of an untrained network depend on, besides its seed. (Methods with two
# networks draw another one from the same seed, of the same distribution.)
_NETWORK = ("model.", "dtype", "image_size", "data.image_size", "data.resize")
_NETWORK += ("augment.mean", "augment.std", "init")


def network_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's facts, or of a flattened config, that fixes its untrained network."""
    return {name: fact for name, fact in facts.items() if name.startswith(_NETWORK)}
