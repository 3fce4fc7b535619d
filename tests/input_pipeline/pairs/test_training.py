"""A run's config opens its table, its sampler, and the images that are shown."""

import numpy as np
import pytest

from input_pipeline.pairs import pairing, save_table, training
from input_pipeline.pairs.sampling import Sampler
from input_pipeline.pairs.training import open_pairs
from input_pipeline.stores import open_store
from sp_jax.config import get_config
from sp_jax.errors import UserError


@pytest.mark.parametrize(
    "kind, images, epoch", [("augmented", 824, 51), ("both", 1648, 102)]
)
def test_images_that_ap_shows(kind, images, epoch, emoji_dir, tmp_path):
    """Of a table of single use the first alone, as in the paper, or all in twice the steps."""
    store = open_store("emoji", "pretrain", data_dir=emoji_dir)
    save_table(tmp_path / "sp.csv", pairing.class_pairs(store, 1, seed=0), store)
    config = get_config()
    config.batch_size = 16
    config.data.update(split="pretrain", dir=str(emoji_dir), pairing=kind)
    config.data.pairs = str(tmp_path / "sp.csv")
    pairs = open_pairs(config)
    assert (len(pairs.table), len(pairs.shown)) == (824, images)
    assert pairs.sampler.steps_per_epoch == epoch
    batches = [pairs.sampler.batch(step)["index"] for step in range(epoch)]
    assert len(np.unique(batches)) == epoch * 16
    config.data.pairs = ""  # A table that is drawn shows all images either way.
    assert len(open_pairs(config).shown) == len(store)


def test_ap_needs_no_class_of_two(make_store, monkeypatch):
    """Each image of its own class, or unlabelled but for one: all are shown."""
    config = get_config()
    config.batch_size = 4
    for labels in (range(8), [0] + 7 * [-1]):
        store = make_store(list(labels))
        monkeypatch.setattr(training, "open_data", lambda data, store=store: store)
        config.data.pairing = "augmented"
        assert len(open_pairs(config).table) == 8
        config.data.pairing = "semantic"
        with pytest.raises(UserError, match="no semantic pairs"):
            open_pairs(config)


def test_a_fraction_is_of_mixed_pairs(make_store):
    table = pairing.semantic_pairs(make_store([0, 0, 0, 0]), seed=0)
    Sampler(table, 2, 0, "mixed", 0.3)
    for more in (("semantic", 0.3), ("mixed", 0.3, ((0.0, 1.0),))):
        with pytest.raises(UserError, match="semantic_fraction is 0.3, but it is for"):
            Sampler(table, 2, 0, *more)
