"""The share of each class that is held out: exact, fixed by names, and known everywhere."""

import numpy as np
import pytest
from PIL import Image

from input_pipeline.stores import holdout, open_store
from sp_jax.errors import UserError


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function that opens a split of a folder of 30 cats, 10 dogs and 2 foxes."""
    root = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(0)
    for name, count in (("cat", 30), ("dog", 10), ("fox", 2)):
        (root / name).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    data = tmp_path_factory.mktemp("data")
    return lambda split: open_store(
        f"folder:{root}", split, image_size=8, data_dir=data
    )


@pytest.mark.parametrize("suffix, held", [("", (3, 1, 0)), ("=0.5", (15, 5, 0))])
def test_a_share_of_each_class_is_held_out(opened, suffix, held):
    test, rest = opened(f"all:holdout{suffix}"), opened(f"all:rest{suffix}")
    assert np.bincount(test.labels, minlength=3).tolist() == list(held)
    assert sorted(test.ids + rest.ids) == sorted(opened("all").ids)
    assert test.split == f"all:holdout{suffix}" and test.class_names == rest.class_names
    assert test.fingerprint != rest.fingerprint
    whole = opened("all")
    rows = [whole.ids.index(name) for name in test.ids]
    assert np.array_equal(test.read(np.arange(len(test))), whole.read(rows))


def test_names_alone_decide(opened):
    store = opened("all")
    rows = holdout.rows_of("holdout", 0.1, store.labels, store.ids)
    # By sha256sum; these must never change.
    known = ["cat/8.png", "cat/10.png", "cat/29.png", "dog/7.png"]
    assert {store.ids[row] for row in rows} == set(known)
    order = np.random.default_rng(1).permutation(len(store))
    labels, ids = store.labels[order], [store.ids[row] for row in order]
    again = holdout.rows_of("holdout", 0.1, labels, ids)
    assert {ids[row] for row in again} == {store.ids[row] for row in rows}


@pytest.mark.parametrize("share, count", [(0.95, 10), (0.85, 3), (0.9, 4)])
def test_a_large_share_leaves_one_image(share, count):
    ids = [f"{number}.png" for number in range(count)]
    assert len(holdout.rows_of("rest", share, np.zeros(count), ids)) == 1


def test_unlabelled_images_are_shared_out_too():
    ids = [f"{number}.png" for number in range(20)]
    assert len(holdout.rows_of("holdout", 0.1, np.full(20, -1), ids)) == 2


def test_a_part_of_a_part(opened):
    part, rest = opened("all:rest:holdout=0.5"), opened("all:rest")
    assert np.bincount(part.labels).tolist() == [14, 4]  # of 27, 9 and 2
    assert set(part.ids) < set(rest.ids)


@pytest.mark.parametrize(
    "split, said",
    [
        ("all:holdout=2", "between 0 and 1, as in all:holdout=0.1"),
        ("all:rest=some", "between 0 and 1, as in all:rest=0.1"),
        ("train:rest", "no split 'train', only 'all'"),
        ("all:other", "no split 'all:other'"),
    ],
)
def test_mistakes_are_words(opened, split, said):
    with pytest.raises(UserError, match=said):
        opened(split)
