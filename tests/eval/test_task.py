"""The images that an evaluator fits on, and those that it tests on."""

import numpy as np
import pytest
from PIL import Image

import eval as evals
from sp_jax.errors import UserError

EVALUATORS = ("few_labels", "finetune", "invariance", "knn", "linear_probe")
MORE = {"few_labels": {"amounts": ("5",)}}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes images, and gives the options of their store."""
    monkeypatch.setenv("SP_JAX_DATA", str(tmp_path / "data"))
    rng = np.random.default_rng(0)

    def make(*folders, kind="folder"):
        for folder in folders:
            (tmp_path / "pets" / folder).mkdir(parents=True)
            for number in range(10):
                pixels = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
                pixels.save(tmp_path / "pets" / folder / f"{number}.png")
        return {"dataset": f"{kind}:{tmp_path / 'pets'}", "image_size": 16}

    return make


def splits_of(name, **options):
    return [store.split for store in evals.make(name, options).stores]


@pytest.mark.parametrize("name", EVALUATORS)
def test_train_and_test_where_a_store_has_both(name, write):
    options = write("train/cat", "train/dog", "test/cat", "test/dog", "val/cat")
    options |= MORE.get(name, {})
    assert splits_of(name, **options) == ["train", "test"]
    assert splits_of(name, **options, test_split="val") == ["train", "val"]
    told = splits_of(name, **options, train_split="train", holdout=0.2)
    assert told == ["train:rest=0.2", "train:holdout=0.2"]


@pytest.mark.parametrize("name", EVALUATORS)
def test_a_share_of_a_store_without_splits(name, write):
    options = write("cat", "dog") | MORE.get(name, {})
    with pytest.raises(
        UserError, match="has no splits: hold out a tenth.*--holdout=0.1"
    ):
        evals.make(name, options)
    evaluate = evals.make(name, options | {"holdout": 0.1})
    train, test = evaluate.stores
    assert (train.split, test.split) == ("all:rest=0.1", "all:holdout=0.1")
    assert np.bincount(test.labels).tolist() == [1, 1] and len(train) == 18
    assert "fit all:rest=0.1 (18 images, 2 classes)" in evaluate.protocol
    with pytest.raises(
        UserError, match="holdout=0.1 chooses the test images: leave te"
    ):
        evals.make(name, options | {"holdout": 0.1, "test_split": "all"})


def test_what_has_no_test_split_or_no_labels(write):
    options = write("train/cat", "train/dog", "val/cat", "val/dog")
    with pytest.raises(
        UserError, match="no split 'test': choose one of train, val, all"
    ):
        evals.make("knn", options)
    options["dataset"] = options["dataset"].replace("folder", "images")
    for holdout in (0.0, 0.1):
        with pytest.raises(UserError, match="has no image with a label: choose a lab"):
            evals.make("knn", options | {"holdout": holdout})
