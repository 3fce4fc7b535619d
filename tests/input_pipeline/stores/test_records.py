"""ArrayRecord files: the same images as the memory map, complete or absent."""

import io
import os
import pickle
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image

from input_pipeline.stores import (
    open_source,
    open_store,
    prepared_images,
    preparing,
    records,
)
from sp_jax.errors import UserError
from tests.test_json_file import DAMAGED


@pytest.fixture
def pictures(tmp_path):
    """Twelve images of two classes, the sixth of them damaged."""
    for i in range(12):
        path = tmp_path / "pictures" / "ab"[i // 6] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (20 * i, 0, 0)).save(path)
    (tmp_path / "pictures" / "a" / "05.png").write_bytes(b"")
    return tmp_path / "pictures"


def prepare(*options, program="-m input_pipeline.prepare"):
    """Run the program."""
    return subprocess.run(
        [sys.executable, *program.split(" ", 1), *options],
        capture_output=True,
        text=True,
    )


def options(pictures, out, *more):
    return (
        f"--store=folder:{pictures}",
        f"--out={out}",
        "--image_size=8",
        "--shard_images=5",
        "--max_skipped=0.1",
        *more,
    )


def opened(out, size=8, max_skipped=0.1):
    return open_store(f"array_record:{out}", image_size=size, max_skipped=max_skipped)


def test_the_same_as_the_memory_map(pictures, tmp_path):
    out = tmp_path / "out"
    done = prepare(*options(pictures, out))
    assert done.returncode == 0, done.stderr
    assert f"array_record:{out}, split all: 11 images of 8 px, 2 classes" in done.stdout
    names = sorted(path.name for path in out.iterdir())
    assert names[:6] == ["checked.json", "digests.npy"] + [
        f"images-{i:05d}-of-00003.array_record" for i in range(3)
    ] + ["made_of.json"]
    assert names[6:] == ["meta.json", "skipped.csv"]
    store = opened(out)
    other = open_store(
        f"folder:{pictures}", image_size=8, data_dir=tmp_path, max_skipped=0.1
    )
    assert store.ids == other.ids and store.fingerprint == other.fingerprint
    rows = np.array([[10, 0], [3, 10], [4, 5]])  # From all files, one twice.
    assert np.array_equal(store.read(rows), other.read(rows))
    for one in (store, other):
        with pytest.raises(IndexError):
            one.read([0, 11])
        # Other processes open the files for themselves.
        sent = pickle.dumps(one.images)
        assert len(sent) < 1000
        assert np.array_equal(pickle.loads(sent)[rows], store.read(rows))
    # Again, it is there already.
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare(*options(pictures, out)).returncode == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in out.iterdir()}


def test_mistakes_are_one_sentence(pictures, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no prepared images.*input_pipeline.prepare"):
        opened(out)
    done = prepare(*options(pictures, out, "--max_skipped=0.05"))
    assert done.returncode == 2 and "1 of 12 images cannot be used" in done.stderr
    assert not out.exists()
    # What is there is used; of other images it is not.
    other = prepare(*options(pictures, out, "--image_size=4"))
    assert other.returncode == 2 and "something other" in other.stderr
    assert prepare(*options(pictures, out)).returncode == 0
    with pytest.raises(UserError, match="image_size=8, resize=crop, not 64, crop"):
        opened(out, size=64)
    other = prepare(*options(pictures, out, "--resize=squash"))
    assert other.returncode == 2 and "choose another --out" in other.stderr
    shard = out / "images-00001-of-00003.array_record"
    content = shard.read_bytes()
    shard.write_bytes(content[:100])
    with pytest.raises(UserError, match="images-00001.*prepare the images again"):
        opened(out)
    shard.unlink()
    with pytest.raises(UserError, match="images-00001.*is missing"):
        opened(out)


@pytest.mark.parametrize(
    "wrong, said",
    [
        (("--out=.",), "holds something other than these images"),
        (("--out=/dev/null/out",), "Cannot write /dev/null/out"),
        (("--out=/proc/self/out",), "Cannot write /proc/self/out"),
        (("--max_skipped=-1",), "max_skipped=-1"),
        (("--split=valid",), "has no split 'valid', only 'all'"),
        (("--quality=50",), "--quality has no effect without --coded"),
        (("--coded", "--resize=squash"), "leave --resize out"),
    ],
)
def test_wrong_options(pictures, tmp_path, wrong, said):
    refused = prepare(*options(pictures, tmp_path / "out"), *wrong)
    assert refused.returncode == 2 and said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "out").exists()


def test_nothing_but_bad_images(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    source = open_source(f"folder:{tmp_path / 'pictures'}")
    with pytest.raises(UserError, match="None of the 1 images"):
        records.write(source, tmp_path / "out", 8, "crop", 1.0, 5)
    assert not (tmp_path / "out").exists()


def test_images_that_were_left_out_are_told(pictures, tmp_path, caplog):
    out = tmp_path / "out"
    records.write(open_source(f"folder:{pictures}"), out, 8, "crop", 0.1, 5)
    opened(out)
    assert f"1 of 12 images are left out: see {out / 'skipped.csv'}" in caplog.text
    with pytest.raises(UserError, match=r"1 of 12 .*a/05.png \(the file is empty\)"):
        opened(out, max_skipped=0.05)


def test_of_two_processes_one_prepares(pictures, tmp_path):
    out = tmp_path / "out"
    program = """
        import time
        from input_pipeline import prepare
        from input_pipeline.stores import preparing
        from sp_jax import cli
        decode = preparing.decode_as
        def slow(*args):
            time.sleep(0.1)
            return decode(*args)
        preparing.decode_as = slow
        cli.run(prepare.prepare)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), *options(pictures, out)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        said = process.communicate()[1]
        assert process.returncode == 0, said
    store = opened(out)
    pixels = store.read(np.arange(len(store)))
    assert np.array_equal(
        [prepared_images.digest_pixels(image) for image in pixels], store.digests
    )


@pytest.mark.parametrize("left", [(), ("made_of.json",), (".made_of.json.tmp",)])
def test_killed_before_the_first_file(pictures, tmp_path, left):
    partial = tmp_path / "out.partial"
    partial.mkdir()
    for name in left:
        (partial / name).write_text("")
    source = open_source(f"folder:{pictures}")
    records.write(source, tmp_path / "out", 8, "crop", 0.1, 5)
    assert len(opened(tmp_path / "out")) == 11
    # A folder of that name with other things in it is not touched.
    partial.mkdir()
    (partial / "thesis.txt").write_text("")
    os.rename(tmp_path / "out", tmp_path / "other")
    with pytest.raises(UserError, match="out.partial holds something other"):
        records.write(source, tmp_path / "out", 8, "crop", 0.1, 5)
    assert os.listdir(partial) == ["thesis.txt"]


@pytest.mark.parametrize("form", [(), ("--coded",)], ids=["pixels", "JPEG files"])
def test_killed_preparation_goes_on(pictures, tmp_path, form):
    out, whole = tmp_path / "out", tmp_path / "whole"
    program = """
        import os, signal, sys
        from input_pipeline import prepare
        from input_pipeline.stores import preparing
        from sp_jax import cli
        decode, left = preparing.decode_as, [8]
        preparing._AHEAD = 1
        def decode_or_die(*args):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return decode(*args)
        preparing.decode_as = decode_or_die
        cli.run(prepare.prepare)
    """
    words, killing = options(pictures, out, *form), f"-c {textwrap.dedent(program)}"
    killed = prepare(*words, program=killing)
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    partial = tmp_path / "out.partial"
    first = partial / "images-00000-of-00003.array_record"
    stamp = first.stat().st_mtime_ns
    assert prepare(*words).returncode == 0
    assert not partial.exists()
    assert (out / first.name).stat().st_mtime_ns == stamp  # It was not made again.
    assert prepare(*options(pictures, whole, *form)).returncode == 0
    for name in set(os.listdir(whole)) - {"checked.json"}:  # It has times.
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_disk_that_refuses_the_file(pictures, tmp_path):
    """A limit on the size of files stands for a disk that fills up on the way."""
    out = tmp_path / "out"
    program = """
        import resource
        from input_pipeline import prepare
        from sp_jax import cli
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        cli.run(prepare.prepare)
    """
    refused = prepare(*options(pictures, out), program=f"-c {textwrap.dedent(program)}")
    assert refused.returncode == 2, refused.stderr
    assert "file would exceed the size limit" in refused.stderr
    assert not out.exists()
    # Afterwards it works.
    assert prepare(*options(pictures, out)).returncode == 0


def flip(path, place=-1):
    """Damage one byte of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("sealed", [True, False], ids=["now", "an older version"])
def test_pixels_that_are_not_those_that_were_written(pictures, tmp_path, sealed):
    out = tmp_path / "out"
    source = open_source(f"folder:{pictures}")
    records.write(source, out, 8, "crop", 0.1, 5)
    if not sealed:
        (out / "checked.json").unlink()
    shard, other = sorted(out.glob("*.array_record"))[1:]
    # A sound file that holds other images.
    record = array_record_module.ArrayRecordWriter(str(shard), "group_size:1")
    for _ in range(4):
        record.write(bytes(8 * 8 * 3))
    record.close()
    match = (
        rf"{shard.name} is damaged: the pixels of 4 of 11 .*prepare the images again"
    )
    with pytest.raises(UserError, match=match):
        opened(out)
    shard.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match=rf"{shard.name} holds 2 images instead of 4"):
        opened(out)


@pytest.mark.parametrize("coding", [None, records.Coding(8, 90)])
@pytest.mark.parametrize("name", ["meta.json", "digests.npy", "images-00001-of-00003"])
def test_one_byte_that_changed(pictures, tmp_path, name, coding):
    out = tmp_path / "out"
    records.write(open_source(f"folder:{pictures}"), out, 8, "crop", 0.1, 5, coding)
    (path,) = out.glob(f"{name}*")
    pixels = b"JFIF" if coding else np.uint8([20 * 6, 0, 0]).tobytes() * 64
    flip(path, path.read_bytes().index(pixels) if "images" in name else -5)
    with pytest.raises(UserError, match=f"{name}.*prepare the images again"):
        opened(out)


@pytest.mark.parametrize("content", [*DAMAGED.values(), b"{}", b'{"counts": [11]}'])
def test_damaged_description(pictures, tmp_path, content):
    out = tmp_path / "out"
    records.write(open_source(f"folder:{pictures}"), out, 8, "crop", 0.1, 5)
    (out / "meta.json").write_bytes(content)
    with pytest.raises(UserError, match=r"meta\.json"):
        opened(out)
    (out / "made_of.json").write_bytes(content)
    with pytest.raises(UserError, match=r"made_of\.json"):
        records.write(open_source(f"folder:{pictures}"), out, 8, "crop", 0.1, 5)


def test_damaged_file_of_a_killed_preparation_is_written_again(
    pictures, tmp_path, monkeypatch
):
    out, source = tmp_path / "out", open_source(f"folder:{pictures}")

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(preparing, "keep_rows", stop)
        records.write(source, out, 8, "crop", 0.1, 5)
    partial = tmp_path / "out.partial"
    shard = partial / "images-00001-of-00003.array_record"
    flip(shard, shard.read_bytes().index(np.uint8([20 * 6, 0, 0]).tobytes() * 64))
    records.write(source, out, 8, "crop", 0.1, 5)
    store = opened(out)
    assert np.array_equal(
        [prepared_images.digest_pixels(image) for image in store.read(np.arange(11))],
        store.digests,
    )


def test_too_many_open_files(pictures, tmp_path):
    """A limit of the system is not taken for damage."""
    out = tmp_path / "out"
    program = """
        import resource
        from input_pipeline import prepare
        from sp_jax import cli
        resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))
        cli.run(prepare.prepare)
    """
    records.write(open_source(f"folder:{pictures}"), out, 8, "crop", 0.1, 1)
    words = options(pictures, out, "--shard_images=1")
    refused = prepare(*words, program=f"-c {textwrap.dedent(program)}")
    assert refused.returncode == 2, refused.stderr
    assert "too many files are open: raise the limit (ulimit -n)" in refused.stderr


def test_whole_images_as_jpeg_files(tmp_path):
    """Upright, RGB, not enlarged, and the centre is what other forms hold."""
    rng, root = np.random.default_rng(0), tmp_path / "pictures"
    root.mkdir()
    for name, (width, height) in {"a": (90, 40), "b": (20, 48), "c": (16, 12)}.items():
        smooth = rng.integers(0, 256, (3, 4, 3), np.uint8)
        image = Image.fromarray(smooth).resize((width, height), Image.BICUBIC)
        exif = image.getexif()
        exif[0x0112] = 6 if name == "a" else 1  # turned
        image.save(root / f"{name}.png", exif=exif)
    (root / "d.png").write_bytes(b"")
    Image.new("L", (70_000, 20)).save(root / "e.png")
    out, words = tmp_path / "out", ("--max_skipped=0.5", "--coded", "--shorter_side=24")
    done = prepare(f"--store=images:{root}", f"--out={out}", *words)
    assert done.returncode == 0 and "all: 3 JPEG files" in done.stdout, done.stderr
    assert "e.png" in (out / "skipped.csv").read_text().split("too long")[0]
    store = opened(out, size=16, max_skipped=0.5)
    assert store.coded and store.take(np.arange(2)).coded
    files = [Image.open(io.BytesIO(file)) for file in store.images.stored(np.arange(3))]
    found = {name: file.size for name, file in zip(store.ids, files, strict=True)}
    assert found == {"a.png": (24, 54), "b.png": (20, 48), "c.png": (16, 12)}
    raw = open_store(
        f"images:{root}", image_size=16, data_dir=tmp_path, max_skipped=0.5
    )
    rows = np.array([[2, 0], [1, 0]])
    off = np.abs(store.read(rows).astype(int) - raw.read(rows))
    assert off.shape == (2, 2, 16, 16, 3) and off.mean() < 4
    again = pickle.loads(pickle.dumps(store.images))
    assert np.array_equal(again[rows], store.read(rows))
    assert opened(out, size=8, max_skipped=0.5).fingerprint != store.fingerprint
    # Another quality is another set; squashed there is none.
    other = prepare(f"--store=images:{root}", f"--out={out}", *words, "--quality=50")
    assert other.returncode == 2 and "choose another --out" in other.stderr
    refused = prepare(f"--store=images:{root}", "--coded")
    assert refused.returncode == 2 and "give their folder, --out=DIR" in refused.stderr
    with pytest.raises(UserError, match="set resize=crop, or prepare pixels"):
        open_store(f"array_record:{out}", image_size=8, resize="squash")
