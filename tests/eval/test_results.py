"""Results on disk: what they belong to, and what happens to damaged ones."""

import dataclasses
import itertools
import json
import math
import os
import pathlib
import tempfile

import flax.linen as nn
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from eval import results
from eval.evaluator import Evaluator, Number
from eval.results import default_name, question_of
from sp_jax.backbone import Backbone
from sp_jax.errors import UserError
from sp_jax.features import Extractor


class Shift(nn.Module):
    """Features are pixels times a factor, and a parameter."""

    factor: float = 1.0
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        shift = self.param("shift", nn.initializers.zeros, (1,))
        return x.reshape(len(x), -1) * self.factor + shift


HALF = (0.5, 0.5, 0.5)
BACKBONE = Backbone(
    Shift(), {"params": {"shift": np.zeros(1)}}, 2, HALF, HALF, {"step": 7}
)


@pytest.fixture
def once(tmp_path, make_store):
    """Function (backbone, protocol, changes of the store) -> whether it measured anew."""
    values = np.arange(36).reshape(3, 12)
    store = make_store(values, [0, 1, 1], artist=[0, 1, 0])

    def run(
        backbone=BACKBONE,
        protocol="nearest",
        kind="knn",
        path=tmp_path / "run",
        **changes,
    ):
        calls = []
        own = dataclasses.replace(store, **changes)
        evaluate = Evaluator(
            protocol,
            lambda extractor, step: calls.append(step) or {"accuracy": 0.5},
            (Number("accuracy", percent=True, chance=0.5),),
            (own,),
            kind,
        )
        found = results.evaluate_once(evaluate, Extractor(backbone), path, "knn")
        assert found["result"] == {"accuracy": 0.5} and found["protocol"] == protocol
        return bool(calls)

    return run


CHANGES = {
    "evaluator": {"kind": "mine.knn"},
    "protocol": {"protocol": "farthest"},
    "step": {"backbone": dataclasses.replace(BACKBONE, info={"step": 8})},
    "weights": {
        "backbone": dataclasses.replace(
            BACKBONE, variables={"params": {"shift": np.ones(1)}}
        )
    },
    "network": {"backbone": dataclasses.replace(BACKBONE, module=Shift(2.0))},
    "colours": {"backbone": dataclasses.replace(BACKBONE, mean=(0.4, 0.5, 0.5))},
    "size": {"backbone": dataclasses.replace(BACKBONE, size=4)},
    "labels": {"labels": np.array([0, 0, 1], np.int32)},
    "attribute": {"attributes": {"artist": np.array([1, 1, 0], np.int32)}},
    "pixels": {"digests": np.zeros((3, 32), np.uint8)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_belongs_to_its_weights_and_images(once, change):
    assert once() and not once()
    assert once(**CHANGES[change]) and not once(**CHANGES[change])
    assert not once()  # the first one is still there


def test_a_folder_that_cannot_be_written_shows_before_the_work(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "eval").touch()
    never = Evaluator("nearest", lambda *_: pytest.fail("it measured"), (), (), "knn")
    with pytest.raises(OSError):
        results.evaluate_once(never, Extractor(BACKBONE), tmp_path / "run", "knn")


def test_what_only_changes_the_speed_is_not_measured_again(once):
    fast = dataclasses.replace(BACKBONE, module=Shift(dtype=jnp.bfloat16))
    assert once() and not once(fast)
    # Colours of a config that was read from JSON.
    assert not once(dataclasses.replace(BACKBONE, mean=list(HALF)))


def test_a_file_of_weights_keeps_its_results_too(once, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"")
    assert once(path=path) and not once(path=path)


def test_a_file_of_an_older_version_is_not_measured_again(once, tmp_path):
    assert once()
    path = tmp_path / "run/eval/knn.json"
    content = json.loads(path.read_text())
    for key in ("headline", "evaluator", "options", "training", "device", "date"):
        del content[key]
    path.write_text(json.dumps(content))
    assert not once()


def test_a_mere_function_is_measured_each_time(once):
    def pixels(images):
        return images.reshape(len(images), -1)

    pixels.info = {"step": 7}
    assert once(pixels) and once(pixels)


@pytest.mark.parametrize(
    "text",
    ['{"half', "[]", "", "\x00", "{}"]
    + ['{"result": {"accuracy": "high"}, "protocol": "nearest", "step": 7}']
    + ['{"result": {"accuracy": 0.5}, "protocol": "nearest", "step": 7}'],  # an old one
)
def test_a_damaged_or_old_result_is_measured_again(once, tmp_path, text, capsys):
    assert once()
    path = tmp_path / "run/eval/knn.json"
    path.write_text(text)
    if '0.5}, "pro' not in text:
        with pytest.raises(UserError, match=r"knn\.json"):
            results.read_result(path)
    assert once() and not once()
    if '0.5}, "pro' not in text:
        assert "knn.json" in capsys.readouterr().err


SPLITS = st.sampled_from([{"a test": "1"}, {"a test": "2"}, {"b test": "1"}])
WRITES = st.builds(
    dict,
    name=st.sampled_from(["knn", "probe"]),
    evaluator=st.sampled_from(["knn", "mine.knn"]),
    protocol=st.sampled_from(["k=10", "k=20"]),
    images=SPLITS,
    step=st.sampled_from([100, 200]),
    weights=st.sampled_from(["a", "b", None]),
    training=st.booleans(),
    untrained=st.sampled_from([False, False, True]),
)


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(WRITES, max_size=16))
def test_no_result_is_lost_or_mixed_over_any_order_of_evaluations(writes):
    kept = {}  # place and question of a command, or place and evaluation of the training
    with (
        tempfile.TemporaryDirectory() as workdir,
        pytest.MonkeyPatch.context() as patch,
    ):
        clock = itertools.count()
        patch.setattr(results, "now", lambda: f"{next(clock):05d}")
        for value, write in enumerate(writes):
            about = dict(write)
            name = about.pop("name")
            results.write_result(workdir, name, {"x": value}, headline=(), **about)
            place, question = (name, write["untrained"]), question_of(write)
            of_training = place, question._replace(step=0, weights="any")
            if write["training"]:
                kept[of_training] = question, value
            else:
                kept[place, question] = question, value
                if kept.get(of_training, [None])[0] == question:  # answered anew
                    del kept[of_training]
        found = results.read_results(workdir)
        assert {value for _, value in kept.values()} <= {
            one.content["result"]["x"] for one in found
        }
        for one in found:  # each is whole, under its name
            write = dict(writes[int(one.content["result"]["x"])])
            name = write.pop("name")
            assert one.name == name or one.name.startswith(f"{name}_")
            assert write.pop("untrained") == one.untrained
            assert write.items() <= one.content.items()
        of_knn = [
            value
            for value, write in enumerate(writes)
            if write["name"] == "knn" and not write["untrained"]
        ]
        newest = results.read_newest(workdir, "knn")
        assert (newest["result"]["x"] if newest else None) == (of_knn or [None])[-1]


def test_the_training_keeps_one_file_an_evaluation_and_says_where_it_goes(
    tmp_path, capsys
):
    def write(step, **changes):
        about = {"evaluator": "knn", "training": True, "step": step} | changes
        path = results.write_result(tmp_path, "knn", NUMBERS, **ABOUT | about)
        return path.relative_to(tmp_path / "eval").as_posix()

    assert [write(step) for step in (1, 2, 3, 2)] == ["knn.json"] * 4
    assert write(0, untrained=True) == "untrained/knn.json"
    assert not capsys.readouterr().err
    assert write(2, training=False) == "knn.json"  # the same question
    other = write(4)
    assert other.startswith("knn_") and other in capsys.readouterr().err
    assert [write(step) for step in (5, 6)] == [other] * 2
    assert len(results.read_results(tmp_path)) == 3


def test_a_training_goes_on_with_the_file_of_an_older_version(tmp_path):
    path = results.write_result(tmp_path, "knn", NUMBERS, **ABOUT)
    content = json.loads(path.read_text())
    for key in ("evaluator", "training"):
        del content[key]
    path.write_text(json.dumps(content))
    about = ABOUT | {"evaluator": "knn", "step": 2, "training": True}
    assert results.write_result(tmp_path, "knn", NUMBERS, **about) == path


def test_default_names_have_dataset_and_target(tmp_path):
    for dataset, target, name in (
        ("emoji", "category", "knn_emoji_category"),
        (f"folder:{tmp_path}/CIFAR-10/", "label", "knn_CIFAR_10_label"),
        ("tfds:voc/2007", "label", "knn_tfds_voc_2007_label"),
        ("folder:photos.zip", None, "knn_photos_zip"),
    ):
        assert default_name("knn", {"dataset": dataset, "target": target}) == name


NUMBERS = {"good": 0.5, "bad": math.nan, "far": math.inf}
ABOUT = {"protocol": "", "headline": (), "step": 1, "weights": None, "images": {}}


def test_nan_is_null_in_the_file_and_nan_again(tmp_path):
    path = results.write_result(tmp_path, "knn", NUMBERS, **ABOUT)

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    text = path.read_text()
    written = json.loads(text, parse_constant=refuse)
    assert written["result"] == {"good": 0.5, "bad": None, "far": None}
    found = results.read_result(path)["result"]
    assert found["good"] == 0.5 and math.isnan(found["bad"])


def test_the_headline_is_kept_and_old_files_have_one(tmp_path):
    headline = (Number("bad", "lower"), Number("good", percent=True, chance=0.25))
    about = ABOUT | {"headline": headline}
    path = results.write_result(tmp_path, "knn", NUMBERS, **about)
    assert results.read_result(path)["headline"] == headline
    content = json.loads(path.read_text())
    assert content["headline"][1] == headline[1]._asdict()
    for wrong in (5, [5], [{"key": "good"}]):
        path.write_text(json.dumps(content | {"headline": wrong}))
        with pytest.raises(UserError, match=r"knn\.json"):
            results.read_result(path)
    del content["headline"]
    for name in ("accuracy", "top1", "cosine", "rankme", "cka", "ap"):
        path.write_text(json.dumps(content | {"result": {"chance": 0.1, name: 0.5}}))
        assert [one.name for one in results.read_result(path)["headline"]] == [name]


def test_a_failed_write_leaves_the_old_result(tmp_path, monkeypatch):
    path = results.write_result(tmp_path, "knn", NUMBERS, **ABOUT)
    before = path.read_text()

    def stop(*args):
        raise OSError(28, "No space left on device", str(args[0]))

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(OSError) as error:
        results.write_result(tmp_path, "knn", {"accuracy": 0}, **ABOUT)
    assert pathlib.Path(error.value.filename) == path  # not that of the temporary file
    assert path.read_text() == before
    assert os.listdir(path.parent) == ["knn.json"]


def test_the_newest_result_of_the_question_that_was_asked(tmp_path):
    for number, images in enumerate(({"test": "0a"}, {"test": "0b"})):
        about = ABOUT | {"images": images, "options": {"k": [number, 5]}}
        results.write_result(tmp_path, "knn", {"accuracy": float(number)}, **about)

    def newest(**asked):
        found = results.read_newest(tmp_path, "knn", **asked)
        return found and found["result"]["accuracy"]

    assert newest(images={"test": "0b"}) == newest(options={"k": (1, 5)}) == 1.0
    assert newest(images={"test": "0a"}) == newest(options={"k": (0, 5)}) == 0.0
    assert newest(images={"test": "0c"}) is newest(options={"k": (9,)}) is None
