"""Representation metrics and CKA against their formulas in numpy float64."""

import numpy as np
import pytest
from sklearn.metrics import pairwise_distances

from eval import cka, metrics
from sp_jax import losses
from sp_jax.errors import UserError
from sp_jax.features import Extractor

OPTIONS = dict(dataset="tiny", split="train")
RNG = np.random.default_rng(0)
GROUPS = RNG.permutation(np.repeat([0, 1, 2, 5, 7, -1], [12, 9, 6, 2, 1, 4]))
X = (RNG.normal(size=(8, 8))[GROUPS] + RNG.normal(size=(34, 8)) + 1).astype(np.float32)


def entropy_rank(weights):
    p = weights / weights.sum()
    return np.exp(-np.sum(p * np.log(p)))


def by_formula(x, groups, delta):
    """Definitions word by word; for LiDAR, the square root of a matrix."""
    x = x.astype(np.float64)
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance = pairwise_distances(u)
    pair = ~np.eye(len(x), dtype=bool)
    known = pair & (groups >= 0) & (groups[:, None] >= 0)
    same = groups == groups[:, None]
    classes = [x[groups == g] for g in set(groups) - {-1} if (groups == g).sum() > 1]
    means = np.array([c.mean(0) for c in classes])
    within = np.mean([np.cov(c.T, bias=True) for c in classes], axis=0)
    values, vectors = np.linalg.eigh(within + delta * np.eye(x.shape[1]))
    root = vectors / np.sqrt(values) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ np.cov(means.T, bias=True) @ root)
    intra, inter = distance[known & same].mean(), distance[known & ~same].mean()
    return {
        "rankme": entropy_rank(np.linalg.svd(x, compute_uv=False)),
        "lidar": entropy_rank(np.sort(eigenvalues)[-(len(classes) - 1) :]),
        "alignment": (distance**2)[known & same].mean(),
        "uniformity": np.log(np.mean(np.exp(-2 * distance[pair] ** 2))),
        "feature_std": u.std(axis=0).mean(),
        "intra_distance": intra,
        "inter_distance": inter,
        "distance_ratio": intra / inter,
    }


@pytest.fixture
def evaluate(make_store, provide, monkeypatch):
    """Function (features, groups, **options) -> result, in blocks of 5 images."""
    monkeypatch.setattr(metrics, "_BUDGET", 5 * len(X))
    monkeypatch.setattr(
        metrics, "_parts", lambda n: [slice(i, i + 5) for i in range(0, n, 5)]
    )

    def run(features, groups, **options):
        rows = np.arange(len(features))
        values = np.repeat(rows[:, None], 12, axis=1)
        provide(make_store(values, groups))
        extractor = Extractor(lambda images: features[images[:, 0, 0, 0]])
        return metrics.create(**OPTIONS, **options)(extractor, 0)

    return run


@pytest.mark.parametrize("delta", [1e-4, 0.5])
def test_all_agree_with_their_formulas(evaluate, delta):
    found = evaluate(X, GROUPS, delta=delta)
    assert found == pytest.approx(by_formula(X, GROUPS, delta), rel=2e-5)
    assert found["distance_ratio"] < 0.9 and found["lidar"] < 3


def test_agrees_with_the_losses(evaluate):
    found = evaluate(X, GROUPS)
    assert found["rankme"] == pytest.approx(float(losses.effective_rank(X)), rel=1e-4)
    assert found["uniformity"] == pytest.approx(float(losses.uniformity(X)), rel=1e-5)
    same = (GROUPS[:, None] == GROUPS) & (GROUPS >= 0) & ~np.eye(len(X), dtype=bool)
    one, other = np.nonzero(same)
    aligned = float(losses.alignment(X[one], X[other]))
    assert found["alignment"] == pytest.approx(aligned, rel=1e-5)


def test_a_collapse_of_many_dimensions_shows(evaluate):
    """In float32 the rounding of 512 empty dimensions counts as several."""
    line = np.random.default_rng(1).standard_normal((600, 1)) @ np.ones((1, 512))
    line = line.astype(np.float32)
    assert metrics.rankme(line) == pytest.approx(1, abs=1e-3)
    assert float(losses.effective_rank(line)) > 1.1
    found = evaluate(np.ones_like(X), GROUPS)
    assert found["rankme"] == found["lidar"] == pytest.approx(1)
    for name in ("alignment", "uniformity", "feature_std", "inter_distance"):
        assert found[name] == pytest.approx(0, abs=1e-3)


def test_without_groups_there_is_what_needs_none(evaluate):
    found = evaluate(X, np.full(len(X), -1))
    assert set(found) == {"rankme", "uniformity", "feature_std"}
    assert metrics.create(**OPTIONS).protocol == (
        "representation of tiny train (34 images), without groups"
    )


def test_protocol_and_options_that_do_not_fit(make_store, provide):
    provide(make_store(np.eye(12), np.arange(12) // 3, artist=[0] * 12))
    assert metrics.create(**OPTIONS).protocol == (
        "representation of tiny train (12 images), groups by label, LiDAR of 4 groups "
        "with two images or more, delta=0.0001"
    )
    with pytest.raises(UserError, match="delta must be .* above 0"):
        metrics.create(**OPTIONS, delta=0.0)
    with pytest.raises(UserError, match="no target 'style'"):
        metrics.create(**OPTIONS, target="style")
    provide(make_store(np.eye(12)[:1], [0]))
    with pytest.raises(UserError, match="no two images to compare"):
        metrics.create(**OPTIONS)


def test_cka_against_the_form_in_image_space():
    """HSIC of the Gram matrices of images, as in the paper's equations 1 to 4."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 6)).astype(np.float32) + 3  # More rows than a block.
    y = (x[:, :4] * [1, 2, 3, 4] + 2 * rng.normal(size=(5000, 4))).astype(np.float32)
    found = cka.linear_cka(x, y)
    some = slice(0, 700)
    a, b = (z[some].astype(np.float64) @ z[some].astype(np.float64).T for z in (x, y))
    centre = np.eye(700) - 1 / 700
    a, b = centre @ a @ centre, centre @ b @ centre
    expected = np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))
    assert cka.linear_cka(x[some], y[some]) == pytest.approx(expected, rel=1e-9)
    assert found == pytest.approx(expected, abs=0.1) and 0.1 < found < 0.9
    assert found == pytest.approx(cka.linear_cka(y, x), rel=1e-12)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    assert cka.linear_cka(x, 0.1 * x @ turn + 7) == pytest.approx(1, rel=1e-6)
    with pytest.raises(UserError, match="features that differ"):
        cka.linear_cka(x, np.full((5000, 3), 0.1, np.float32))
