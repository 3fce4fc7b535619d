"""PIRL: the memory of images, both branches, and rows that are written twice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sp_jax import losses, methods, models
from sp_jax.augment import Jigsaw
from sp_jax.methods.base import write_rows
from sp_jax.methods.pirl import PIRLNetwork
from tests.methods.build import IMAGES, apart, make, silent, unit

SHAPES = ((16, 16, 3), (9, 6, 6, 3))


@pytest.fixture(scope="module")
def pirl():
    return make("pirl", SHAPES, num_negatives=20, projection_dim=12)


def projections(case, *hidden):
    """Of both branches, from a network of the test's own."""
    last = {"hidden_norm": False}
    network = PIRLNetwork(
        models.get("resnet18", width=4),
        models.MLP((*hidden, 12), **last),
        models.MLP((*hidden, 12), **last),
        models.MLP((12,)),
    )
    variables = {"params": case.params, "batch_stats": case.state["batch_stats"]}
    ((_, v1), (_, v2)), _ = jax.jit(
        lambda v: network.apply(v, *case.views, True, mutable=["batch_stats"])
    )(variables)
    return v1, v2


def negatives(case):
    """The memories that `case.step()` draws."""
    key = jax.random.split(jax.random.key(1))[1]
    return case.state["memory"][jax.random.randint(key, (20,), 0, IMAGES)]


@pytest.fixture(scope="module")
def branches(pirl):
    return projections(pirl)


def test_views_are_an_image_and_a_jigsaw():
    image, puzzle = methods.get("pirl").views(64)
    assert image.size == 64 and isinstance(puzzle, Jigsaw)
    # 255 px with cells of 85 and patches of 64, of images of 224 px.
    assert (puzzle.view.size, puzzle.grid, puzzle.patch) == (72, 3, 18)
    assert puzzle.view.crop_scale == (0.6, 1.0)


def test_heads(pirl):
    shapes = {
        name: pirl.params[name]["dense0"]["kernel"].shape
        for name in ("image_head", "patch_head", "jigsaw_head")
    }
    assert shapes == {
        "image_head": (32, 12),
        "patch_head": (32, 12),
        "jigsaw_head": (9 * 12, 12),
    }
    assert not silent(pirl.step()[1])


def test_memory_moves_by_the_image_branch_only(pirl, branches):
    old = np.asarray(pirl.state["memory"])
    np.testing.assert_allclose(np.linalg.norm(old, axis=1), 1, rtol=1e-5)
    (_, out), _ = pirl.step()
    new = np.asarray(out.state["memory"])
    changed = set(np.flatnonzero(np.any(new != old, axis=1)))
    images = pirl.index[:, 0]
    assert changed == set(images)  # not the images that became jigsaws
    want = unit(0.5 * old[images] + 0.5 * unit(branches[0]))
    np.testing.assert_allclose(new[images], want, rtol=1e-3, atol=1e-5)
    (_, other), _ = pirl.step(views=[pirl.views[0], 3 * pirl.views[1]])
    np.testing.assert_allclose(other.state["memory"], new, atol=1e-5)


def test_both_branches_look_for_the_memory_of_the_image(pirl):
    """The number of the jigsaw's image does not matter: as if it were the same image."""
    (semantic, _), _ = pirl.step()
    (augmented, _), _ = pirl.step(index=pirl.index[:, [0, 0]])
    assert float(semantic) == float(augmented)


def test_loss_is_the_mean_of_two_nces(pirl, branches):
    (value, out), _ = pirl.step(
        step=1, state={**pirl.state, "normalizer": jnp.float32(40)}
    )
    positives = pirl.state["memory"][pirl.index[:, 0]]
    terms = [losses.nce(v, positives, negatives(pirl), 40.0, IMAGES) for v in branches]
    assert float(value) == pytest.approx(float(np.mean(terms)), rel=1e-4)
    assert float(out.state["normalizer"]) == 40.0


def test_running_statistics_are_of_whole_images(pirl):
    """Features are of whole images, and patches have other statistics."""
    (_, out), _ = pirl.step()
    (_, other), _ = pirl.step(views=[pirl.views[0], 5 + 3 * pirl.views[1]])
    stats = out.state["batch_stats"]
    assert apart(stats, pirl.state["batch_stats"]) > 0.01
    assert apart(stats, other.state["batch_stats"]) == 0


def test_normaliser_is_fixed_by_the_first_batch(pirl, branches):
    (_, out), _ = pirl.step(step=0)
    first = float(out.state["normalizer"])
    scores = unit(branches[0]) @ np.asarray(negatives(pirl)).T / 0.07
    assert first == pytest.approx(IMAGES * np.exp(scores).mean(), rel=1e-3)
    (_, later), _ = pirl.step(step=1, state=out.state, views=[-v for v in pirl.views])
    assert float(later.state["normalizer"]) == first


def test_second_recipe():
    case = make(
        "pirl",
        SHAPES,
        num_negatives=20,
        projection_dim=12,
        loss="info_nce",
        temperature=0.1,
        hidden_dim=16,
    )
    assert case.params["image_head"]["dense0"]["kernel"].shape == (32, 16)
    (value, out), _ = case.step()
    positives = case.state["memory"][case.index[:, 0]]
    terms = [
        losses.memory_info_nce(v, positives, negatives(case), 0.1)
        for v in projections(case, 16)
    ]
    assert float(value) == pytest.approx(float(np.mean(terms)), rel=1e-4)
    assert float(out.state["normalizer"]) == 0
    with pytest.raises(ValueError, match="no loss 'hinge'.*info_nce"):
        make("pirl", SHAPES, loss="hinge")


def test_equal_numbers_in_a_batch_the_last_wins():
    bank = jnp.zeros((5, 2))
    rows = jnp.arange(8.0).reshape(4, 2)
    got = write_rows(bank, jnp.array([1, 3, 1, 0]), rows)
    want = np.array([[6, 7], [4, 5], [0, 0], [2, 3], [0, 0]])
    np.testing.assert_array_equal(got, want)
