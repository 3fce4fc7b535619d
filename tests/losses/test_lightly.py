"""Our losses equal others' PyTorch losses; known differences are written out."""

import jax
import numpy as np
import pytest

from sp_jax import losses
from tests.torchvision_ref import torch

lightly = pytest.importorskip("lightly.loss")
swav_loss = pytest.importorskip("lightly.loss.swav_loss")
modules = pytest.importorskip("lightly.models.modules")

CASES = {
    "random": lambda r: r.normal(size=(2, 16, 8)),
    "batch of 2": lambda r: r.normal(size=(2, 2, 8)),
    "identical views": lambda r: np.stack([r.normal(size=(8, 8))] * 2),
    "collapsed": lambda r: np.ones((2, 8, 8)),
    "large norms": lambda r: 30 * r.normal(size=(2, 8, 8)),
}


def pair(case):
    return CASES[case](np.random.default_rng(0)).astype(np.float32)


def compare(ours, theirs, x, y, stopped=False):
    """Value, and gradients by both arguments (by the first if the second is stopped)."""
    a, b = (torch.tensor(z, requires_grad=True) for z in (x, y))
    expected = theirs(a, b.detach() if stopped else b)
    expected.backward()
    value, grads = jax.value_and_grad(ours, argnums=(0, 1))(x, y)
    assert float(value) == pytest.approx(expected.item(), rel=2e-5, abs=2e-5)
    for got, tensor in zip(grads, (a,) if stopped else (a, b), strict=not stopped):
        want = tensor.grad.numpy()
        scale = max(np.abs(want).max(), 0.01)
        np.testing.assert_allclose(got / scale, want / scale, atol=2e-3)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent(case, temperature):
    theirs = lightly.NTXentLoss(temperature)
    compare(lambda x, y: losses.nt_xent(x, y, temperature), theirs, *pair(case))


@pytest.mark.parametrize("case", CASES)
def test_vicreg(case):
    compare(losses.vicreg, lightly.VICRegLoss(), *pair(case))


@pytest.mark.parametrize("case", CASES)
def test_barlow_twins(case):
    # Theirs has lambda 0.005 where the official code has 0.0051.
    theirs = lightly.BarlowTwinsLoss(lambda_param=0.0051)
    compare(losses.barlow_twins, theirs, *pair(case))


@pytest.mark.parametrize("case", CASES)
def test_cosine(case):
    theirs = lightly.NegativeCosineSimilarity()
    compare(losses.simsiam, theirs, *pair(case), stopped=True)
    # BYOL in lightly is the same cosine; the official loss is 2 + 2 x it.
    compare(losses.byol, lambda x, y: 2 + 2 * theirs(x, y), *pair(case), stopped=True)


@pytest.mark.parametrize("case", CASES)
def test_moco_v2(case):
    x, y = pair(case)
    queue = np.random.default_rng(1).normal(size=(24, 8)).astype(np.float32)
    queue /= np.linalg.norm(queue, axis=1, keepdims=True)
    theirs = lightly.NTXentLoss(0.2, memory_bank_size=(24, 8))
    theirs.memory_bank.bank = torch.tensor(queue)
    theirs.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    theirs.memory_bank.bank_labels = None

    compare(lambda q, k: losses.moco_v2(q, k, queue), theirs, x, y, stopped=True)


@pytest.mark.parametrize("case", ["random", "batch of 2", "collapsed"])
def test_sinkhorn_and_swav(case):
    high = np.random.default_rng(0).normal(size=(2, 16, 5)).astype(np.float32)
    high = np.ones_like(high) if case == "collapsed" else 0.3 * high
    high = high[:, :2] if case == "batch of 2" else high
    low = 0.5 * high[::-1]
    codes = swav_loss.sinkhorn(torch.tensor(high[0]))
    np.testing.assert_allclose(losses.sinkhorn(high[0]), codes, atol=1e-5)

    def ours(high, low):
        views = [*high, *low]
        terms = [
            losses.swav(scores, losses.sinkhorn(high[i]))
            for i in (0, 1)
            for v, scores in enumerate(views)
            if v != i
        ]
        return sum(terms) / len(terms)

    def theirs(high, low):
        return lightly.SwaVLoss()([*high], [*low])

    compare(ours, theirs, high, low)


# Five views of the student and two of the teacher.
DINO_CASES = {
    "random": lambda r: r.normal(size=(7, 8, 12)),
    "identical views": lambda r: np.repeat(r.normal(size=(1, 8, 12)), 7, axis=0),
    "collapsed": lambda r: np.ones((7, 8, 12)),
    "huge norms": lambda r: 1e4 * r.normal(size=(7, 8, 12)),
}


@pytest.mark.parametrize("case", DINO_CASES)
@pytest.mark.parametrize("temperature", [0.04, 0.07])
def test_dino_and_its_center(temperature, case):
    views = DINO_CASES[case](np.random.default_rng(0)).astype(np.float32)
    student, teacher = views[:5], views[5:]
    theirs = lightly.DINOLoss(12)
    center = np.zeros(12, np.float32)
    for _ in range(3):  # the centre of a batch enters the next loss, not its own
        student_t = torch.tensor(student, requires_grad=True)
        expected = theirs([*torch.tensor(teacher)], [*student_t], temperature)
        expected.backward()
        value, gradient = jax.value_and_grad(losses.dino)(
            student, teacher, center, teacher_temperature=temperature
        )
        assert float(value) == pytest.approx(expected.item(), rel=1e-5)
        np.testing.assert_allclose(gradient, student_t.grad, atol=1e-6)
        center = losses.dino_center(center, teacher)
        np.testing.assert_allclose(center, theirs.center.flatten(), rtol=1e-5)
        teacher = teacher + 1


@pytest.mark.parametrize("case", ["random", "batch of 2", "large norms"])
def test_nnclr_and_its_neighbours(case):
    """Their bank finds the neighbours; NT-Xent there has more negatives than the paper."""
    z, p = pair(case)
    queue = np.random.default_rng(1).normal(size=(24, 8)).astype(np.float32)
    queue /= np.linalg.norm(queue, axis=1, keepdims=True)
    bank = modules.NNMemoryBankModule(size=(24, 8))
    bank.bank = torch.tensor(queue)
    bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    neighbours = bank(torch.tensor(z)).numpy()
    np.testing.assert_array_equal(
        queue[losses.nearest_neighbours(z, queue)], neighbours
    )

    def theirs(p, neighbour):
        unit = torch.nn.functional.normalize
        logits = unit(neighbour) @ unit(p).T / 0.1
        return torch.nn.functional.cross_entropy(logits, torch.arange(len(p)))

    compare(losses.nnclr, theirs, p, neighbours, stopped=True)
