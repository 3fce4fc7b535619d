"""What makes a run what it is: the facts in which its seeds agree."""

import json
from collections.abc import Mapping
from typing import Any

from sp_jax.config import OPEN_SECTIONS, flatten, get_config

# What may change between the start of a run and its resumption: nothing that touches
# the parameters. Where the images and the table of pairs lie is told by `data.store` and
# `data.pairs`; that they are the same is proved by their fingerprints. So it is with `init`,
# what a run started from, by "init_weights" in its config.json.
FREE_TO_CHANGE = tuple(
    "init init_heads loggers profile evals checkpoint fsdp steps_per_call "
    "test_batch_size test_every checkpoint_of_backbone data.dir data.store data.pairs "
    "data.placement data.prefetch data.workers".split()
)


def is_free(name: str) -> bool:
    """Whether a key of the flattened config is one of `FREE_TO_CHANGE`, or below one."""
    return f"{name}.".startswith(tuple(f"{free}." for free in FREE_TO_CHANGE))


def run_facts(config: Mapping[str, Any], pairs: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a run what it is, but its seed: runs with the same facts are its seeds.

    Args:
        config: nested dicts; what JSON can tell. Keys that an older version lacked get the
            defaults of today, but for those of open sections, where a missing key may mean
            another default.
        pairs: what a checkpoint says of its pairs, of which `recipe` and `store` are read.

    Returns:
        The flattened config without `seed` and what is free to change, and besides "images",
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


# What the features of a network without a step depend on, beside its seed.
_NETWORK = ("model.", "dtype", "image_size", "data.image_size", "data.resize")
_NETWORK += ("augment.mean", "augment.std", "init")


def network_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of the facts of a run, or a flattened config, those that it had before its first step."""
    return {name: fact for name, fact in facts.items() if name.startswith(_NETWORK)}
