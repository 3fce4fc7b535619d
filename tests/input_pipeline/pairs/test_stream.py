"""The stream: a batch is a function of the seed and the step, in any process."""

import threading

import grain
import numpy as np
import pytest

from input_pipeline.pairs.pairing import (
    augmented_pairs,
    class_pairs,
    own_pairs,
    semantic_pairs,
)
from input_pipeline.pairs.sampling import Sampler, threefry
from input_pipeline.pairs.stream import iterate
from input_pipeline.pairs.stream import make_dataset as make_stream
from sp_jax.config import PAIRINGS
from sp_jax.errors import UserError


@pytest.fixture(scope="module")
def store(make_store):
    """70 images in 10 classes."""
    return make_store(np.repeat(np.arange(10), 7))


@pytest.fixture(scope="module")
def table(store):
    """140 pairs."""
    return semantic_pairs(store, rounds=2, seed=0)


def make_dataset(store, table, process_index=0, process_count=1, **options):
    return make_stream(store, Sampler(table, **options), process_index, process_count)


def _same(one, two):
    assert one.keys() == two.keys()
    for key in one:
        assert np.array_equal(one[key], two[key]), key


def test_each_epoch_is_a_permutation(store, table):
    dataset = make_dataset(store, table, batch_size=32, seed=5)
    assert isinstance(dataset, grain.MapDataset)
    assert Sampler(table, 32, seed=5).steps_per_epoch == 4
    pairs = list(zip(table.first.tolist(), table.second.tolist(), strict=True))
    orders = []
    for epoch in range(8):
        batches = [dataset[4 * epoch + i] for i in range(4)]
        index = np.concatenate([batch["index"] for batch in batches])
        orders.append([tuple(row) for row in index.tolist()])
        assert len(set(orders[-1])) == 128  # The remainder, 12 pairs, is dropped ...
        assert set(orders[-1]) <= set(pairs)
    assert len({tuple(order) for order in orders}) == 8
    # ... but not the same pairs for ever.
    assert len(set().union(*orders)) == 140
    # Not grain's seeds: epoch 1 of one seed is no epoch 0 of the next.
    other = make_dataset(store, table, batch_size=32, seed=6)
    assert other[0]["index"].tolist() != [list(pair) for pair in orders[1][:32]]
    # Every pair whole: with all of it in one batch, the epoch is a permutation.
    whole = make_dataset(store, table, batch_size=140, seed=5)[9]["index"]
    assert sorted(map(tuple, whole.tolist())) == sorted(pairs)


def test_batch_holds_the_pixels_of_its_index(store, table):
    batch = make_dataset(store, table, batch_size=32, seed=5)[11]
    assert batch["image"].shape == (32, 2, 4, 4, 3) and batch["image"].dtype == np.uint8
    assert batch["index"].shape == (32, 2) and batch["index"].dtype == np.int32
    assert batch["label"].shape == (32,) and batch["label"].dtype == np.int32
    assert np.array_equal(batch["image"], store.images[batch["index"]])
    assert np.array_equal(store.labels[batch["index"][:, 1]], batch["label"])


def test_augmented_reads_each_image_once(store, table):
    options = {"batch_size": 32, "seed": 5}
    semantic = make_dataset(store, table, **options)[3]
    augmented = make_dataset(store, table, pairing="augmented", **options)[3]
    assert augmented["image"].shape == (32, 1, 4, 4, 3)
    assert augmented["index"].shape == (32, 1)
    # The same first images in the same order: matched runs differ by the pair only.
    assert np.array_equal(augmented["image"][:, 0], semantic["image"][:, 0])
    matched = augmented_pairs(table, store)
    matched = make_dataset(store, matched, pairing="augmented", **options)[3]
    _same(augmented, matched)


def test_both_images_in_half_the_epochs(store):
    """Each image as often as with the pairs themselves, in as many steps, exactly."""
    table = class_pairs(store, 3, seed=2)  # 30 pairs, each image once
    semantic, both = Sampler(table, 8, 5), Sampler(table, 8, 5, "both")
    assert (semantic.steps_per_epoch, both.steps_per_epoch) == (3, 6)  # not 60 // 8
    images = np.concatenate([table.first, table.second])
    shown = np.concatenate([both.batch(step)["index"] for step in range(6)])
    assert shown.shape == (48, 1) and len(set(shown[:, 0])) == 48
    assert set(shown[:, 0]) <= set(images)
    whole = Sampler(table, 30, 5, "both")
    steps = [whole.batch(step)["index"][:, 0] for step in range(4)]
    for epoch in (steps[:2], steps[2:]):
        assert sorted(np.concatenate(epoch)) == sorted(images)
    assert steps[0].tolist() != steps[2].tolist()
    # The table of these pairs shows the same images.
    table = augmented_pairs(table, store, "both")
    assert np.array_equal(table.first, images) and np.array_equal(table.second, images)
    assert np.array_equal(table.label, store.labels[images])


def test_the_label_is_that_of_both_images(make_store, store, table):
    """In each kind of pairs; -1 where an image has none."""
    partly = make_store(np.array([2, -1, 0, 2, -1, 1, -1, -1]))
    cases = [(store, table, pairing) for pairing in PAIRINGS]
    cases.append((partly, own_pairs(partly), "augmented"))
    for images, pairs, pairing in cases:
        batch = make_dataset(images, pairs, batch_size=8, seed=1, pairing=pairing)[0]
        assert batch["label"].dtype == np.int32
        for column in batch["index"].T:
            assert np.array_equal(images.labels[column], batch["label"])
    assert sorted(batch["label"]) == sorted(partly.labels)


def test_mixed_choices(table):
    def batch(step, fraction, seed=5):
        sampler = Sampler(table, 140, seed, "mixed", fraction)
        return sampler.batch(step)["index"]

    semantic = Sampler(table, 140, seed=5)
    kept = []
    for step in range(100):
        index, whole = batch(step, 0.3), semantic.batch(step)["index"]
        chosen = index[:, 1] != index[:, 0]
        assert index.shape == (140, 2)
        assert np.array_equal(index[:, 0], whole[:, 0])
        assert np.array_equal(index[chosen, 1], whole[chosen, 1])
        kept.append(chosen)
    # 14,000 choices: standard deviation 0.0039.
    assert np.mean(kept) == pytest.approx(0.3, abs=0.016)
    assert len({chosen.tobytes() for chosen in kept}) == 100  # New choices each step.
    assert np.array_equal(batch(3, 1.0), semantic.batch(3)["index"])
    assert np.array_equal(batch(3, 0.0)[:, 1], semantic.batch(3)["index"][:, 0])
    # More semantic pairs are a superset of fewer: the same choices.
    less, more = (
        set(np.flatnonzero(np.diff(batch(3, fraction))[:, 0]))
        for fraction in (0.2, 0.6)
    )
    assert less < more


def test_a_schedule_is_the_fraction_of_each_step(table):
    """Only the step counts, so a resumed run sees the batches that it would have seen."""
    schedule = (0, 0.2), (0.5, 0.8), (3, 0.0)
    scheduled = Sampler(table, 35, 5, "mixed", 0.5, schedule)  # 4 steps an epoch
    for step in (0, 1, 2, 11, 12, 40):
        fraction = 0.2 if step < 2 else 0.8 if step < 12 else 0.0
        constant = Sampler(table, 35, 5, "mixed", fraction)
        wanted = constant.batch(step)["index"]
        assert np.array_equal(scheduled.batch(step)["index"], wanted)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_processes_share_the_global_batch(store, table, pairing):
    options = {"batch_size": 24, "seed": 5, "pairing": pairing}
    whole = make_dataset(store, table, **options)
    for count in (2, 3):
        parts = [
            make_dataset(store, table, process_index=i, process_count=count, **options)
            for i in range(count)
        ]
        for step in (0, 7):
            joined = {
                key: np.concatenate([part[step][key] for part in parts])
                for key in ("image", "index", "label")
            }
            _same(joined, whole[step])


@pytest.mark.parametrize("ahead", [(0,), (1,), (2,), (2, 2)])
def test_iterate_from_the_middle_is_the_tail(store, table, ahead):
    """In this thread, by another, and by two worker processes."""
    options = {"batch_size": 32, "seed": 5, "pairing": "mixed"}
    whole = list(iterate(make_dataset(store, table, **options), 0, 11))
    tail = list(iterate(make_dataset(store, table, **options), 6, 11, *ahead))
    assert (len(whole), len(tail)) == (11, 5)
    for one, two in zip(whole[6:], tail, strict=True):
        _same(one, two)
    assert list(iterate(make_dataset(store, table, **options), 11, 11)) == []


def test_iterate_ends_its_thread_and_passes_errors_on(store, table):
    def threads():
        return {t for t in threading.enumerate() if "grain" in t.name}

    before = threads()
    dataset = make_dataset(store, table, batch_size=32, seed=5)
    batches = iterate(dataset, 0, 1000)
    next(batches)
    started = threads() - before
    assert len(started) == 1
    batches.close()  # In the middle, as when training stops early.
    for thread in started:
        thread.join(timeout=10)
        assert not thread.is_alive()

    def fail(batch):
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(iterate(dataset.map(fail), 0, 10))


def test_order_never_changes(table):
    """A run must be repeatable with another NumPy: fixed numbers, not a second run."""
    sampler = Sampler(table, batch_size=8, seed=5, pairing="mixed")
    assert sampler.batch(20)["index"].tolist() == FIXED


FIXED = [[2, 2], [43, 48], [62, 60], [40, 40], [56, 62], [51, 51], [6, 3], [23, 23]]


def test_threefry_is_the_published_one():
    """Known answers of the authors' Random123: counter and key, zero, ones and pi."""
    for *given, answer in [
        (0, 0, 0, 0, [0x6B200159, 0x99BA4EFE]),
        (*[0xFFFFFFFF] * 4, [0x1CB996FC, 0xBB002BE7]),
        (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3, [0xC4923A9C, 0x483DF7A0]),
    ]:
        words = threefry(*(np.array([word], np.uint32) for word in given))
        assert [int(word[0]) for word in words] == answer


def test_errors(store, table, make_store):
    def make(images=store, **options):
        make_dataset(images, table, **{"batch_size": 32, "seed": 0, **options})

    for options, message in [
        ({"batch_size": 141}, "141 exceeds the 140 pairs"),
        ({"batch_size": 0}, "at least 1"),
        ({"pairing": "all"}, "semantic, augmented, both, mixed"),
        ({"pairing": "mixed", "semantic_fraction": 1.5}, "between 0 and 1"),
        ({"pairing": "mixed", "schedule": ((1, 0.5),)}, "rise from 0"),
        ({"pairing": "mixed", "schedule": ((0, 0.5), (0, 1.0))}, "rise from 0"),
        ({"pairing": "mixed", "schedule": ((0, 1.5),)}, "between 0 and 1"),
        ({"pairing": "mixed", "schedule": (0, 1)}, r"give \(epoch, fraction\) pairs"),
        ({"schedule": ((0, 0.5),)}, "for mixed pairs, but pairing is 'semantic'"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"process_count": 3}, "cannot be shared by 3"),
        ({"process_index": 2, "process_count": 2}, "no process 2"),
    ]:
        with pytest.raises(UserError, match=message):
            make(**options)
    other = make_store([0] * 70, name="other")
    with pytest.raises(UserError, match="made for store 'tiny'.*'other'"):
        make(images=other)
