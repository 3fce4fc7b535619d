"""The identity of runs: every key counts, except the seed and keys that change nothing."""

import copy
import json

import hypothesis
from hypothesis import strategies as st

from sp_jax.config import flatten, get_config
from sp_jax.train.identity import is_free, run_facts

CONFIG = get_config().to_dict()
CONFIG["augment"]["crop_scale"] = (0.2, 1.0)
PAIRS = {"store": "a1", "recipe": {"by": "labels", "rounds": 1}, "digest": "b2"}


def change(tree, name, value):
    """A copy in which one key, given by a name with dots, has another value."""
    tree = copy.deepcopy(tree)
    *sections, key = name.split(".")
    part = tree
    for section in sections:
        part = part[section]
    part[key] = value
    return tree


@hypothesis.given(
    st.sampled_from(sorted(flatten(CONFIG))),
    st.sampled_from(["another", -7, 0.3, False, (1, 2)]),
)
def test_every_key_counts_but_the_seed_and_what_is_free(name, value):
    facts = run_facts(CONFIG, PAIRS)
    hypothesis.assume(value != flatten(CONFIG)[name])
    changed = run_facts(change(CONFIG, name, value), PAIRS)
    assert (changed == facts) == (name == "seed" or is_free(name))


def test_what_is_free():
    assert is_free("data.pairs") and is_free("evals.knn.type") and is_free("profile")
    assert not is_free("data.pairing") and not is_free("epochs")


def test_images_and_recipe_count_and_no_digest():
    facts = run_facts(CONFIG, PAIRS)
    assert facts["images"] == "a1" and json.loads(facts["pairs"]) == PAIRS["recipe"]
    assert run_facts(CONFIG, PAIRS | {"digest": "c3", "source": "mine"}) == facts
    assert run_facts(CONFIG, PAIRS | {"store": "c3"}) != facts
    for recipe in ({"by": "labels", "rounds": 2}, {"by": "images"}):
        assert run_facts(CONFIG, PAIRS | {"recipe": recipe}) != facts
    turned = dict(reversed(PAIRS["recipe"].items()))
    assert run_facts(CONFIG, PAIRS | {"recipe": turned}) == facts


def test_a_config_from_its_file_and_of_an_older_version():
    facts = run_facts(CONFIG, PAIRS)
    stored = json.loads(json.dumps(CONFIG))
    assert run_facts(stored, PAIRS) == facts
    del stored["data"]["max_skipped"], stored["optimizer"]["clip"], stored["fsdp"]
    assert run_facts(stored, PAIRS) == facts
    # A backbone's own default may be another than that of the first recipe.
    del stored["model"]["zero_init_residual"]
    assert run_facts(stored, PAIRS) != facts
    known = run_facts(change(stored, "data.max_skipped", 0.5), PAIRS)
    assert known["data.max_skipped"] == 0.5
