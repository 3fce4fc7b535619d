"""Recipes: equal for another seed, different for any other change, trusted while they fit."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from input_pipeline.curation.decisions import Curation
from input_pipeline.pairs import pairing, training
from input_pipeline.pairs.table import PairTable, load_table, save_table
from sp_jax.errors import UserError


@pytest.fixture(scope="module")
def store(make_store):
    return make_store(np.repeat(np.arange(4), 6))


def curated(table, store, path):
    curation = Curation(table, store, path)
    curation.decide((0, "accept"))
    return curation.accepted()[0]


def tables(store, seed, folder):
    """One table of each way of making and of each option of it."""
    drawn = pairing.semantic_pairs(store, seed=seed)
    three = pairing.class_pairs(store, 3, seed=seed)
    return {
        "drawn": drawn,
        "two rounds": pairing.semantic_pairs(store, rounds=2, seed=seed),
        "own": pairing.own_pairs(store),
        "three": three,
        "two": pairing.class_pairs(store, 2, seed=seed),
        "two of three": pairing.subset(three, 2),
        "classes": pairing.class_pairs(store, 3, seed=seed, classes=[1, 0]),
        "others": pairing.class_pairs(store, 3, seed=seed, classes=[1, 2]),
        "of classes": pairing.of_classes(three, [0, 1], store),
        "matched": pairing.augmented_pairs(three, store),
        "matched both": pairing.augmented_pairs(three, store, "both"),
        "matched two": pairing.augmented_pairs(pairing.subset(three, 2), store),
        "half": pairing.mixed_pairs(three, 0.5, seed=seed),
        "third": pairing.mixed_pairs(three, 1 / 3, seed=seed),
        "typed": dataclasses.replace(three, recipe={}),
        "curated": curated(three, store, folder / f"decisions{seed}.csv"),
    }


def test_recipes_differ_in_all_but_the_seed(store, tmp_path):
    one, two = (tables(store, seed, tmp_path) for seed in (0, 1))
    for name, table in one.items():
        by_digest = table.recipe["by"] in ("file", "curated")
        assert (table.recipe == two[name].recipe) == (not by_digest), name
        assert json.loads(json.dumps(table.recipe)) == table.recipe
    for (name, table), (other, another) in itertools.combinations(one.items(), 2):
        assert table.recipe != another.recipe, (name, other)
    assert one["drawn"].recipe == {"by": "labels", "rounds": 1}
    assert one["typed"].recipe == {"by": "file", "digest": one["three"].digest}
    again = pairing.class_pairs(store, 3, seed=0, classes=[0, 1])
    assert again.recipe == one["classes"].recipe  # The order is as good as a seed.


def test_a_file_keeps_the_recipe(store, tmp_path):
    for number, table in enumerate(tables(store, 0, tmp_path).values()):
        path = tmp_path / f"{number}.csv"
        save_table(path, table, store)
        assert load_table(path, store).info() == table.info()


@pytest.fixture
def saved(store, tmp_path):
    table = pairing.class_pairs(store, 3, seed=0)
    save_table(tmp_path / "pairs.csv", table, store)
    return table, tmp_path / "pairs.csv"


def test_a_table_that_was_edited_is_another(store, saved):
    table, path = saved
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]))
    loaded = load_table(path, store)
    assert loaded.recipe == {"by": "file", "digest": loaded.digest}
    assert loaded.source == f"edited by hand: {table.source}"
    save_table(path, loaded, store)
    assert load_table(path, store).info() == loaded.info()
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    assert load_table(path, store).source == loaded.source  # It is said once.
    # A spreadsheet program may have torn the recipe.
    path.write_text("\n".join(lines).replace("# recipe={", '"# recipe={""'))
    torn = load_table(path, store)
    assert torn.recipe == {"by": "file", "digest": table.digest}
    assert torn.source == table.source


def without(text, *keys):
    lines = text.splitlines(keepends=True)
    return "".join(x for x in lines if not x.startswith(tuple(f"# {k}=" for k in keys)))


@pytest.mark.parametrize(
    "source, recipe",
    [
        ("semantic pairs, rounds=2, seed=7", {"by": "labels", "rounds": 2}),
        (
            "semantic pairs, rounds=1, seed=7; 3 images alone in their class left out",
            {"by": "labels", "rounds": 1},
        ),
        ("each image with itself", {"by": "images"}),
        (
            "augmentation pairs matched to: 2 pairs a class, 4 classes, seed=7",
            "augmentation pairs matched to: 2 pairs a class, 4 classes",
        ),
        ("0.5 semantic, seed=7, of: pairs a class, 4 classes, seed=7", None),
        ("curated (3 of 9 accepted): 2 pairs a class, 4 classes, seed=7", None),
        ("mutual 5 nearest neighbours by runs/ap", None),
        ("mine, rounds=2, seed=7", None),
    ],
)
def test_tables_of_before(store, saved, source, recipe):
    """Sources that say how a table was made from labels; others are known by the pairs."""
    table, path = saved
    text = without(path.read_text(), "recipe", "digest")
    path.write_text(text.replace(table.source, source))
    loaded = load_table(path, store)
    if source.startswith("0.5"):
        recipe = "0.5 semantic, of: pairs a class, 4 classes"
    if isinstance(recipe, str):
        recipe = {"by": "source", "source": recipe}
    assert loaded.recipe == (recipe or {"by": "file", "digest": table.digest})
    assert loaded.source == source


def test_what_a_folder_says_of_its_pairs(store, saved, tmp_path):
    table, path = saved
    mixed = PairTable.of(
        store, table.first, np.where(table.first < 6, table.first, table.second), ""
    )
    for one in (table, mixed):
        save_table(path, one, store)
        found = training.pairs_info(tmp_path)
        assert found | {"source": one.source} == one.info()
        assert training.pairs_info(tmp_path / "nowhere", one.info()) == one.info()
    assert found["same"] == 0.25
    # A run of before: its checkpoints know the digest, its file knows the source.
    path.write_text(without(path.read_text(), "recipe", "digest"))
    before = {"digest": mixed.digest, "store": mixed.fingerprint}
    assert training.pairs_info(tmp_path, before)["recipe"] == mixed.recipe
    assert training.pairs_info(tmp_path)["recipe"]["by"] == "file"
    path.write_text("first,second,label\n")
    with pytest.raises(UserError, match="not a table of a run"):
        training.pairs_info(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="put the file back"):
        training.pairs_info(tmp_path, before)


def test_a_run_of_before_goes_on(store, saved, tmp_path):
    table, path = saved
    path.write_text(without(path.read_text(), "recipe", "digest"))
    training.keep_pairs(tmp_path, table, store, None)
    assert load_table(path, store).info() == table.info()
    with pytest.raises(UserError, match="changed since the run"):
        training.keep_pairs(tmp_path, pairing.subset(table, 2), store, None)
