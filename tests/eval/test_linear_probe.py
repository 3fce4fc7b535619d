"""The linear probe against scikit-learn, and a fair choice of its settings."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from eval import linear_probe, probes
from eval.probe_lbfgs import fit_lbfgs
from eval.probes import standardize
from sp_jax.errors import UserError
from sp_jax.features import Extractor

SPLITS = dict(dataset="tiny", train_split="train", test_split="test")


def correlated(count, seed):
    """4 unbalanced classes in 20 correlated features of very different scales."""
    mix = np.random.default_rng(7).standard_normal((20, 20)) / 5 + np.eye(20)
    scale = np.random.default_rng(8).uniform(0.01, 100, 20)
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, count, p=[0.6, 0.2, 0.15, 0.05])
    x = 1.5 * np.eye(20)[labels] + rng.standard_normal((count, 20))
    return ((x @ mix + 3) * scale).astype(np.float32), labels.astype(np.int32)


def probabilities(fitted, x, point):
    x = standardize(x, fitted.mean, fitted.scale)
    logits = x @ np.asarray(fitted.kernel)[point] + np.asarray(fitted.bias)[point]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


# All rows a step: the optimum itself. Minibatches: their noise, which the schedule
# lets die away.
@pytest.mark.parametrize(
    "batch_size, epochs, atol", [(400, 2000, 1e-4), (64, 300, 0.02)]
)
def test_agrees_with_scikit_learn(batch_size, epochs, atol):
    train, labels = correlated(400, 0)
    test, answers = correlated(300, 1)
    decays = [0.003, 0.1]
    fitted = probes.fit_probes(
        train,
        labels,
        [0.3, 0.1],
        decays,
        num_classes=4,
        epochs=epochs,
        batch_size=batch_size,
    )
    accuracy, loss = probes.score(fitted, test, answers)
    x = (train - train.mean(0)) / train.std(0)
    x_test = (test - train.mean(0)) / train.std(0)
    for point, decay in enumerate(decays):
        peer = LogisticRegression(C=1 / (400 * decay), tol=1e-8, max_iter=2000)
        peer.fit(x.astype(np.float64), labels)
        expected = peer.predict_proba(x_test)
        found = probabilities(fitted, test, point)
        np.testing.assert_allclose(found, expected, atol=atol)
        assert accuracy[point] == np.mean(found.argmax(1) == answers)
        assert accuracy[point] == pytest.approx(peer.score(x_test, answers), abs=0.01)
        own = -np.log(found[np.arange(300), answers]).mean()
        assert loss[point] == pytest.approx(own, rel=1e-4)


def needle(count, seed):
    """Two classes told apart by a small difference under large shared noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    noise = 4 * rng.standard_normal(count)
    x = np.stack([2 * labels - 1 + noise, noise], axis=1)
    return x.astype(np.float32), labels.astype(np.int32)


def test_sweep_picks_the_best_on_validation():
    x, labels = needle(500, 0)
    held_out = probes.hold_out(np.arange(500), 0.2, 0)
    # Too slow to find the small difference; right; and, with the strong decay at the
    # high rate, diverging (rate x decay > 2).
    rates, decays = (1e-4, 1.0), (1e-5, 50.0)
    choice = probes.choose(x, labels, held_out, rates, decays, num_classes=2, epochs=60)
    assert choice[:3] == ("standardized", 1.0, 1e-5)
    assert choice.val_accuracy == choice.grid[0, 1, 0] > 0.97
    assert (choice.grid[0, 0] < 0.8).all() and choice.grid[0, 1, 1] == -1
    with pytest.raises(UserError, match="diverged at every learning rate"):
        probes.choose(x, labels, held_out, (1.0,), (50.0,), num_classes=2, epochs=60)


def test_equal_accuracies_are_decided_by_cross_entropy():
    labels = np.arange(100, dtype=np.int32) % 2
    x = (2 * labels[:, None] - 1).astype(np.float32)
    held_out = np.arange(100) < 20
    choice = probes.choose(
        x, labels, held_out, (0.01, 0.1), (1.0, 1e-3), num_classes=2, epochs=20
    )
    assert (choice.grid == 1).all()
    assert choice[:3] == ("standardized", 0.1, 1e-3)


def test_validation_rows_are_not_fitted_on():
    # Labels by lot, more features than rows: whatever is fitted on is learnt by heart.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 400)).astype(np.float32)
    labels = rng.integers(0, 4, 200).astype(np.int32)
    held_out = probes.hold_out(np.arange(200), 0.5, 0)
    choice = probes.choose(
        x, labels, held_out, (0.01, 0.1), (1e-3, 1e-1), num_classes=4, epochs=20
    )
    assert choice.val_accuracy < 0.45


def test_test_labels_never_touch_the_choice(blobs, provide, pixels, monkeypatch):
    train, test = blobs("train", 0), blobs("test", 1)
    scored = []
    original = probes.score

    def spy(fitted, features, labels):
        scored.append((len(labels), fitted.bias.shape[0]))
        return original(fitted, features, labels)

    for module in (probes, linear_probe):
        monkeypatch.setattr(module, "score", spy)
    provide(train, test)
    one = linear_probe.create(**SPLITS, epochs=10)(Extractor(pixels), 0)
    # Both halves of the grid; the test split, once.
    assert scored == [(12, 25), (12, 25), (60, 1)]
    shuffled = np.random.default_rng(0).permutation(test.labels)
    provide(train, dataclasses.replace(test, labels=shuffled))
    two = linear_probe.create(**SPLITS, epochs=10)(Extractor(pixels), 0)
    assert one.pop("accuracy") > 0.6 > two.pop("accuracy")
    assert one == two


def test_raw_features_are_taken_as_they_are():
    """One feature tells the classes and is the largest; standardised, noise drowns it."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120).astype(np.int32)
    x = 0.01 * rng.standard_normal((120, 300))
    x[:, 0] = 2 * labels - 1 + 0.5 * rng.standard_normal(120)
    held_out = probes.hold_out(np.arange(120), 0.5, 0)
    choice = probes.choose(
        x.astype(np.float32),
        labels,
        held_out,
        (0.1,),
        (1e-3,),
        probes.SCALINGS,
        num_classes=2,
        epochs=30,
    )
    assert choice.scaling == "raw" and choice.grid.shape == (2, 1, 1)
    assert choice.grid[1, 0, 0] > 0.9 > choice.grid[0, 0, 0]


def test_lbfgs_is_the_optimum_of_scikit_learn():
    train, labels = correlated(400, 0)
    decays = [1e-3, 0.03, 1.0]
    fitted, converged = fit_lbfgs(train, labels, decays, num_classes=4)
    assert converged.all()
    x = standardize(train, fitted.mean, fitted.scale).astype(np.float64)

    def loss(kernel, bias, decay):
        logits = x @ kernel + bias
        logits -= logits.max(1, keepdims=True)
        likelihood = logits[np.arange(400), labels] - np.log(np.exp(logits).sum(1))
        return decay / 2 * np.sum(kernel**2) - likelihood.mean()

    for i, decay in enumerate(decays):
        peer = LogisticRegression(C=1 / (400 * decay), tol=1e-8, max_iter=5000)
        peer.fit(x, labels)
        best = loss(peer.coef_.T, peer.intercept_, decay)
        kernel = np.asarray(fitted.kernel[i], np.float64)
        bias = np.asarray(fitted.bias[i], np.float64)
        assert loss(kernel, bias, decay) == pytest.approx(best, abs=1e-6)
        found, wanted = probabilities(fitted, train, i), peer.predict_proba(x)
        np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_lbfgs_says_that_it_has_not_converged(monkeypatch):
    train, labels = correlated(300, 0)  # another shape than above: compiled anew
    monkeypatch.setattr("eval.probe_lbfgs.MAX_ITERATIONS", 3)
    _, converged = fit_lbfgs(train, labels, [1e-3, 100.0], num_classes=4)
    assert not converged[0]


def test_protocols_and_seeds(blobs, provide, pixels):
    provide(blobs("train", 0), blobs("test", 1))
    found = {}
    for protocol, more in {"sweep": {"epochs": 10}, "lbfgs": {}}.items():
        options = dict(**SPLITS, protocol=protocol, **more)
        several = linear_probe.create(**options, seeds=3)(Extractor(pixels), 0)
        alone = [
            linear_probe.create(**options, seed=seed)(Extractor(pixels), 0)
            for seed in range(3)
        ]
        accuracies = [result["accuracy"] for result in alone]
        assert several["accuracy"] == pytest.approx(np.mean(accuracies))
        assert several["accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
        assert several["weight_decay"] == alone[0]["weight_decay"]
        assert "accuracy_std" not in alone[0] and min(accuracies) > 0.6
        found[protocol] = several
        assert "3 seeds from 0" in linear_probe.create(**options, seeds=3).protocol
    assert found["lbfgs"]["converged"] == 1 and "learning_rate" in found["sweep"]


def test_groups_are_not_split(blobs, provide, pixels, monkeypatch):
    groups = np.random.default_rng(3).integers(0, 20, 60)
    provide(blobs("train", 0, group=groups), blobs("test", 1))
    masks = []
    original = probes.choose

    def spy(features, labels, held_out, *args, **kwargs):
        masks.append(held_out)
        return original(features, labels, held_out, *args, **kwargs)

    monkeypatch.setattr(probes, "choose", spy)
    options = dict(**SPLITS, epochs=1, validation=0.3, learning_rates=[0.1])
    linear_probe.create(**options)(Extractor(pixels), 0)
    inside = set(groups[masks[0]])
    assert inside.isdisjoint(groups[~masks[0]])
    assert len(inside) == round(0.3 * len(set(groups)))
    assert linear_probe.create(**options).protocol.startswith(
        "linear probe, SGD 1 epochs batch 256, standardized/raw features, 1x5 learning "
        "rates x weight decays chosen on 30% of the training groups (seed 0), learning_rates "
        "0.1, tiny label, fit train (60"
    )


def test_seed_draws_another_validation_part():
    parts = [probes.hold_out(np.arange(50), 0.2, seed) for seed in (0, 0, 1)]
    assert [part.sum() for part in parts] == [10, 10, 10]
    assert (parts[0] == parts[1]).all() and (parts[0] != parts[2]).any()


def test_options_that_do_not_fit(blobs, make_store, provide):
    provide(blobs("train", 0), blobs("test", 1))
    for wrong, message in [
        (dict(protocol="lbfgs", weight_decays=(0.0,)), "lbfgs needs weight_decays"),
        (
            dict(protocol="best"),
            "no protocol 'best': choose one of sweep, lbfgs, paper",
        ),
        (dict(scalings=("whitened",)), "no scaling 'whitened'"),
        (dict(recipe="best"), "no recipe 'best': choose one of .*simclr"),
        (dict(seeds=0), "seeds must be .* of at least 1"),
        (dict(recipe="byol"), "recipe has no effect with protocol=sweep"),
        (dict(protocol="lbfgs", epochs=9), "epochs has no effect with protocol=lbfgs"),
        (dict(protocol="paper", validation=0.5), "validation has no effect"),
    ]:
        with pytest.raises(UserError, match=message):
            linear_probe.create(**SPLITS, **wrong)
    provide(blobs("train", 0, group=np.zeros(60, int)), blobs("test", 1))
    with pytest.raises(UserError, match="a single group of images"):
        linear_probe.create(**SPLITS)
