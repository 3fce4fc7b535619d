"""The random numbers: their distributions, bounds and independence."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sp_jax.augment import Augment, sample_params
from sp_jax.augment.params import sample_boxes, sample_orders

N = 20_000
LEVEL = 1e-3  # the seeds are fixed: a p-value below this means a wrong distribution


def uniform_p(values, low, high):
    return stats.kstest(np.asarray(values), stats.uniform(low, high - low).cdf).pvalue


@pytest.fixture(scope="module")
def params():
    config = Augment(
        brightness=0.8, contrast=0.4, saturation=1.5, hue=0.2, solarize=0.3
    )
    draw = jax.jit(sample_params, static_argnums=(1, 2, 3, 4))
    drawn = draw(jax.random.key(11), N, 64, 64, config)
    return jax.tree.map(np.asarray, drawn), config


def test_probabilities(params):
    drawn, config = params
    for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
        hits = int(getattr(drawn, name).sum())
        p = stats.binomtest(hits, N, getattr(config, name)).pvalue
        assert p > LEVEL, name


def test_factors_are_uniform(params):
    factors = params[0].factors
    bounds = [(0.2, 1.8), (0.6, 1.4), (0.0, 2.5), (-0.2, 0.2)]  # never below 0
    for values, (low, high) in zip(factors.T, bounds, strict=True):
        assert low <= values.min() and values.max() <= high
        assert uniform_p(values, low, high) > LEVEL


def test_sigma_is_uniform(params):
    assert uniform_p(params[0].sigma, 0.1, 2.0) > LEVEL


def test_draws_are_independent(params):
    """A key that was used twice would show as a correlation."""
    drawn = params[0]
    columns = [np.asarray(v, np.float64).reshape(N, -1) for v in drawn]
    order = drawn.order == 0  # where the first operation stands
    columns[3] = order[:, :3].astype(np.float64)
    r = np.corrcoef(np.concatenate(columns, axis=1).T)
    related = np.zeros_like(r, bool)
    related[:4, :4] = related[6:9, 6:9] = True  # inside a box, inside an order
    np.fill_diagonal(related, True)
    assert np.abs(r[~related]).max() < 4.5 / np.sqrt(N)


def test_orders_are_uniform():
    orders = np.asarray(sample_orders(jax.random.key(0), 24_000))
    counts = [
        int((orders == permutation).all(1).sum())
        for permutation in itertools.permutations(range(4))
    ]
    assert sum(counts) == 24_000
    assert stats.chisquare(counts).pvalue > LEVEL


def test_area_and_ratio_are_uniform_where_all_fits():
    side = 4096  # so large that rounding to pixels does not show
    box = np.asarray(
        sample_boxes(jax.random.key(1), N, side, side, (0.08, 0.5), (3 / 4, 4 / 3)),
        np.float64,
    )
    height, width = box[:, 2], box[:, 3]
    assert uniform_p(height * width / side**2, 0.08, 0.5) > LEVEL
    ratio = np.log(width / height)
    assert uniform_p(ratio, np.log(3 / 4), np.log(4 / 3)) > LEVEL


def test_positions_are_uniform():
    box = np.asarray(
        sample_boxes(jax.random.key(2), N, 48, 64, (1 / 3, 1 / 3), (1.0, 1.0))
    )
    assert (box[:, 2:] == 32).all()
    for positions, places in ((box[:, 0], 17), (box[:, 1], 33)):
        counts = np.bincount(positions, minlength=places)
        assert len(counts) == places
        assert stats.chisquare(counts).pvalue > LEVEL


@pytest.mark.parametrize("height, width", [(64, 64), (64, 150)])
def test_boxes_are_distributed_as_torchvisions(height, width):
    """At small sizes, where draws that do not fit and the rounding shape them."""
    torch = pytest.importorskip("torch")
    from tests.torchvision_ref import torchvision

    get_params = torchvision.transforms.RandomResizedCrop.get_params
    n, scale, ratio = 6000, (0.08, 1.0), (3 / 4, 4 / 3)
    ours = sample_boxes(jax.random.key(4), n, height, width, scale, ratio)
    image = torch.zeros(3, height, width)
    torch.manual_seed(0)
    theirs = [get_params(image, list(scale), list(ratio)) for _ in range(n)]
    for mine, other in zip(np.asarray(ours).T, np.array(theirs).T, strict=True):
        table = [np.bincount(v // 4, minlength=40) for v in (mine, other)]
        table = np.array(table)[:, np.sum(table, axis=0) > 10]
        assert stats.chi2_contingency(table).pvalue > LEVEL


@pytest.mark.parametrize("height, width", [(10, 100), (100, 10), (37, 37), (90, 120)])
def test_boxes_stay_inside(height, width):
    box = np.asarray(
        sample_boxes(jax.random.key(5), 5000, height, width, (0.08, 1.0), (0.75, 4 / 3))
    )
    top, left, h, w = box.T
    assert box.dtype == np.int32
    assert (h >= 1).all() and (w >= 1).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()


@pytest.mark.parametrize(
    "height, width, expected",
    [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10)), (40, 40, (0, 0, 40, 40))],
)
def test_fallback_is_the_centre_crop(height, width, expected):
    # No crop of the whole area fits, so all ten draws are in vain (but in the square).
    box = sample_boxes(jax.random.key(6), 8, height, width, (1.0, 1.0), (0.75, 4 / 3))
    if height == width:
        fits = (np.asarray(box[:, 2:]) <= 40).all(1)
        assert fits.all() and (np.asarray(box) == expected).all(1).any()
    else:
        assert (np.asarray(box) == expected).all()


def test_draws_depend_on_the_key_only():
    one, same, other = (
        sample_params(jax.random.key(k), 64, 64, 64, Augment()) for k in (0, 0, 1)
    )
    for a, b, c in zip(one, same, other, strict=True):
        assert (a == b).all()
        assert a.dtype == jnp.bool_ and not a.any() or not (a == c).all()


def test_switching_an_operation_off_leaves_the_other_draws():
    full = sample_params(jax.random.key(0), 64, 64, 64, Augment())
    less = sample_params(jax.random.key(0), 64, 64, 64, Augment(flip=0, grayscale=0))
    assert not less.flip.any() and not less.grayscale.any()
    for name in ("box", "jitter", "order", "factors", "blur", "sigma"):
        assert (getattr(full, name) == getattr(less, name)).all()
