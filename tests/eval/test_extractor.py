"""Feature extraction and the opening of tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eval as evals
from eval.probes import moments, standardize
from eval.task import TaskOptions, open_task
from sp_jax.errors import UserError
from sp_jax.features import Extractor

SPLITS = dict(dataset="tiny", train_split="train", test_split="test")


def task(target="label"):
    return open_task(TaskOptions(**SPLITS, target=target, image_size=2))


def test_last_batch_is_filled_up_and_cut_off(make_store, pixels):
    values = np.random.default_rng(0).integers(0, 256, (11, 12))
    store = make_store(values, [0] * 11)
    shapes = []

    def features_fn(images):
        shapes.append(images.shape)
        return jnp.asarray(pixels(images), jnp.bfloat16)

    features = Extractor(features_fn, batch_size=4).extract(store)
    assert shapes == [(4, 2, 2, 3)] * 3
    assert features.dtype == np.float32
    expected = np.asarray(jnp.asarray(values, jnp.bfloat16), np.float32)
    np.testing.assert_array_equal(features, expected)


def test_a_store_is_extracted_once_and_shared_safely(make_store, pixels):
    calls = []

    def features_fn(images):
        calls.append(len(images))
        return pixels(images)

    extractor = Extractor(features_fn, batch_size=8)
    one = make_store(np.eye(12) * 9, [0] * 12)
    features = extractor.extract(one)
    # Opened a second time it is another object with the same content.
    again = extractor.extract(make_store(np.eye(12) * 9, [0] * 12))
    assert again is features and len(calls) == 2
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 0
    extractor.extract(make_store(np.eye(12) * 8, [0] * 12))
    assert len(calls) == 4


def test_images_of_no_store(pixels):
    """Any number of them, in batches of one size, and none is remembered."""
    images = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 3), np.uint8)
    extractor = Extractor(pixels, batch_size=4)
    np.testing.assert_array_equal(extractor.map(images), pixels(images))
    np.testing.assert_array_equal(extractor.map(255 - images), pixels(255 - images))


def test_bad_features_are_named(make_store, pixels):
    store = make_store(np.eye(12), [0] * 12)
    with pytest.raises(UserError, match="NaN or infinite features on tiny train"):
        Extractor(lambda images: pixels(images) + np.nan).extract(store)
    with pytest.raises(ValueError, match=r"\[256, D\]"):
        Extractor(lambda images: images).extract(store)


def test_evaluators_run_where_implicit_transfers_are_errors(blobs, provide, pixels):
    provide(blobs("train", 0), blobs("test", 1))
    extractor = Extractor(jax.jit(lambda images: images.reshape(len(images), -1) / 9))
    knn = evals.get("knn").create(**SPLITS, k=5)
    probe = evals.get("linear_probe").create(**SPLITS, epochs=5)
    metrics = evals.get("metrics").create(dataset="tiny", split="test")
    retrieval = evals.get("retrieval").create(
        dataset="tiny", splits=("test",), protocol="leave_one_out"
    )
    with jax.transfer_guard("disallow"):
        assert knn(extractor, 0)["accuracy"] > 0.5
        assert metrics(extractor, 0)["distance_ratio"] < 1
        assert retrieval(extractor, 0)["top1"] > 0.5
        assert probe(extractor, 0)["accuracy"] > 0.5


def test_task_leaves_out_unlabelled_and_counts_unseen_classes_as_wrong(
    make_store, provide
):
    provide(
        make_store(np.eye(12)[:5], [7, -1, 3, 7, 3], "train"),
        make_store(np.eye(12)[:4], [3, 5, -1, 7], "test"),
    )
    found = task()
    assert found.train_rows.tolist() == [0, 2, 3, 4]
    assert found.train_labels.tolist() == [1, 0, 1, 0]
    assert found.test_rows.tolist() == [0, 1, 3]
    assert found.test_labels.tolist() == [0, -1, 1]
    assert found.text == (
        "tiny label, fit train (4 images, 2 classes) -> test test (3), "
        "1 of them of classes not in train, counted as wrong"
    )


@pytest.mark.parametrize(
    "train, test, message",
    [
        ([0, 1], [2, 3], "No label in tiny test occurs in train: .*label, artist"),
        ([-1, -1], [0, 1], "tiny train has no image with a label"),
        ([0, 1], [-1, -1], "tiny test has no image with a label"),
        ([1, 1], [1, 1], "All labels in tiny train are the same"),
    ],
)
def test_a_task_without_anything_to_learn(make_store, provide, train, test, message):
    provide(
        make_store(np.eye(12)[:2], train, "train", artist=[0, 1]),
        make_store(np.eye(12)[2:4], test, "test", artist=[0, 1]),
    )
    with pytest.raises(UserError, match=message):
        task()
    assert task("artist").num_classes == 2


def test_shared_images_missing_splits_and_targets(blobs, provide):
    provide(blobs("train", 0))
    with pytest.raises(UserError, match="share 60 images"):
        open_task(TaskOptions(**SPLITS | {"test_split": "train"}))
    with pytest.raises(UserError, match="no split 'test'"):
        task()
    provide(blobs("train", 0), blobs("test", 1))
    with pytest.raises(UserError, match="no target 'colour'"):
        task("colour")


def test_moments_are_exact_far_from_zero_and_safe_for_constants():
    rng = np.random.default_rng(0)
    x = (1000 + 0.1 * rng.standard_normal((9000, 3))).astype(np.float32)
    x[:, 1] = 0.1  # Its float32 mean is off by a rounding error.
    x[:, 2] = 0
    mean, scale = moments(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-7)
    expected = x[:, 0].astype(np.float64).std()
    np.testing.assert_allclose(scale, [expected, 1, 1], rtol=1e-6)
    standard = standardize(x, mean, scale)
    assert standard.dtype == np.float32
    np.testing.assert_allclose(standard[:, 1:], 0, atol=1e-7)


def test_unknown_evaluators_and_options():
    with pytest.raises(UserError, match="choose one of: .*finetune, .*retrieval"):
        evals.get("knnn")
    knn = evals.get("knn")
    with pytest.raises(UserError, match="Unknown option 'kk'"):
        knn.create(**SPLITS, kk=3)
    with pytest.raises(UserError, match="'dataset' is missing"):
        knn.create(train_split="train")
    with pytest.raises(UserError, match="k must be of type int, not '3'"):
        knn.create(**SPLITS, k="3")
    with pytest.raises(UserError, match="learning_rates must be a non-empty list"):
        evals.get("linear_probe").create(**SPLITS, learning_rates=0.1)
