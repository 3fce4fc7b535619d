"""ImageNet in the archives of its authors: small ones, made here."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

from input_pipeline.stores import open_source, open_store
from sp_jax.errors import UserError

WNIDS = ["n01440764", "n01443537", "n02124075"]
# The devkit numbers the classes in an order of its own, and parents of classes behind them.
DEVKIT = [(1, "n02124075", 0), (2, "n01440764", 0), (3, "n01443537", 0)]
DEVKIT += [(4, "n00001740", 3)]
VAL = [3, 1, 2, 3, 1]  # The numbers of its ground truth.
TRAIN, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz"
NUMBERS = "ILSVRC2012_validation_ground_truth.txt"


def jpeg(value, size=(12, 9)):
    file = io.BytesIO()
    Image.new("RGB", size, (value, 255 - value, value // 2)).save(file, "JPEG")
    return file.getvalue()


def tar(files, mode="w"):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def class_tars():
    """The class tars, not in order, nor are the images in them."""
    return {
        f"{wnid}.tar": tar(
            {f"{wnid}_{i}.JPEG": jpeg(60 * k + 9 * i) for i in (10, 2, 3)}
        )
        for k, wnid in reversed(list(enumerate(WNIDS)))
    }


def devkit():
    kinds = [("ILSVRC2012_ID", "u2"), ("WNID", "O"), ("words", "O"), ("gloss", "O")]
    rows = [(number, wnid, "word", "") for number, wnid, _ in DEVKIT]
    synsets = np.array(rows, kinds)
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": synsets})
    return {
        "meta.mat": meta.getvalue(),
        NUMBERS: "".join(f"{number}\n" for number in VAL).encode(),
    }


def val_name(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def val_wnid(number):
    return DEVKIT[VAL[number - 1] - 1][1]


@pytest.fixture
def folder(tmp_path):
    """A folder with the three archives."""
    root = tmp_path / "imagenet"
    root.mkdir()
    (root / TRAIN).write_bytes(tar(class_tars()))
    images = {val_name(i): jpeg(40 * i) for i in (1, 2, 3, 5, 4)}
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar(images))
    kit = {f"ILSVRC2012_devkit_t12/data/{k}": v for k, v in devkit().items()}
    (root / KIT).write_bytes(tar(kit, "w:gz"))
    return root


def unpack(root, out):
    """As torchvision does."""
    with tarfile.open(root / TRAIN) as outer:
        for member in outer:
            with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                inner.extractall(out / "train" / member.name[:-4], filter="data")
    with tarfile.open(root / "ILSVRC2012_img_val.tar") as outer:
        for member in outer:
            place = out / "val" / val_wnid(int(member.name[-10:-5]))
            outer.extract(member, place, filter="data")
    return out


@pytest.fixture
def opened(tmp_path):
    def open_(place, split=None, kind="imagenet", **more):
        options = {"image_size": 8, "data_dir": tmp_path / "data"} | more
        return open_store(f"{kind}:{place}", split, **options)

    return open_


def test_it_is_the_folder_that_torchvision_unpacks(folder, opened, tmp_path):
    unpacked = unpack(folder, tmp_path / "unpacked")
    for split in ("train", "val", None):
        one, two = opened(folder, split), opened(unpacked, split, "folder")
        assert one.fingerprint == two.fingerprint and one.ids == two.ids
        assert one.class_names == two.class_names == tuple(WNIDS)
    assert one.splits == ("train", "val") and len(one) == 14
    assert one.ids[:2] == tuple(f"train/n01440764/n01440764_{i}.JPEG" for i in (10, 2))
    val = opened(folder, "val")
    assert [val.class_names[k] for k in val.labels] == [
        val_wnid(int(name[-10:-5])) for name in val.ids
    ]


@pytest.mark.parametrize("inside", ["", "train/"])
def test_class_tars_in_a_folder_and_one_archive_alone(folder, opened, tmp_path, inside):
    place = tmp_path / "classes"
    (place / inside).mkdir(parents=True)
    for name, content in class_tars().items():
        (place / inside / name).write_bytes(content)
    train = opened(folder, "train")
    for other in (opened(place), opened(folder / TRAIN)):
        assert other.splits == ("train",) and other.fingerprint == train.fingerprint
    assert opened(place / inside / "n02124075.tar").ids == train.ids[6:]
    val = opened(folder / "ILSVRC2012_img_val.tar")
    assert (
        val.splits == ("val",) and val.fingerprint == opened(folder, "val").fingerprint
    )


def write_data(root):
    (root / "data").mkdir()
    for name, content in devkit().items():
        (root / "data" / name).write_bytes(content)


LINES = [f"{val_name(i)} {val_wnid(i)}" for i in (5, 4, 3, 2, 1)]
KAGGLE = [
    f"{val_name(i)[:-5]},{val_wnid(i)} 1 2 3 4 {val_wnid(i)} 5 6 7 8 "
    for i in range(1, 6)
]


@pytest.mark.parametrize(
    "write",
    [
        write_data,
        lambda root: (root / "val.txt").write_text("\n".join(LINES)),
        lambda root: (root / "LOC_val_solution.csv").write_text(
            "\n".join(["ImageId,PredictionString", *KAGGLE])
        ),
        lambda root: (root / "imagenet_2012_validation_synset_labels.txt").write_text(
            "\n".join(val_wnid(i) for i in range(1, 6))
        ),
    ],
)
def test_labels_of_val_in_every_form(folder, opened, write):
    want = opened(folder, "val").fingerprint
    (folder / KIT).unlink()
    write(folder)
    assert opened(folder, "val").fingerprint == want


def test_val_in_class_folders(folder, opened, tmp_path):
    want = opened(folder).fingerprint
    unpack(folder, tmp_path / "unpacked")
    (folder / KIT).unlink()
    (folder / "ILSVRC2012_img_val.tar").unlink()
    os.rename(tmp_path / "unpacked" / "val", folder / "val")
    assert opened(folder).fingerprint == want
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        archive.add(folder / "val", "val")
    assert opened(folder).fingerprint == want


def test_labels_that_are_not_known_are_refused(folder, opened):
    kit = (folder / KIT).read_bytes()
    (folder / KIT).write_bytes(kit[:200])
    with pytest.raises(UserError, match="not the devkit of ImageNet .* or is damaged"):
        opened(folder)
    (folder / KIT).unlink()
    with pytest.raises(
        UserError, match="The class of .*00000001.* is unknown: put ILSV"
    ):
        opened(folder)
    # The numbers of the devkit without what says their meaning; those of other programs.
    (folder / NUMBERS).write_text("1\n" * 5)
    with pytest.raises(UserError, match="The class of .* is unknown"):
        opened(folder)
    (folder / "val.txt").write_text(f"{val_name(1)} 65\n")
    with pytest.raises(
        UserError, match="line 1, must have one WordNet id.*several orders"
    ):
        opened(folder)
    assert len(opened(folder / TRAIN)) == 9


def test_what_is_missing_or_damaged_is_named(folder, opened, tmp_path):
    with pytest.raises(UserError, match="There is no .*nowhere: get ILSVRC2012_img_tr"):
        opened(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match="no archive of ImageNet.*unpacked, name it folder"
    ):
        opened(tmp_path / "empty")
    whole = (folder / TRAIN).read_bytes()
    (folder / TRAIN).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        UserError, match="not a complete, uncompressed tar archive .*again"
    ):
        opened(folder)
    # tarfile takes a damaged header for the end: images would be lost in silence.
    second = whole.index(b"n02124075_2.JPEG")
    (folder / TRAIN).write_bytes(whole[:second] + b"?" * 512 + whole[second + 512 :])
    with pytest.raises(UserError, match=f"no header of a file begins at byte {second}"):
        opened(folder)
    # The size of a class tar says less than it holds.
    tars = class_tars()
    tars["n02124075.tar"] = tars["n02124075.tar"][:612]
    (folder / TRAIN).write_bytes(tar(tars))
    with pytest.raises(UserError, match="it ends within n02124075_10.JPEG"):
        opened(folder)
    packed = tar(class_tars(), "w:gz")
    (folder / TRAIN).write_bytes(packed)
    with pytest.raises(UserError, match="decompress it"):
        opened(folder / TRAIN)


def test_class_tars_without_zeros_at_their_ends(folder, opened):
    want = opened(folder).fingerprint
    tars = {}
    for name, content in class_tars().items():
        content = content.rstrip(b"\0")
        tars[name] = content + b"\0" * (-len(content) % 512)
    (folder / TRAIN).write_bytes(tar(tars))
    assert opened(folder).fingerprint == want


def test_a_damaged_image_is_listed(folder, opened, tmp_path):
    content = (folder / TRAIN).read_bytes()
    place = content.index(b"\xff\xd8", content.index(b"n01443537_3.JPEG"))
    (folder / TRAIN).write_bytes(content[:place] + b"??" + content[place + 2 :])
    with pytest.raises(UserError, match="1 of 14 .*train/n01443537/n01443537_3.JPEG"):
        opened(folder)
    assert len(opened(folder, max_skipped=0.1)) == 13
    (listed,) = (tmp_path / "data").glob("imagenet-*/skipped.csv")
    assert 'train/n01443537/n01443537_3.JPEG,"cannot be decoded' in listed.read_text()


def test_prepared_images_are_opened_without_a_look_into_the_archives(
    folder, opened, monkeypatch
):
    assert len(opened(folder)) == 14
    source = open_source(f"imagenet:{folder}")
    monkeypatch.setattr("input_pipeline.stores.imagenet.list_tar", None)
    assert len(opened(folder)) == 14
    # When an archive changes, they are made anew.
    os.utime(folder / TRAIN, ns=(1, 1))
    assert open_source(f"imagenet:{folder}").key != source.key


def test_a_source_goes_to_another_process(folder):
    source = open_source(f"imagenet:{folder}")
    ids = source.meta()["ids"]
    other = pickle.loads(pickle.dumps(source))
    assert other.meta()["ids"] == ids
    reader = pickle.loads(pickle.dumps(source.open_reader()))
    row = ids.index("train/n01443537/n01443537_3.JPEG")
    assert reader(row) == other.open_reader()(row) == jpeg(87)
    assert source.size_of(row) == len(jpeg(87))
    # What became shorter since it was listed is an error of that image.
    os.truncate(folder / TRAIN, 3000)
    with pytest.raises(OSError, match="ends too soon"):
        reader(0)
