"""Sets of TensorFlow Datasets, as its own builders prepared them from small archives."""

import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from input_pipeline.errors import UserError
from input_pipeline.store import open_store


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A TFDS_DATA_DIR with cifar10, cifar100, stl10 and voc/2007."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    command = [sys.executable, "-m", "tests.input_pipeline.prepare_tfds", folder]
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
        from input_pipeline.store import open_store
        print(len(open_store("tfds:cifar10", image_size=32, data_dir=sys.argv[1])))
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
    assert done.stdout == "8\nnot there\n", done.stderr


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("cifar10", "cifar-10-binary.tar.gz into .*downloads/manual.*tensorflow-cpu.*"),
        ("imagenet2012", "ILSVRC2012_img_train.tar.*tfds build imagenet2012 --file_f"),
        ("voc/2007", "VOCtest_06-Nov-2007.tar.*tfds build voc/2007"),
        ("cifar11", "no set 'cifar11'.*catalog"),
        ("cifar10:9.9.9", "cifar10:9.9.9.*only: 3.0.2.*catalog"),
        ("cifar10/size=3", "unexpected keyword argument 'size'.*catalog"),
        ("huggingface:mnist", "huggingface: is a collection of others.*catalog"),
    ],
)
def test_what_is_missing_and_where_it_belongs(name, wanted, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match=wanted):
        open_store(f"tfds:{name}", data_dir=tmp_path / "data")


def test_a_set_in_another_format(prepared, tmp_path, monkeypatch):
    shutil.copytree(prepared / "cifar10", tmp_path / "cifar10")
    (info,) = tmp_path.glob("cifar10/*/dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="prepared as tfrecord.*--file_format=array_r"):
        open_store("tfds:cifar10", data_dir=tmp_path / "data")
