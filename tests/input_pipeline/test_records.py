"""ArrayRecord files: the same images as the memory map, whole or absent."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from PIL import Image

from input_pipeline import cache, records
from input_pipeline.store import open_source, open_store
from sp_jax.errors import UserError


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
    assert names[:5] == ["digests.npy"] + [
        f"images-{i:05d}-of-00003.array_record" for i in range(3)
    ] + ["made_of.json"]
    assert names[5:] == ["meta.json", "skipped.csv"]
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
    assert other.returncode == 2 and "something else" in other.stderr
    assert prepare(*options(pictures, out)).returncode == 0
    with pytest.raises(UserError, match="image_size=8, resize=crop, not 64, crop"):
        opened(out, size=64)
    other = prepare(*options(pictures, out, "--resize=squash"))
    assert other.returncode == 2 and "choose another --out" in other.stderr
    shard = out / "images-00001-of-00003.array_record"
    content = shard.read_bytes()
    shard.write_bytes(content[:100])
    store = opened(out)
    with pytest.raises(UserError, match="images-00001.*prepare the images again"):
        store.read([6])
    shard.unlink()
    with pytest.raises(UserError, match="images-00001.*is missing"):
        opened(out)


@pytest.mark.parametrize(
    "wrong, said",
    [
        (("--out=.",), "holds something else than these images"),
        (("--out=/dev/null/out",), "Cannot write /dev/null/out"),
        (("--max_skipped=-1",), "max_skipped=-1"),
    ],
)
def test_wrong_options(pictures, tmp_path, wrong, said):
    refused = prepare(*options(pictures, tmp_path / "out"), *wrong)
    assert refused.returncode == 2 and said in refused.stderr
    assert "Traceback" not in refused.stderr


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
        from input_pipeline import prepare, work
        from sp_jax import cli
        decode = work.decode
        def slow(*args):
            time.sleep(0.1)
            return decode(*args)
        work.decode = slow
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
        [cache.digest_pixels(image) for image in pixels], store.digests
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
    with pytest.raises(UserError, match="out.partial holds something else"):
        records.write(source, tmp_path / "out", 8, "crop", 0.1, 5)
    assert os.listdir(partial) == ["thesis.txt"]


def test_killed_preparation_goes_on(pictures, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    program = """
        import os, signal, sys
        from input_pipeline import prepare, work
        from sp_jax import cli
        decode, left = work.decode, [8]
        work._AHEAD = 1
        def decode_or_die(*args):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return decode(*args)
        work.decode = decode_or_die
        cli.run(prepare.prepare)
    """
    killed = prepare(*options(pictures, out), program=f"-c {textwrap.dedent(program)}")
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    partial = tmp_path / "out.partial"
    first = partial / "images-00000-of-00003.array_record"
    stamp = first.stat().st_mtime_ns
    assert prepare(*options(pictures, out)).returncode == 0
    assert not partial.exists()
    assert (out / first.name).stat().st_mtime_ns == stamp  # It was not made again.
    assert prepare(*options(pictures, whole)).returncode == 0
    for name in os.listdir(whole):
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
    assert refused.returncode == 2 and "make room" in refused.stderr, refused.stderr
    assert not out.exists()
    # Afterwards it works.
    assert prepare(*options(pictures, out)).returncode == 0
