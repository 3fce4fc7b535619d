"""Batches of boxes: functions of the seed and the step, with boxes that stay on objects."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from eval.detection.data import Batches, make_dataset
from eval.detection.data import test_batches as batches_of
from input_pipeline.pairs.stream import iterate
from sp_jax.errors import UserError

# 7 landscape and 5 portrait images with one or two white boxes, and one image without.
SIZES = [(40, 60)] * 4 + [(60, 40)] * 5 + [(30, 30)] * 3 + [(40, 60)]
BOXES = [[(6 + row, 8, 30, 20)] for row in range(12)] + [[]]
BOXES[0] = [(2, 2, 8, 6), (20, 10, 50, 36), (5, 25, 15, 38)]


@pytest.fixture(scope="module")
def store(make_boxes):
    return make_boxes(SIZES, BOXES)


def make(store, batch_size=2, seed=3, sizes=((48, 64), (90, 100)), max_boxes=2, **kw):
    return Batches(store, batch_size, seed, sizes, max_boxes, **kw)


def _same(one, two):
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], key)


def test_boxes_stay_on_their_objects(store):
    batches = make(store)
    seen, shapes = set(), set()
    for step in range(25):
        batch = batches.batch(step)
        shapes.add(batch["image"].shape[1:3])
        columns = [batch[k] for k in ("image", "size", "boxes", "label", "index")]
        for image, size, boxes, labels, row in zip(*columns, strict=True):
            height, width = size
            assert not image[height:].any() and not image[:, width:].any()
            white = image[:height, :width, 0] > 127
            area = 0
            for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
                if label < 0:
                    assert (x1, y1, x2, y2) == (0, 0, 0, 0)
                    continue
                # All of it, but for pixels on the border of the box, is white.
                x1, y1, x2, y2 = (round(float(x)) for x in (x1, y1, x2, y2))
                assert white[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
                area += (x2 - x1) * (y2 - y1)
                seen.add(int(row))
            # And nothing else is; only image 0 has more boxes than there is room for.
            if row:
                assert abs(white.sum() - area) < 0.1 * area
            else:
                assert white.sum() > area and (labels >= 0).all()
    assert shapes == {(48, 64), (64, 48), (90, 100), (100, 90)}
    assert seen == set(range(12))  # The last one has no box.


def test_the_largest_boxes_are_kept(store):
    batches = make(store, batch_size=1, sizes=[(40, 60)], flip=False)
    step = next(s for s in range(12) if batches.rows(s)[0] == 0)
    wanted = [[20, 10, 50, 36], [5, 25, 15, 38]]
    assert batches.batch(step)["boxes"][0].tolist() == wanted


def test_a_mirrored_batch_is_the_mirrored_batch(store):
    plain, mirrored = make(store, batch_size=4, flip=False), make(store, batch_size=4)
    coins = []
    for step in range(6):
        one, two = plain.batch(step), mirrored.batch(step)
        for key in ("index", "size", "label"):
            np.testing.assert_array_equal(one[key], two[key])
        for i, (height, width) in enumerate(one["size"]):
            image, other = (x["image"][i, :height, :width] for x in (one, two))
            count = (one["label"][i] >= 0).sum()
            boxes, moved = (x["boxes"][i, :count] for x in (one, two))
            coins.append(not np.array_equal(image, other))
            if coins[-1]:  # Mirrored again, it is what it was.
                other = other[:, ::-1]
                moved = moved[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
            np.testing.assert_array_equal(image, other)
            np.testing.assert_allclose(boxes, moved, atol=1e-5)
    assert 0.2 < np.mean(coins) < 0.8


def test_a_batch_is_a_function_of_seed_and_step(store):
    batches = make(store, batch_size=4)
    want = [batches.batch(step) for step in range(9)]
    assert len({tuple(batch["index"]) for batch in want}) == 9
    for step in (8, 2):  # In any order, by another object.
        _same(make(store, batch_size=4).batch(step), want[step])
    got = list(iterate(make_dataset(batches), 2, 9))
    for one, two in zip(got, want[2:], strict=True):
        _same(one, two)
    shares = [make_dataset(batches, p, 2) for p in (0, 1)]
    for step in (0, 5):
        first, second = (share[step] for share in shares)
        whole = {k: np.concatenate([first[k], second[k]]) for k in first}
        _same(whole, want[step])
    other = make(store, batch_size=4, seed=4)
    assert any((other.rows(s) != want[s]["index"]).any() for s in range(3))


images = st.lists(
    st.tuples(st.sampled_from([(30, 60), (60, 30), (9, 9)]), st.integers(0, 2)),
    min_size=1,
    max_size=40,
)


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(images, st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_an_epoch_sees_every_image_once(make_boxes, images, batch_size, seed):
    store = _without_pixels(make_boxes, images)
    boxed = [i for i, (_, count) in enumerate(images) if count]
    portrait = [i for i in boxed if images[i][0] == (60, 30)]
    whole = [n // batch_size for n in (len(boxed) - len(portrait), len(portrait))]
    if not sum(whole):
        with pytest.raises(UserError):
            make(store, batch_size=batch_size, seed=seed)
        return
    batches = make(store, batch_size=batch_size, seed=seed)
    assert batches.steps_per_epoch == sum(whole)
    for epoch in (0, 3):
        steps = np.arange(sum(whole)) + epoch * sum(whole)
        rows = np.stack([batches.rows(step) for step in steps])
        assert len(set(rows.ravel())) == rows.size and set(rows.ravel()) <= set(boxed)
        upright = np.isin(rows, portrait)
        assert (upright == upright[:, :1]).all()
        assert upright.sum() == whole[1] * batch_size


def _without_pixels(make_boxes, images):
    empty = make_boxes([], [])
    return dataclasses.replace(
        empty,
        ids=tuple(map(str, range(len(images)))),
        sizes=np.asarray([size for size, _ in images], np.int32),
        boxes=[np.ones((count, 4), np.float32) for _, count in images],
    )


def test_no_image_is_left_out_for_ever(store):
    """7 landscape images in batches of 4: three are dropped, each epoch others."""
    batches = make(store, batch_size=4)
    rows = [batches.rows(step) for step in range(2 * 20)]
    assert set(np.concatenate(rows)) == set(range(12))
    # Landscape and portrait batches come in any order.
    first = [rows[2 * epoch][0] in range(4, 9) for epoch in range(20)]
    assert 2 < sum(first) < 18


sides = st.integers(1, 300)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    st.tuples(sides, sides),
    st.tuples(sides, sides),
    st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4), min_size=1, max_size=5),
    st.booleans(),
)
def test_geometry(make_boxes, size, array, shares, flip):
    """Boxes lie in the image as before, and the image fits as far as it can."""
    corners = np.sort(np.asarray(shares, np.float32).reshape(-1, 2, 2), axis=1)
    corners = corners.reshape(-1, 4)
    store = make_boxes([size], [[]])
    own = corners * np.float32([size[1], size[0]] * 2)
    store = dataclasses.replace(
        store, boxes=[own], labels=[np.zeros(len(own), np.int32)]
    )
    batches = make(store, batch_size=1, sizes=[array], max_boxes=5, flip=flip)
    batch = batches.batch(0)
    upright = size[0] > size[1]
    assert batch["image"].shape[1:3] == (array[::-1] if upright else array)
    (height, width), most = batch["size"][0], batch["image"].shape[1:3]
    assert 1 <= height <= most[0] and 1 <= width <= most[1]
    assert height == most[0] or width == most[1]
    factor = min(most[0] / size[0], most[1] / size[1])
    assert abs(height - size[0] * factor) <= 1 and abs(width - size[1] * factor) <= 1
    boxes = batch["boxes"][0, : len(own)]
    assert (boxes >= 0).all() and (boxes <= [width, height] * 2).all()
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    mirrored = corners[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    wanted = [corners, mirrored] if flip else [corners]
    found = boxes / np.asarray([width, height] * 2)
    assert min(np.abs(found - want).max() for want in wanted) < 1e-6


def test_every_image_is_tested_once(store):
    batches = list(batches_of(store, 3, (48, 64)))
    index = np.concatenate([batch["index"] for batch in batches])
    assert index.tolist() == [0, 1, 2, 3, 9, 10, 11, 12, -1, 4, 5, 6, 7, 8, -1]
    shapes = [batch["image"].shape for batch in batches]
    assert shapes == [(3, 48, 64, 3)] * 3 + [(3, 64, 48, 3)] * 2
    sizes = np.concatenate([batch["size"] for batch in batches])
    assert sizes[[0, 4, 8, 9]].tolist() == [[43, 64], [48, 48], [1, 1], [64, 43]]
    assert not batches[-1]["image"][2].any()
    train = make(store, batch_size=1, sizes=[(48, 64)], flip=False).batch(0)
    place = index.tolist().index(train["index"][0])
    tested = batches[place // 3]["image"][place % 3]
    np.testing.assert_array_equal(tested, train["image"][0])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "must be at least 1, not 0 and 2"),
        ({"max_boxes": 0}, "must be at least 1, not 2 and 0"),
        ({"batch_size": 8}, "exceeds .* memory all: 7 landscape, 5 upright"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"seed": 2**32}, "below 2\\^32"),
        ({"sizes": []}, "sizes must be heights and widths"),
        ({"sizes": [(0, 48)]}, "sizes must be heights and widths"),
    ],
)
def test_mistakes(options, message, store):
    with pytest.raises(UserError, match=message):
        make(store, **options)


def test_what_fits_and_what_does_not(store, make_boxes):
    assert make(store, batch_size=7).steps_per_epoch == 1  # The upright images are 5.
    with pytest.raises(UserError, match="0 landscape, 0 upright"):
        make(make_boxes([(4, 6)], [[]]))
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        make_dataset(make(store), 0, 3)
    with pytest.raises(UserError, match="no process 2 of 2"):
        make_dataset(make(store), 2, 2)
