"""Invariance on features whose invariance is known, and the figure of several runs."""

import csv
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

import eval as evals
import sp_jax
from configs import common
from eval import corruptions, invariance, invariance_figure, linear_probe, report
from eval.compare import tables
from eval.compare.runs import AP, SP
from eval.evaluator import Number
from eval.results import Result
from sp_jax.errors import UserError
from sp_jax.features import Extractor, normalize
from tests.eval.compare.test_runs import a_run, changed
from tests.eval.fake_run import write_run

OPTIONS = dict(dataset="tiny", train_split="train", test_split="test")


@pytest.fixture
def photographs(make_store, provide):
    """Three classes of 16 px that differ in colour and in contrast, without alpha."""

    def make(split, seed, count):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 3
        noise = rng.standard_normal((count, 16, 16, 3))
        noise *= np.array([15, 35, 60])[labels, None, None, None]
        images = 128 + 50 * np.eye(3)[labels][:, None, None] + noise
        return make_store(np.clip(images, 0, 255), labels, split)

    provide(make("train", 0, 60), make("test", 1, 40))


def histogram(images):
    """Features that see values, not places."""
    flat = np.sort(images.reshape(len(images), -1, 3).astype(np.float32), axis=1)
    return flat[:, ::16].reshape(len(images), -1)


def test_known_invariance(photographs):
    result = invariance.create(**OPTIONS)(Extractor(histogram), 0)
    for grid in (2, 4, 8, 16):
        assert result[f"texture/shuffle/cosine_{grid}"] == pytest.approx(1, abs=1e-5)
        accuracy = result[f"texture/shuffle/accuracy_{grid}"]
        assert accuracy == result["clean_accuracy"]
    cosines = [
        result[f"occlusion/patches/cosine_{level}"] for level in (0.1, 0.25, 0.5, 0.75)
    ]
    assert np.all(np.diff([1, *cosines]) < 0)
    # The headlines are the means of what they stand for.
    for family, kinds in corruptions.families_of(False).items():
        for measure in ("cosine", "accuracy"):
            parts = [
                result[f"{family}/{kind}/{measure}_{level:g}"]
                for kind, one in kinds.items()
                for level in one.levels[1:]
            ]
            assert len(parts) == 4 * len(kinds)
            assert result[f"{family}/{measure}"] == pytest.approx(np.mean(parts))
    families = ("occlusion", "texture", "illumination")
    headlines = [result[f"{family}/cosine"] for family in families]
    assert result["cosine"] == pytest.approx(np.mean(headlines))
    assert not any(key.startswith(("background", "texture/surface")) for key in result)
    # The probe is that of eval.linear_probe.
    probe = linear_probe.create(**OPTIONS)(Extractor(histogram), 0)
    assert result["clean_accuracy"] == probe["accuracy"] > result["chance"]
    assert result["chance"] == pytest.approx(1 / 3, abs=0.02)


def test_one_number_by_hand(photographs, pixels):
    options = OPTIONS | {"images": 12, "seed": 5}
    result = invariance.create(**options)(Extractor(pixels), 0)
    _, task, chosen = invariance.open_images(options)
    assert len(chosen) == len(set(chosen)) == 12 and chosen.max() >= 12
    images = task.test.read(chosen)
    scene = corruptions.make_scene(task.test, chosen, seed=5)
    changed = corruptions.apply("illumination", "gamma", scene, 1.5, seed=5)
    clean = images.reshape(12, -1).astype(float)
    other = changed.reshape(12, -1).astype(float)
    clean /= np.linalg.norm(clean, axis=1, keepdims=True)
    other /= np.linalg.norm(other, axis=1, keepdims=True)
    between = (clean @ clean.T)[~np.eye(12, dtype=bool)].mean()
    expected = ((clean * other).sum(1).mean() - between) / (1 - between)
    assert result["different_cosine"] == pytest.approx(between, abs=1e-6)
    got = result["illumination/gamma/cosine_1.5"]
    assert got == pytest.approx(expected, rel=1e-4)


def test_features_that_say_nothing_are_not_invariant(photographs):
    result = invariance.create(**OPTIONS)(Extractor(lambda x: np.ones((len(x), 4))), 0)
    assert result["cosine"] == 0
    assert result["occlusion/accuracy"] == result["clean_accuracy"]
    unit = normalize(np.random.default_rng(0).standard_normal((500, 64)))
    assert invariance.mean_cosine(unit) == pytest.approx(0, abs=0.01)
    assert invariance.relative(unit, unit, 0.3) == pytest.approx(1)
    shuffled = np.roll(unit, 1, axis=0)
    difference = invariance.mean_cosine(unit)
    assert invariance.relative(unit, shuffled, difference) == pytest.approx(0, abs=0.02)


def test_the_protocol_names_what_is_left_out(photographs):
    assert evals.get("invariance") is invariance
    assert invariance.create(**OPTIONS, images=30, seed=4).protocol == (
        "invariance of 30 test images (64 px, crop) to occlusion (patches); texture (shuffle, "
        "amplitude); illumination (gamma, brightness, temperature, shading); without "
        "background/colour, background/gradient, background/stripes, background/noise, "
        "texture/surface: no alpha; cosine relative to different images, accuracy of a "
        "linear probe fitted on unchanged images (seed 4), tiny label, fit train (60 "
        "images, 3 classes) -> test test (40)"
    )


def test_options_that_do_not_fit(photographs, make_store, provide):
    for wrong, message in [
        ({"images": 1}, "images must be .* of at least 2, not 1"),
        ({"level": 3}, "Unknown option 'level'"),
    ]:
        with pytest.raises(UserError, match=message):
            invariance.create(**OPTIONS, **wrong)
    e = np.eye(12)
    provide(make_store(e[:6], [0, 1] * 3), make_store(e[6:], [0, 1] * 3, "test"))
    with pytest.raises(UserError, match="16 pixels or more"):
        invariance.create(**OPTIONS)


def fake_result(offset):
    """A result of all families, as if it were measured."""
    numbers = {"clean_accuracy": 0.8 + offset, "chance": 0.2}
    for family, kinds in corruptions.FAMILIES.items():
        for measure in ("cosine", "accuracy"):
            parts = {
                f"{family}/{name}/{measure}_{x:g}": 0.7 - 0.1 * i + offset
                for name, kind in kinds.items()
                for i, x in enumerate(kind.levels[1:])
            }
            numbers |= parts | {f"{family}/{measure}": np.mean(list(parts.values()))}
    return numbers


def a_result(numbers, name="robust", protocol="as tested"):
    headline = (Number("occlusion/cosine"),)
    content = {"result": numbers, "protocol": protocol, "headline": headline}
    content |= {"step": 7, "images": {}, "evaluator": "invariance"}
    return Result(name, pathlib.Path(), content, False)


def test_curves_and_table():
    results = {"SP": [fake_result(0.0), fake_result(0.1)], "AP": [fake_result(-0.1)]}
    curves = invariance_figure.read_curves(results["SP"][0], "accuracy")
    assert list(curves) == list(corruptions.FAMILIES)
    # From numbers, not from text: 16 is behind 2.
    assert curves["texture"]["shuffle"] == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4])
    curves = invariance_figure.read_curves(results["SP"][0], "cosine")
    assert curves["occlusion"]["patches"] == pytest.approx([1, 0.7, 0.6, 0.5, 0.4])
    written = [a_result(result) for result in results["SP"]]
    first, second = (invariance_figure.summarize(x).content["result"] for x in written)
    assert first["accuracy none"] == pytest.approx(0.8)
    assert first["cosine texture"] == pytest.approx(0.55)
    assert first["cosine texture/shuffle"] == first["cosine texture"]
    # (0.55 - 0.2) / (0.8 - 0.2) and (0.65 - 0.2) / (0.9 - 0.2).
    assert first["kept occlusion"] == pytest.approx(0.5833, abs=1e-4)
    assert second["kept occlusion"] == pytest.approx(0.6429, abs=1e-4)
    assert "cosine occlusion/patches" not in first
    results["_$a^{$"] = [fake_result(-0.2)]
    figure = invariance_figure.draw_figure(results, [fake_result(-0.3)])
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [*results, "untrained"]
    assert [axis.get_title() for axis in figure.axes[:4]] == list(corruptions.FAMILIES)
    (band,) = [x for x in figure.axes[0].collections if len(x.get_paths()[0]) > 12][:1]
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(0.4) and heights.max() == pytest.approx(1)


def test_one_command(photographs, tmp_path, monkeypatch):
    class Backbone:
        info = {"config": {}, "step": 7}
        images = 0

        def identity(self):
            return "0a"

        def __call__(self, images):
            Backbone.images += len(images)
            return histogram(images)

    monkeypatch.setattr(sp_jax, "load", lambda path, **options: Backbone())
    given = OPTIONS | {"images": 20}
    config = common.get_config().to_dict()
    runs = []
    for pairing in ("semantic", "augmented"):
        config["data"]["pairing"] = pairing
        runs.append(str(write_run(tmp_path / pairing, config)))
    out = tmp_path / "out"
    comparison = invariance_figure.compare(runs, [given] * 2, out)
    table = tables.make_table(comparison)
    with open(out / "invariance.csv") as file:
        assert len(list(csv.reader(file))) == 1 + 3 * len(table[1:])
    assert table[0][3:] == ["untrained", SP, AP]
    for name in ("invariance", "changes"):
        pixels = np.asarray(Image.open(out / f"{name}.png"))[..., :3]
        assert pixels.std() > 5
    page = (out / "invariance.html").read_text()
    assert page.count("data:image/png;base64,") == 2 and table[1][4] in page
    written = json.loads((tmp_path / "semantic/eval/invariance.json").read_text())
    assert written["step"] == 7
    row = next(r for r in table if r[1] == "cosine occlusion")
    assert row[4] == f"{written['result']['occlusion/cosine']:.3f}"
    # What is known is not measured again; another protocol is.
    seen, Backbone.images = Backbone.images, 0
    assert tables.make_table(invariance_figure.compare(runs, [given] * 2, out)) == table
    assert seen and Backbone.images == 0
    invariance_figure.compare(runs[:1], [given | {"seed": 1}], out)
    assert Backbone.images == seen // 2
    with pytest.raises(UserError, match="one or more runs"):
        invariance_figure.compare([], [], out)


def test_the_report_shows_the_figure(tmp_path, monkeypatch):
    def run(pairing, offset, **others):
        config = changed(set())
        config["data"]["pairing"] = pairing
        numbers = {"robust": fake_result(offset), "knn": {"accuracy": 0.5}} | others
        results = [a_result(x, name, f"as {name}") for name, x in numbers.items()]
        return report.RunFolder(a_run(pairing, config, step=7), config, [], results)

    def draw(folders):
        return report.draw_invariances(report.compare(folders), folders, tmp_path)

    runs = [run("semantic", 0.0), run("augmented", 0.1)]
    ((protocol, picture),) = draw(runs)
    assert protocol == "as robust" and picture == tmp_path / "robust.png"
    assert picture.is_file()
    # The same evaluation of the network without a step is the floor, no curve of a run's.
    shown = []
    figure = invariance_figure.draw_figure
    monkeypatch.setattr(
        invariance_figure,
        "draw_figure",
        lambda groups, floor: shown.append((groups, floor)) or figure(groups, floor),
    )
    floor = a_result(fake_result(-0.3), "robust", "as robust")._replace(untrained=True)
    runs[0].results.append(floor)
    draw(runs)
    ((groups, floors),) = shown
    assert list(groups.values()) == [[fake_result(0.0)], [fake_result(0.1)]]
    assert floors == [fake_result(-0.3)]
    # Nor has one whose evaluation was another, or on other images.
    other = a_result(fake_result(0.1), "robust", "without alpha")
    runs[1] = runs[1]._replace(results=[other])
    assert draw(runs) == []
    # A run without the evaluation has no curve to show beside the others.
    runs[1] = run("augmented", 0.1, robust={"top1": 0.1})
    assert draw(runs) == []
