"""Folders in VOC's layout: what is read, and the errors for damaged ones."""

import numpy as np
import pytest
from PIL import Image

from eval.detection.data import open_boxes
from sp_jax.errors import UserError


def opened(voc, split="train"):
    return open_boxes(f"folder:{voc.root}", split)


def test_objects_of_two_years(voc):
    dog = voc.object("dog", (1, 1, 20, 10), "<difficult>1</difficult>")
    voc.add("trainval", "000005", voc.object(), dog)
    voc.add("trainval", "000007", size=(30, 10))
    # Fractions, as in VOC 2012, and no flag.
    voc.add(
        "val", "2008_1", voc.object("tvmonitor", (1.6, 2, 3, 4), ""), year="VOC2012"
    )
    store = opened(voc, "VOC2012/val+VOC2007/trainval")
    assert store.ids == ("VOC2012/2008_1", "VOC2007/000005", "VOC2007/000007")
    assert store.sizes.tolist() == [[10, 20], [10, 20], [30, 10]]
    assert len(store.class_names) == 20  # Though only three are here.
    names = [[store.class_names[i] for i in labels] for labels in store.labels]
    assert names == [["tvmonitor"], ["cat", "dog"], []]
    # From the first pixel, which VOC counts as 1, to the end of the last one.
    wanted = [[[0.6, 1, 3, 4]], [[1, 2, 8, 9], [0, 0, 20, 10]], np.zeros((0, 4))]
    for boxes, want in zip(store.boxes, wanted, strict=True):
        assert boxes.dtype == np.float32
        np.testing.assert_array_equal(boxes, np.asarray(want, np.float32))
    assert [x.tolist() for x in store.difficult] == [[False], [False, True], []]
    assert store.read(2).shape == (30, 10, 3) and store.read(2).dtype == np.uint8
    assert (abs(store.read(0).astype(int) - 90) < 3).all()


def test_other_classes_keep_their_ids_in_every_split(voc):
    voc.add("train", "a", voc.object("zebra"))
    voc.add("test", "b", voc.object("emu"), voc.object("cat"))
    train, test = opened(voc, "train"), opened(voc, "test")
    assert train.class_names == test.class_names == ("cat", "emu", "zebra")
    assert train.labels[0].tolist() == [2] and test.labels[0].tolist() == [1, 0]


def test_a_fingerprint_tells_boxes_apart(voc):
    voc.add("train", "a", voc.object(corners=(2, 3, 8, 9)))
    voc.add("val", "b", voc.object(corners=(2, 3, 8, 9)))
    voc.add("other", "a", voc.object(corners=(2, 3, 8, 8)), year="VOC2008")
    prints = {opened(voc, f"VOC2007/{s}").fingerprint for s in ("train", "val")}
    prints |= {opened(voc, "VOC2008/other").fingerprint}
    assert len(prints) == 3
    assert opened(voc, "VOC2007/train").fingerprint in prints


def test_difficult_in_any_spelling(voc):
    yes = ("1", " 1 ", "true", "True", "YES", "<!-- so -->1", "\n1\n")
    no = ("0", "false", "No", "", " ")
    flags = [f"<difficult>{text}</difficult>" for text in (*yes, *no)]
    flags += [
        "<Difficult>1</Difficult>",
        "<DIFFICULT>0</DIFFICULT>",
        "<difficult/>",
        "",
    ]
    flags += ["<truncated>1</truncated><occluded>1</occluded>"]
    objects = [voc.object(difficult=flag) for flag in flags]
    # Also as an attribute, and of an object whose tag is written otherwise.
    objects += [voc.object(difficult="").replace("<object>", '<object difficult="1">')]
    objects += [voc.object().replace("object>", "Object>")]
    voc.add("train", "a", *objects)
    expected = [*[True] * len(yes), *[False] * len(no), True, *[False] * 4, True, False]
    assert opened(voc).difficult[0].tolist() == expected


@pytest.mark.parametrize(
    "flag",
    [
        *(f"<difficult>{x}</difficult>" for x in ("2", "-1", "Unspecified", "nan")),
        "<difficult>1</difficult><difficult>0</difficult>",
    ],
)
def test_difficult_is_never_guessed(voc, flag):
    voc.add("train", "a", voc.object(difficult=flag))
    with pytest.raises(UserError, match="a.xml .*object/difficult is .* 0 or 1"):
        opened(voc)


def test_files_of_other_systems(voc):
    """What a Mac hides, names with spaces, other suffixes, another form of é."""
    for name in ("a", "holiday photo 12", "holiday photo", "b.c", "caf\u00e9", "d"):
        voc.add("train", name, voc.object())
    year = voc.root / "VOC2007"
    hidden = ("Annotations/._a.xml", "JPEGImages/._a.jpg", "ImageSets/Main/._train.txt")
    for name in hidden:
        (year / name).write_bytes(b"\0\5\x16\7")
    for folder in (".Trash", "__MACOSX"):
        (voc.root / folder / "Annotations").mkdir(parents=True)
    images = year / "JPEGImages"
    (images / "a.jpg").rename(images / "a.JPG")
    (year / "Annotations/a.xml").rename(year / "Annotations/a.XML")
    (images / "a.txt").write_text("of a camera")
    Image.new("RGB", (20, 10), (90, 90, 90)).save(images / "d.png")
    (images / "d.jpg").unlink()
    (images / "caf\u00e9.jpg").rename(images / "cafe\u0301.jpeg")
    store = opened(voc)
    names = ("a", "holiday photo 12", "holiday photo", "b.c", "caf\u00e9", "d")
    assert store.ids == tuple(f"VOC2007/{name}" for name in names)
    assert all((abs(store.read(row).astype(int) - 90) < 3).all() for row in range(6))
    (images / "d.BMP").write_bytes(b"")
    with pytest.raises(
        UserError, match="JPEGImages holds d.BMP and d.png: keep the one"
    ):
        opened(voc)
    Image.new("RGB", (20, 10)).save(images / "d.jpg")  # VOC's own name.
    assert opened(voc).read(5).max() == 0
    (year / "ImageSets/Main/train.txt").write_text("holiday photo 13\n")
    with pytest.raises(UserError, match="Annotations/holiday photo 13.xml is missing"):
        opened(voc)


def test_lists_of_other_programs(voc):
    for name in ("a", "caf\u00e9"):
        voc.add("train", name, voc.object())
    path = voc.root / "VOC2007/ImageSets/Main/train.txt"
    for content in (
        "a\ncaf\u00e9\n".encode("utf-8-sig"),
        "a\r\ncaf\u00e9\r\n".encode("utf-16"),
        "a\rcafe\u0301".encode(),
    ):
        path.write_bytes(content)
        assert opened(voc).ids == ("VOC2007/a", "VOC2007/caf\u00e9")
    for content in ("caf\u00e9\n".encode("latin-1"), "a\n".encode("utf-16-le")):
        path.write_bytes(content)
        with pytest.raises(UserError, match="train.txt is neither UTF-8 nor UTF-16"):
            opened(voc)


def test_pixels_are_not_turned(voc):
    voc.add("train", "a", voc.object())
    path = voc.root / "VOC2007/JPEGImages/a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # A quarter turn.
    Image.new("L", (20, 10), 50).save(path, exif=exif)
    store = opened(voc)
    assert store.read(0).shape == (10, 20, 3) and store.sizes.tolist() == [[10, 20]]


def test_a_damaged_image_is_named(voc):
    voc.add("train", "a", voc.object())
    path = voc.root / "VOC2007/JPEGImages/a.jpg"
    Image.effect_noise((20, 10), 60).save(path)
    store = opened(voc)
    path.write_bytes(path.read_bytes()[:-30])
    assert len(opened(voc)) == 1  # Its header is whole.
    with pytest.raises(UserError, match="VOC2007/a cannot be used.*truncated"):
        store.read(0)
    path.unlink()
    with pytest.raises(UserError, match="VOC2007/a cannot be used.*a.jpg"):
        store.read(0)


BOMB = """<?xml version="1.0"?><!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><annotation><x>&b;&b;&b;</x></annotation>"""
SECRET = """<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/hostname">]>
<annotation><object><name>&x;</name></object></annotation>"""
SIZE = "<size><width>20</width><height>10</height></size>"


@pytest.mark.parametrize(
    "text, message",
    [
        (BOMB, "a.xml .*declares a document type"),
        (SECRET, "a.xml .*declares a document type"),
        ('<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><a/>', "a.xml .*document type"),
        ("<annotation>&x;</annotation>", "a.xml .*undefined entity"),
        ("<annotation><object>", "a.xml .*no element found"),
        ("", "a.xml .*no element found"),
        ('<?xml version="1.0" encoding="x"?><a/>', "a.xml .*unknown encoding"),
        ("<annotation/>", "a.xml .*annotation/size/height is missing"),
        (f"<x>{SIZE}<object/></x>", "a.xml .*object/name is missing"),
        ((5, 3, "", 9), "a.xml .*object/bndbox/xmax is missing"),
        ((5, 3, "x", 9), "a.xml .*object/bndbox/xmax is 'x' instead of a number"),
        ((5, 3, "nan", 9), "a.xml .*object/bndbox/xmax is 'nan' instead of a number"),
        ((0, 3, 8, 9), "VOC2007/a of 20 x 10 pixels has a box that reaches out of it"),
        ((2, 3, 8, 11), "VOC2007/a .* reaches out of it"),
        ((40, 3, 50, 9), "VOC2007/a .* reaches out of it"),
        ((8, 3, 7, 9), "VOC2007/a has an empty box"),
    ],
)
def test_a_damaged_annotation_is_named(text, message, voc):
    voc.add("train", "a", voc.object())
    if isinstance(text, tuple):
        text = voc.annotation(voc.object(corners=text))
    (voc.root / "VOC2007/Annotations/a.xml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        opened(voc)
    assert "\n" not in str(caught.value)


def _remove(path):
    return lambda root: (root / path).unlink()


def _write(path, text):
    return lambda root: (root / path).write_text(text)


def _resize(root):
    Image.new("RGB", (10, 5)).save(root / "VOC2007/JPEGImages/a.jpg")


@pytest.mark.parametrize(
    "damage, split, message",
    [
        (_remove("VOC2007/JPEGImages/a.jpg"), "train", "JPEGImages/a.jpg is missing"),
        (
            _write("VOC2007/JPEGImages/a.jpg", "x"),
            "train",
            "a.jpg is none of JPEG, PNG",
        ),
        (_resize, "train", "a.jpg is 10 x 5 pixels, but its annotation says 20 x 10"),
        (_remove("VOC2007/Annotations/a.xml"), "train", "Annotations/a.xml is missing"),
        (None, "val", "VOC2007 has no split 'val', but train"),
        (None, "VOC2012/train", "has no VOC2012, but VOC2007"),
        (None, "train+train", "twice"),
        (None, "train+", "no split ''"),
        (
            _write("VOC2007/ImageSets/Main/train.txt", "\n"),
            "train",
            "no images in train",
        ),
        (
            _write("VOC2007/ImageSets/Main/cat_train.txt", "a  1\nb -1\n"),
            "cat_train",
            "cat_train.txt has a line 'a  1' instead of the name of an image",
        ),
    ],
)
def test_what_is_missing_is_named(damage, split, message, voc):
    voc.add("train", "a", voc.object())
    if damage:
        damage(voc.root)
    with pytest.raises(UserError, match=message):
        opened(voc, split)


def test_which_folder(voc, tmp_path, monkeypatch):
    voc.add("train", "a", voc.object())
    monkeypatch.chdir(voc.root / "VOC2007")  # One year by itself.
    for path in (".", voc.root / "VOC2007", voc.root):
        assert open_boxes(f"folder:{path}", "train").ids == ("VOC2007/a",)
    voc.add("train", "b", voc.object(), year="VOC2012")
    with pytest.raises(
        UserError, match="holds VOC2007, VOC2012: say which one, such as"
    ):
        opened(voc, "train")
    with pytest.raises(UserError, match="There is no folder .*nothing"):
        open_boxes(f"folder:{tmp_path / 'nothing'}", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty is not in VOC's layout"):
        open_boxes(f"folder:{tmp_path / 'empty'}", "train")
    with pytest.raises(UserError, match="'emoji': the known ones are folder:VOCDEVKIT"):
        open_boxes("emoji", "train")
