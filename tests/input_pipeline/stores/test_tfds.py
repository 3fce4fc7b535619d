"""Sets of TensorFlow Datasets, as its own builders prepared them from small archives."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from eval.detection.data import open_boxes
from input_pipeline.stores import open_store, tfds_build
from sp_jax.errors import UserError

pytestmark = pytest.mark.slow  # TensorFlow prepares the sets


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A TFDS_DATA_DIR with cifar10, cifar100, stl10 and voc."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    command = [sys.executable, "-m", "tests.input_pipeline.stores.prepare_tfds", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture
def tfds(prepared, tmp_path, monkeypatch):
    """A function that opens a store in that folder; and its drawings."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))

    def opened(name, split=None, size=96):
        return open_store(
            f"tfds:{name}", split, image_size=size, data_dir=tmp_path / "data"
        )

    return opened, np.load(prepared / "drawings.npy")


def nearest(store, drawings):
    """The drawing that each image shows."""
    images = store.read(np.arange(len(store))).astype(float)
    distance = np.abs(images[:, None] - drawings[None]).mean((2, 3, 4))
    assert distance.min(1).max() < 12
    return distance.argmin(1)


def test_cifar10(tfds):
    opened, drawings = tfds
    train, test = opened("cifar10", "train"), opened("cifar10", "test")
    assert (len(train), len(test), len(opened("cifar10"))) == (5, 3, 8)
    assert train.class_names[:2] == ("airplane", "automobile")
    # Builders shuffle; labels and ids stay with their images.
    shown = nearest(train, drawings)
    assert sorted(shown) == [0, 1, 2, 3, 4]
    assert train.labels.tolist() == shown.tolist()
    assert train.ids == tuple(f"train/train_{i:05d}" for i in shown)
    assert test.labels.tolist() == [14 - i for i in nearest(test, drawings)]


def test_cifar100_has_coarse_labels(tfds):
    opened, _ = tfds
    store = opened("cifar100", "train", size=32)
    coarse, names = store.target("coarse_label")
    assert len(names) == 20 and len(store.class_names) == 100
    assert sorted(zip(store.labels, coarse, strict=True)) == [(1, 0), (17, 3), (99, 19)]


def test_stl10_has_unlabelled_images(tfds):
    opened, drawings = tfds
    store = opened("stl10", "unlabelled")
    assert store.labels.tolist() == [-1] * 4
    assert sorted(nearest(store, drawings)) == [4, 5, 6, 7]
    train = opened("stl10", "train")
    want = {0: "airplane", 1: "truck"}
    names = [train.class_names[label] for label in train.labels]
    assert names == [want[i] for i in nearest(train, drawings)]


def test_voc_has_no_single_label(tfds):
    opened, drawings = tfds
    store = opened("voc/2007", "validation")
    assert store.ids == ("validation/000002.jpg",) and store.labels.tolist() == [-1]
    assert nearest(store, drawings).tolist() == [1]


def test_boxes_of_voc_are_those_of_its_folder(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    one = open_boxes("tfds:voc", "2007/trainval+2012/trainval+2007/test")
    parts = ("VOC2007/train", "VOC2007/val", "VOC2012/train", "VOC2012/val")
    two = open_boxes(
        f"folder:{prepared / 'VOCdevkit'}", "+".join([*parts, "VOC2007/test"])
    )
    assert one.class_names == two.class_names and len(one) == len(two) == 5
    assert one.ids == two.ids  # With one image a split there is no order to shuffle.
    np.testing.assert_array_equal(one.sizes, two.sizes)
    for row in range(5):
        for field in ("boxes", "labels", "difficult"):
            a, b = getattr(one, field)[row], getattr(two, field)[row]
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.read(row), two.read(row))
    assert one.fingerprint == two.fingerprint
    assert open_boxes("tfds:voc/2012", "validation").ids == ("VOC2012/2008_000005",)


@pytest.mark.parametrize(
    "name, split, wanted",
    [
        ("voc", "train", "no split 'train': choose from 2007/trainval, 2007/train, "),
        ("voc/2007", "2007/train", "no split '2007/train': choose from trainval, "),
        ("voc/2007", "val", "no split 'val'.*validation"),
        ("voc/2007", "trainval+train", "images of tfds:voc/2007 twice"),
        ("voc", "2012/test", "test of tfds:voc/2012 has no boxes"),
        ("voc", "2013/train", "no dataset 'voc/2013'.*catalog"),
        ("coco", "train", "Unknown store of boxes 'tfds:coco'"),
    ],
)
def test_splits_of_boxes(prepared, monkeypatch, name, split, wanted):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    with pytest.raises(UserError, match=wanted):
        open_boxes(f"tfds:{name}", split)


def test_it_is_read_without_tensorflow(prepared, tmp_path):
    program = """
        import sys
        from importlib.machinery import PathFinder

        class Without:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name != "tensorflow":
                    return PathFinder.find_spec(name, path, target)

        sys.meta_path[sys.meta_path.index(PathFinder)] = Without
        from input_pipeline.stores import open_store
        from eval.detection.data import open_boxes
        print(len(open_store("tfds:cifar10", image_size=32, data_dir=sys.argv[1])))
        print(open_boxes("tfds:voc/2007", "test").read(0).shape)
        try:
            import tensorflow
        except ImportError:
            print("not there")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        env=os.environ | {"TFDS_DATA_DIR": str(prepared)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "8\n(96, 96, 3)\nnot there\n", done.stderr


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("cifar10", "cifar-10-binary.tar.gz into .*downloads/manual.*tensorflow-cpu.*"),
        ("imagenet2012", "ILSVRC2012_img_train.tar.*prepare --store=tfds:imagenet2012"),
        ("voc/2007", "VOCtest_06-Nov-2007.tar.*prepare --store=tfds:voc/2007"),
        ("cifar11", "no dataset 'cifar11'.*catalog"),
        ("cifar10:9.9.9", "cifar10:9.9.9.*only: 3.0.2.*catalog"),
        ("cifar10/size=3", "unexpected keyword argument 'size'.*catalog"),
        ("huggingface:mnist", "huggingface: is a collection of datasets.*catalog"),
    ],
)
def test_what_is_missing_and_where_it_belongs(name, wanted, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=wanted):
        open_store(f"tfds:{name}", data_dir=tmp_path / "data")


@pytest.fixture
def as_tfrecord(prepared, tmp_path, monkeypatch):
    """A TFDS_DATA_DIR whose cifar10 says that it is in the form of others."""
    shutil.copytree(prepared / "cifar10", tmp_path / "cifar10")
    (info,) = tmp_path.glob("cifar10/*/dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return info


def test_a_set_in_another_format(as_tfrecord, tmp_path):
    with pytest.raises(
        UserError, match="prepared as tfrecord.*tensorflow-cpu.*--store=tfds:cifar10"
    ):
        open_store("tfds:cifar10", data_dir=tmp_path / "data")


def test_a_set_that_was_converted(prepared):
    """Its own files are still there, and it is still what TensorFlow reads."""
    (info,) = prepared.glob("cifar100/*/dataset_info.json")
    noted = json.loads(info.read_text())
    assert noted["fileFormat"] == "tfrecord"
    assert noted["alternativeFileFormats"] == ["array_record"]
    assert len(list(info.parent.glob("*.tfrecord-*"))) == 2


def test_building_without_tensorflow(as_tfrecord, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "tensorflow" else find(name, *more),
    )
    with pytest.raises(UserError, match="to convert it, pip install tensorflow-cpu"):
        tfds_build.build("cifar10")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "new"))
    with pytest.raises(UserError, match="not prepared in .*pip install tensorflow-cpu"):
        tfds_build.build("cifar10")


def test_a_builder_that_fails(tmp_path, monkeypatch):
    """Its files are not there."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(
        UserError, match=r"cannot be prepared.*\w\): put .*img_train.tar"
    ):
        tfds_build.build("imagenet2012")


def test_damaged_files_of_a_set(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared / "cifar10", tmp_path / "cifar10")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (shard,) = tmp_path.glob("cifar10/*/*train.array_record*")
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(UserError, match="cifar10"):
        open_store("tfds:cifar10", data_dir=tmp_path / "data")
    (info,) = tmp_path.glob("cifar10/*/dataset_info.json")
    for content in (b"", b"{", b"[]", b'{"splits": 3}'):
        info.write_bytes(content)
        with pytest.raises(UserError, match="cifar10"):
            open_store("tfds:cifar10", data_dir=tmp_path / "data")
