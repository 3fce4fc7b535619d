"""WebDataset shards, made here as its writers make them."""

import io
import json
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from input_pipeline.stores import open_source, open_store
from input_pipeline.stores.webdataset import expand
from sp_jax.errors import UserError


def encoded(value, form="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", (9, 8), (value, value, value)).save(file, form)
    return file.getvalue()


def shard(path, samples):
    """A tar of (name, {extension: content}) in a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, files in samples:
            for kind, content in files.items():
                content = content if isinstance(content, bytes) else content.encode()
                member = tarfile.TarInfo(f"{name}.{kind}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path):
    """Two shards of train and one of val: the numbers 2, 10 and 9, JPEG, PNG and WebP."""
    root = tmp_path / "shards"
    samples = [
        (f"{i:04d}", {"jpg": encoded(9 * i), "cls": str((2, 10, 9)[i % 3])})
        for i in range(9)
    ]
    samples[1] = ("0001", {"__key__": "0001", "cls": "10", "PNG": encoded(9, "PNG")})
    samples[2] = ("a.b/0002", {"cls": "9\n", "webp": encoded(18, "WEBP")})
    shard(root / "set-train-000000.tar", samples[:4])
    shard(root / "set-train-000001.tar", samples[4:7])
    shard(root / "set-validation-000000.tar", samples[7:])
    return root


@pytest.fixture
def opened(tmp_path):
    def open_(place, split=None, **more):
        options = {"image_size": 8, "data_dir": tmp_path / "data"} | more
        return open_store(f"webdataset:{place}", split, **options)

    return open_


def test_shards_of_a_folder(folder, opened):
    train, val = opened(folder, "train"), opened(folder, "val")
    assert train.splits == ("train", "val") and (len(train), len(val)) == (7, 2)
    assert train.class_names == ("2", "9", "10")
    assert train.labels.tolist() == [0, 2, 1, 0, 2, 1, 0]
    assert train.ids[:3] == (
        "set-train-000000/0000.jpg",
        "set-train-000000/0001.PNG",
        "set-train-000000/a.b/0002.webp",
    )
    assert np.allclose(train.read(np.arange(7))[:, 4, 4, 0], 9 * np.arange(7), atol=2)
    # A pattern names some of them.
    some = opened(folder / "set-train-{000000..000001}.tar")
    assert some.splits == ("train",) and some.fingerprint == train.fingerprint
    assert len(opened(folder / "set-{train,validation}-000000.tar", "val")) == 2


def test_patterns():
    assert expand("a/b.tar") == ["a/b.tar"]
    assert expand("x{9..11}.tar") == ["x9.tar", "x10.tar", "x11.tar"]
    assert expand("{a,b}/{08..09}") == ["a/08", "a/09", "b/08", "b/09"]
    assert len(expand("{000000..001281}.tar")) == 1282


def test_names_of_numbers(folder, opened):
    (folder / "classnames.txt").write_text("".join(f"word {i}\n" for i in range(11)))
    assert opened(folder).class_names == ("word 2", "word 9", "word 10")
    (folder / "classnames.txt").write_text("one\n")
    with pytest.raises(UserError, match=r"has no name \(the list has 1\)"):
        opened(folder)


def test_labels_in_json(tmp_path, opened):
    values = [{"label": "cat", "wnid": 7}, {"label": "ant", "wnid": 10}, {"wnid": -1}]
    samples = [
        (f"{i}", {"jpeg": encoded(50 * i), "json": json.dumps(v), "txt": "a caption"})
        for i, v in enumerate(values)
    ]
    shard(tmp_path / "deep" / "er" / "0.tar", samples)
    store = opened(tmp_path / "deep")
    assert store.class_names == ("ant", "cat") and store.labels.tolist() == [1, 0, -1]
    assert store.splits == () and store.ids[0] == "er/0/0.jpeg"
    store = opened(f"{tmp_path / 'deep'}?label=wnid")
    assert store.class_names == ("7", "10") and store.labels.tolist() == [0, 1, -1]
    with pytest.raises(UserError, match="sample 2 has no label, 'label' in its .json"):
        opened(f"{tmp_path / 'deep'}?label=label")
    with pytest.raises(UserError, match="no option 'key'.*known are .label=NAME"):
        opened(f"{tmp_path / 'deep'}?key=label")


def test_what_cannot_be_read_truthfully_is_refused(folder, opened, tmp_path):
    with pytest.raises(UserError, match="no shard .*000002.tar.*in quotation marks"):
        opened(folder / "set-train-{000000..000002}.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no shard .*\*.tar: write webdataset:DIR"):
        opened(tmp_path / "empty")
    wrong = {
        "has 2 images": [("a", {"left.jpg": encoded(1), "right.jpg": encoded(2)})],
        "a number in .cls": [("a", {"jpg": encoded(1), "cls": "cat"})],
        "no label, a number": [("a", {"jpg": encoded(1), "json": "{"})],
        "a label is list": [("a", {"jpg": encoded(1), "json": '{"label": [1]}'})],
        "is there twice": [
            ("a", {"jpg": b"1"}),
            ("b", {"jpg": b"1"}),
            ("a", {"jpg": b""}),
        ],
        "hold no images": [("a", {"txt": "words"})],
    }
    for i, (said, samples) in enumerate(wrong.items()):
        shard(tmp_path / f"wrong{i}" / "0.tar", samples)
        with pytest.raises(UserError, match=said):
            opened(tmp_path / f"wrong{i}")
    shard(folder / "other.tar", [("a", {"jpg": encoded(1)})])
    with pytest.raises(
        UserError, match="other.tar does not name a split, but others name train"
    ):
        opened(folder)


def test_samples_without_an_image_and_damaged_ones(tmp_path, opened, caplog):
    samples = [(f"{i}", {"jpg": encoded(i)}) for i in range(5)]
    samples[1:1] = [("text", {"txt": "words"}), ("bad", {"jpg": b"\xff\xd8\xff no"})]
    shard(tmp_path / "a" / "0.tar", samples)
    store = opened(tmp_path / "a", max_skipped=0.2)
    assert len(store) == 5 and set(store.labels.tolist()) == {-1}
    assert "1 samples without an image are skipped, such as 0.tar: text" in caplog.text
    (listed,) = (tmp_path / "data").glob("webdataset-*/skipped.csv")
    assert listed.read_text().startswith("id,reason\n0/bad.jpg,")


def test_a_source_goes_to_another_process(folder):
    source = pickle.loads(pickle.dumps(open_source(f"webdataset:{folder}")))
    assert len(source.meta()["ids"]) == 9
    assert pickle.loads(pickle.dumps(source.open_reader()))(3) == encoded(27)


def test_links_are_refused(tmp_path, opened):
    path = tmp_path / "links" / "set-train-000000.tar"
    shard(path, [("0", {"jpg": encoded(9), "cls": "1"}), ("1", {"jpg": encoded(9)})])
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("1.cls")
        link.type, link.linkname = tarfile.LNKTYPE, "0.cls"
        archive.addfile(link)
    with pytest.raises(UserError, match="1.cls is a link to 0.cls.*--hard-dereference"):
        opened(path.parent)
