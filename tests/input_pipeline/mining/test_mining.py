"""Mined pairs: mutual, in the band, without hubs; the program from end to end."""

import csv
import json
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from input_pipeline import pairs
from input_pipeline.mining import handmade_features, mutual_neighbours
from input_pipeline.stores import open_store
from sp_jax.errors import UserError
from sp_jax.neighbours import nearest_others


def brute_force(features, groups, k):
    """Cosines in float64; a full sort."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = unit @ unit.T
    cosine[groups[:, None] != groups] = -np.inf
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosine, order, 1)


@pytest.mark.parametrize("groups", [None, np.arange(2100) % 700])
def test_nearest_others_is_exact(groups):
    """More rows than a block holds; groups of three have fewer than k others."""
    features = np.random.default_rng(0).standard_normal((2100, 16))
    rows, cosines = nearest_others(features, 4, groups)
    given = np.zeros(2100) if groups is None else groups
    want_rows, want = brute_force(features, given, 4)
    np.testing.assert_allclose(cosines, want, rtol=1e-5, atol=1e-6)
    found = np.isfinite(want)
    assert np.mean(rows[found] == want_rows[found]) > 0.999  # But for ties.
    assert found.all() == (groups is None)
    with pytest.raises(ValueError, match="k=5 is not from 1 to 4"):
        nearest_others(features[:5], 5)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    count=st.integers(6, 40),
    k=st.integers(1, 5),
    max_uses=st.integers(1, 3),
    low=st.floats(-1.0, 0.3),
    high=st.floats(0.3, 1.0),
    seed=st.integers(0, 1000),
)
def test_mutual_pairs(count, k, max_uses, low, high, seed):
    features = np.random.default_rng(seed).standard_normal((count, 3))
    rows, cosines = brute_force(features, np.zeros(count), k)
    near = [set(r) for r in rows]
    # Every pair that may be taken, the best first.
    allowed = sorted(
        (-cosines[a][list(rows[a]).index(b)], a, b)
        for a in range(count)
        for b in near[a]
        if a < b and a in near[b]
    )
    allowed = [x for x in allowed if low <= -x[0] <= high]
    if not allowed:
        with pytest.raises(UserError, match="widen the band"):
            mutual_neighbours.mutual_pairs(rows, cosines, band=(low, high))
        return
    first, second, score = mutual_neighbours.mutual_pairs(
        rows, cosines, band=(low, high)
    )
    got = list(zip(first.tolist(), second.tolist(), strict=True))
    assert got == [(a, b) for _, a, b in allowed]
    np.testing.assert_allclose(score, [-x[0] for x in allowed], rtol=1e-5)
    uses, want = np.zeros(count, int), []
    for _, a, b in allowed:
        if max(uses[a], uses[b]) < max_uses:
            uses[[a, b]] += 1
            want.append((a, b))
    taken = mutual_neighbours.limit_uses(first, second, max_uses)
    assert [pair for pair, t in zip(got, taken, strict=True) if t] == want


def test_equal_features_are_a_pair():
    """Rounding puts their cosine above 1."""
    above = np.full((2, 1), 1.0000002, np.float32)
    found = mutual_neighbours.mutual_pairs(np.array([[1], [0]]), above)
    assert np.stack(found)[:, 0].tolist() == [0, 1, 1.0]


def test_chance_and_precision():
    labels = np.array([0, 0, 0, 1])
    draws = [(a, b) for a in range(4) for b in range(4) if a != b]
    same = np.mean([labels[a] == labels[b] for a, b in draws])
    assert mutual_neighbours.chance(labels) == pytest.approx(same)
    curve = mutual_neighbours.precision_curve(np.array([True, True, False, True]))
    assert curve.tolist() == pytest.approx([1, 1, 2 / 3, 3 / 4])


def test_handmade_features():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 64, 64, 3), np.uint8)
    bars = np.zeros((64, 64, 3), np.uint8)
    bars[:, ::8] = 255
    images = np.stack([*images, bars, bars // 2, bars.swapaxes(0, 1)])
    features = handmade_features.hog_and_colour(images)
    assert features.shape == (6, 2020) and features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    shapes = features[:, :1764]
    # Shapes do not see the brightness, and tell upright from lying bars.
    assert shapes[3] @ shapes[4] == pytest.approx(shapes[3] @ shapes[3], rel=1e-3)
    assert shapes[3] @ shapes[5] < 0.3


@pytest.mark.parametrize(
    "change",
    [
        *(lambda x, t=t: x.astype(t) for t in ("f2", ">f8", "longdouble", "i8", "u1")),
        lambda x: x > 1,
        np.asfortranarray,
        lambda x: x * 1e300,
        lambda x: x * 1e-300,
    ],
)
def test_features_of_other_types(change, tmp_path):
    """The same directions, whatever the type; also where float32 has no such numbers."""
    given = change(np.random.default_rng(0).integers(1, 9, (5, 3)).astype(float))
    np.save(tmp_path / "f.npy", given)
    features = mutual_neighbours.read_features(tmp_path / "f.npy", 5)
    assert features.dtype == np.float32 and features.flags.c_contiguous
    given = given.astype(float)
    want = given / np.maximum(given.max(axis=1, keepdims=True), 1e-310)
    np.testing.assert_allclose(features, want, rtol=1e-6)


def bad_features():
    x = np.ones((5, 3))
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 10000000000000)}\n"
    return {
        "is not an .npy file": [b"", b"1 2 3", b"PK\3\4", x.astype(object)]
        + [b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode()],
        "is an archive of arrays": [{"x": x}],
        "not real numbers": [x.astype(complex), x.astype("V2"), x.astype(str)],
        "holds NaN or an infinite number": [x * np.nan, x * [1, 1, -np.inf]],
        "not a row of numbers for each of the 5": [
            x[:4],
            x[:, 0],
            x[:, :0],
            x[..., None],
        ],
    }


@pytest.mark.parametrize(
    "message, given", [(key, x) for key, many in bad_features().items() for x in many]
)
def test_features_that_cannot_be_used(message, given, tmp_path):
    path = tmp_path / "f.npy"
    if isinstance(given, bytes):
        path.write_bytes(given)
    elif isinstance(given, dict):
        with path.open("wb") as file:
            np.savez(file, **given)
    else:
        np.save(path, given)
    with pytest.raises(UserError, match=f"f.npy.*{message}"):
        mutual_neighbours.read_features(path, 5)


def mine(*options):
    return subprocess.run(
        [sys.executable, "-m", "input_pipeline.mine_pairs", *map(str, options)],
        capture_output=True,
        text=True,
    )


@pytest.fixture
def pictures(tmp_path):
    """Two classes whose images are alike, and a copy of one image."""
    rng = np.random.default_rng(0)
    for c in ("cat", "dog"):
        (tmp_path / "pictures" / c).mkdir(parents=True)
        shape = rng.integers(0, 256, (4, 4, 3))
        for i in range(6):
            noisy = np.clip(shape + rng.integers(-60, 60, shape.shape), 0, 255)
            image = Image.fromarray(noisy.astype(np.uint8)).resize((32, 32))
            image.save(tmp_path / "pictures" / c / f"{i}.png")
    image.save(tmp_path / "pictures" / "dog" / "copy.jpg", quality=90)
    return tmp_path / "pictures"


def test_the_program(pictures, tmp_path):
    out = tmp_path / "mined.csv"
    common = (
        *(f"--store=folder:{pictures}", f"--data_dir={tmp_path / 'data'}"),
        *("--image_size=32", f"--out={out}"),
    )
    done = mine(*common, "--neighbours=4", "--max_uses=3")
    assert done.returncode == 0, done.stderr
    store = open_store(f"folder:{pictures}", image_size=32, data_dir=tmp_path / "data")
    table = pairs.load_table(out, store)
    assert table.recipe == {
        "by": "mined",
        "neighbours": 4,
        "min_similarity": -1.0,
        "max_similarity": 1.0,
        "max_uses": 3,
        "within": None,
        "encoder": {"descriptor": "hog_and_colour"},
    }
    numbers = json.loads((tmp_path / "mined.json").read_text())
    assert numbers["near_duplicates_left_out"] == 1
    copy = store.ids.index("dog/copy.jpg"), store.ids.index("dog/5.png")
    assert {*copy} not in [
        {a, b} for a, b in zip(table.first, table.second, strict=True)
    ]
    assert numbers["precision"] > 0.9 > 0.6 > numbers["chance"]
    right = numbers["right_pairs"]
    assert right / len(table) == numbers["precision"]
    assert f"right pairs: {right}\nprecision: {right / len(table):.4g}\n" in done.stdout
    with out.open() as file:
        scores = [
            float(x["score"]) for x in csv.DictReader(x for x in file if x[0] != "#")
        ]
    assert scores == sorted(scores, reverse=True) and len(scores) == len(table)
    for name in ("mined.png", "mined-precision.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 300
    # Features from elsewhere, and only within a class: here they say nothing.
    np.save(tmp_path / "f.npy", np.random.default_rng(0).standard_normal((13, 5)))
    done = mine(*common, f"--features={tmp_path / 'f.npy'}", "--within=label")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "mined.json").read_text())["precision"] == 1.0
    features = np.random.default_rng(0).standard_normal((13, 5))
    features[copy[0]] = features[copy[1]]
    np.save(tmp_path / "f.npy", features)
    done = mine(*common, f"--features={tmp_path / 'f.npy'}", "--min_similarity=0.9999")
    assert done.returncode == 2 and "near-duplicates" in done.stderr
    np.save(tmp_path / "f.npy", np.ones((12, 5)))
    done = mine(*common, f"--features={tmp_path / 'f.npy'}")
    assert done.returncode == 2 and "13 images" in done.stderr
    done = mine(*common, f"--features={tmp_path / 'f.npy'}", "--min_similarity=1.1")
    assert done.returncode == 2 and "is above --max_similarity=1" in done.stderr
    np.save(tmp_path / "f.npy", np.ones((13, 5)))
    done = mine(*common, f"--features={tmp_path / 'f.npy'}", "--whiten")
    assert done.returncode == 2 and "features of all images are equal" in done.stderr
    # Without a label there is nothing to stay within.
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted((pictures / "cat").iterdir()):
        path.rename(flat / path.name)
    done = mine(f"--store=folder:{flat}", *common[1:], "--within=label")
    assert done.returncode == 2 and "nothing to stay within" in done.stderr
    done = mine(f"--store=folder:{flat}", *common[1:], "--target=colour")
    assert done.returncode == 2 and "no target 'colour'" in done.stderr


def test_copies_cost_no_uses(pictures, tmp_path):
    """Each image lies there three times; its copies must not stand for its partners.

    Blank pages stand in no pair, whether they are equal or almost.
    """
    for path in sorted(pictures.rglob("*.png")):
        for quality in (85, 90):
            Image.open(path).save(
                path.with_name(f"{path.stem}_{quality}.jpg"), quality=quality
            )
    rng = np.random.default_rng(0)
    for i in range(6):
        page = np.full((32, 32, 3), 255, np.uint8)
        page -= (i // 3 * rng.integers(0, 4, page.shape)).astype(np.uint8)
        Image.fromarray(page).save(pictures / "cat" / f"page{i}.png")
    common = f"--store=folder:{pictures}", f"--data_dir={tmp_path / 'data'}"
    done = mine(
        *common, "--image_size=32", "--neighbours=8", f"--out={tmp_path / 'm.csv'}"
    )
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "m.json").read_text())
    assert numbers["near_duplicates_left_out"] >= 24 and numbers["pairs"] >= 12
    assert numbers["blank_images_left_out"] == 6 and numbers["blank_images"] == 0
    assert "page" not in (tmp_path / "m.csv").read_text()
