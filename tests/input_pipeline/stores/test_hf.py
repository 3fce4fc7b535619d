"""Sets of Hugging Face, written here by its library."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from input_pipeline.stores import open_source, open_store
from sp_jax.errors import UserError

datasets = pytest.importorskip("datasets", reason="needs the library datasets")
NAMES = ["ant", "bee", "cat"]


def png(value):
    file = io.BytesIO()
    Image.new("RGB", (9, 8), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def rows(first, count, labels=None, **more):
    """A set of plain images, as bytes, with their labels."""
    kinds = {"image": datasets.Image()}
    images = [{"bytes": png(9 * i), "path": None} for i in range(first, first + count)]
    columns = {"image": images} | more
    if labels is not None:
        columns["label"] = labels
        if isinstance(labels[0], int):
            kinds["label"] = datasets.ClassLabel(names=NAMES)
    for name, values in more.items():
        kinds[name] = datasets.ClassLabel(names=sorted(set(values)))
    if isinstance((labels or [0])[0], str):
        kinds["label"] = datasets.Value("string")
    return datasets.Dataset.from_dict(columns, datasets.Features(kinds))


@pytest.fixture
def parts():
    train = rows(0, 5, [2, 0, 2, 0, -1], colour=["red", "blue", "red", "red", "blue"])
    test = rows(5, 2, [0, 2], colour=["red", "blue"])
    return datasets.DatasetDict(train=train, test=test)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def open_(place, split=None, **more):
        options = {"image_size": 8, "data_dir": tmp_path / "data"} | more
        return open_store(f"hf:{place}", split, **options)

    return open_


def parquet(parts, folder):
    (folder / "data").mkdir(parents=True)
    for name, part in parts.items():
        part.to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")


def saved(parts, folder):
    parts.save_to_disk(folder)


def arrow(parts, folder):
    for name, part in parts.items():
        part.save_to_disk(folder / "saved" / name)
        (file,) = (folder / "saved" / name).glob("*.arrow")
        file.rename(folder / f"{name}.arrow")
        for other in (folder / "saved" / name).iterdir():
            other.unlink()
        (folder / "saved" / name).rmdir()
    (folder / "saved").rmdir()


@pytest.mark.parametrize("write", [parquet, saved, arrow])
def test_every_form_of_a_folder_is_one_store(write, parts, opened, tmp_path):
    write(parts, tmp_path / "set")
    train, test = (opened(tmp_path / "set", s) for s in ("train", "test"))
    assert train.splits == ("train", "test")
    assert train.class_names == tuple(NAMES) and train.labels.tolist() == [
        2,
        0,
        2,
        0,
        -1,
    ]
    colours, names = train.target("colour")
    assert names == ("blue", "red") and colours.tolist() == [1, 0, 1, 1, 0]
    assert test.ids == ("test/0000000", "test/0000001")
    assert train.read(np.arange(5))[:, 4, 4, 0].tolist() == [0, 9, 18, 27, 36]
    assert test.read([1])[0, 4, 4].tolist() == [54] * 3
    # Another opening finds the prepared images.
    before = sorted(tmp_path.glob("data/hf-*/images.npy"))
    opened(tmp_path / "set")
    assert len(before) == 1 and sorted(tmp_path.glob("data/hf-*/images.npy")) == before


def test_labels_that_are_no_class_labels(opened, tmp_path):
    rows(0, 3, ["b", "a", "b"], kind=["x", "y", "y"]).save_to_disk(tmp_path / "one")
    store = opened(tmp_path / "one")
    assert store.splits == () and store.class_names == ("a", "b")
    assert store.labels.tolist() == [1, 0, 1]
    store = opened(f"{tmp_path / 'one'}?label=kind")
    assert store.class_names == ("x", "y") and store.labels.tolist() == [0, 1, 1]
    rows(0, 2).save_to_disk(tmp_path / "none")
    assert opened(tmp_path / "none").labels.tolist() == [-1, -1]
    rows(0, 2, kind=["x", "y"]).save_to_disk(tmp_path / "only")
    assert opened(tmp_path / "only").class_names == ("x", "y")


def test_columns_that_are_not_clear_are_refused(opened, tmp_path):
    two = datasets.concatenate_datasets(
        [rows(0, 2), rows(2, 2).rename_column("image", "mask")], axis=1
    )
    two.save_to_disk(tmp_path / "two")
    with pytest.raises(
        UserError, match="not clear .image, mask.: name one .*.image=COL"
    ):
        opened(tmp_path / "two")
    assert len(opened(f"{tmp_path / 'two'}?image=mask")) == 2
    with pytest.raises(UserError, match="no column 'breed' but image, mask"):
        opened(f"{tmp_path / 'two'}?label=breed&image=mask")


def test_splits_of_different_columns(opened, tmp_path):
    parts = datasets.DatasetDict(train=rows(0, 2, [0, 1]), test=rows(2, 2))
    parts.save_to_disk(tmp_path / "set")
    with pytest.raises(
        UserError, match="the splits train and test differ in their col"
    ):
        opened(tmp_path / "set")


def test_a_set_that_cannot_be_loaded(opened, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match="hf:.*empty cannot be loaded .*parquet or arrow"
    ):
        opened(tmp_path / "empty")
    asked = []

    def load(*names):
        asked.append(names)
        raise ConnectionError("Couldn't reach it\nbecause")

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name in ("uoft-cs/cifar100", "uoft-cs/cifar100:fine"):
        with pytest.raises(
            UserError, match="cannot be loaded .Couldn't reach it.: give"
        ):
            opened(name)
    assert asked == [("uoft-cs/cifar100", None), ("uoft-cs/cifar100", "fine")]


def test_damaged_and_missing_images_are_listed(opened, tmp_path):
    images = [{"bytes": png(9), "path": None}] * 3
    images += [{"bytes": b"no image", "path": None}, None]
    kinds = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": images}, kinds).save_to_disk(tmp_path / "set")
    assert len(opened(tmp_path / "set", max_skipped=0.5)) == 3
    (listed,) = (tmp_path / "data").glob("hf-*/skipped.csv")
    assert (
        "all/0000003" in listed.read_text() and "no image there" in listed.read_text()
    )


def test_a_source_goes_to_another_process(parts, tmp_path):
    parts.save_to_disk(tmp_path / "set")
    source = pickle.loads(pickle.dumps(open_source(f"hf:{tmp_path / 'set'}")))
    assert len(source.meta()["ids"]) == 7
    assert pickle.loads(pickle.dumps(source.open_reader()))(6) == png(54)
