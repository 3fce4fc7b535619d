"""Prepared images in ArrayRecord files: for sets that are too large for one array.

A folder OUT that `python -m input_pipeline.prepare` wrote holds

* `images-00000-of-00079.array_record`, ...: a record is the pixels of one image,
* `digests.npy`, `meta.json`, `skipped.csv`: as in `cache`.

It is written as `OUT.partial`, file by file, and renamed when complete. A preparation that
was killed goes on behind its last whole file. The empty file `.OUT.lock` lets one process
at a time write it; nothing else is left beside OUT.
"""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

import filelock
import numpy as np
from array_record.python import array_record_module

from input_pipeline import cache, decode
from input_pipeline.pixels import RecordPixels
from input_pipeline.source import Source
from input_pipeline.work import decode_rows
from sp_jax.errors import UserError

FORMAT = 1
# Every record can be read alone. Pixels hardly shrink, so they are not compressed.
_OPTIONS = "group_size:1,uncompressed"


def load(
    directory: str | os.PathLike[str],
    image_size: int,
    resize: decode.Resize,
    max_skipped: float = 0.01,
) -> cache.Prepared:
    """Open a prepared folder.

    Args:
      directory: the folder.
      image_size: side of its images in pixels.
      resize: how they were made square.
      max_skipped: share of the images that may have been left out.

    Raises:
      UserError: it is missing or damaged, its images are of another kind, or too many
        were left out.
    """
    cache.check_share(max_skipped)
    root = pathlib.Path(directory).expanduser()
    try:
        meta = json.loads((root / "meta.json").read_text(encoding="utf-8"))
        digests = np.load(root / "digests.npy")
        counts, given = meta["counts"], (meta["image_size"], meta["resize"])
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise UserError(
            f"{root} holds no prepared images ({error}): make them with python -m "
            f"input_pipeline.prepare --store=NAME --out={root}."
        ) from error
    if given != (image_size, resize):
        raise UserError(
            f"{root} was prepared with image_size={given[0]}, resize={given[1]}, not "
            f"{image_size}, {resize}: set these values, or prepare another folder."
        )
    names = [_shard_name(i, len(counts)) for i in range(len(counts))]
    for name in names:
        if not (root / name).exists():
            raise UserError(f"{root / name} is missing: prepare the images again.")
    cache.report_skipped(meta, max_skipped, root)
    images = RecordPixels([root / name for name in names], counts, image_size)
    return cache.Prepared(images, digests, meta)


def write(
    source: Source,
    out: str | os.PathLike[str],
    image_size: int,
    resize: decode.Resize,
    max_skipped: float,
    shard_images: int,
) -> None:
    """Prepare the images of a source into a folder.

    Args:
      source: the images.
      out: the folder; one that holds the same images is left as it is.
      image_size: side in pixels.
      resize: see `decode`.
      max_skipped: share of the images that may be unusable.
      shard_images: images a file, but for the last and for those left out.

    Raises:
      UserError: the folder holds something else, too many images are unusable, the disk
        is full, or max_skipped is not in [0, 1].
    """
    cache.check_share(max_skipped)
    out = pathlib.Path(out).expanduser().absolute()
    made_of = [FORMAT, decode.VERSION, image_size, resize, shard_images, source.key]
    try:
        if out.exists():
            _check_made_of(out, made_of)
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes one writes; the others wait, and find what it made.
        with filelock.FileLock(out.with_name(f".{out.name}.lock")):
            if out.exists():
                _check_made_of(out, made_of)
                return
            partial = out.with_name(f"{out.name}.partial")
            partial.mkdir(exist_ok=True)
            if set(os.listdir(partial)) - {"made_of.json", ".made_of.json.tmp"}:
                _check_made_of(partial, made_of)
            cache.write_atomically(partial / "made_of.json", json.dumps(made_of))
            _write(source, partial, image_size, resize, shard_images, max_skipped)
            os.replace(partial, out)
            for path in [*out.glob("digests-*.npy"), *out.glob("skipped-*.json")]:
                path.unlink()
    except OSError as error:
        raise UserError(
            f"Cannot write {out} ({error}): make room, or choose another --out; what is "
            "there already will be used."
        ) from error


def _check_made_of(folder: pathlib.Path, made_of: list) -> None:
    """Raise UserError if a folder holds other images, or something else."""
    try:
        found = json.loads((folder / "made_of.json").read_text())
    except (OSError, ValueError):
        found = None
    if found != made_of:
        raise UserError(
            f"{folder} holds something else than these images: remove it, or choose "
            "another --out."
        )


def _shard_name(shard: int, shards: int) -> str:
    return f"images-{shard:05d}-of-{shards:05d}.array_record"


def _check_space(folder: pathlib.Path, need: int) -> None:
    there = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if need - there > free:
        raise OSError(f"{need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def _write(
    source: Source,
    folder: pathlib.Path,
    size: int,
    resize: decode.Resize,
    shard_images: int,
    max_skipped: float,
) -> None:
    """Write the files that are missing."""
    meta = source.meta()
    count = len(meta["ids"])
    _check_space(folder, count * size**2 * 3)
    shards = -(-count // shard_images)
    done, skipped = 0, {}
    while done < shards and (note := _note(folder, done)).exists():
        skipped |= {int(k): v for k, v in json.loads(note.read_text()).items()}
        done += 1
    rows = decode_rows(source, count, size, resize, start=done * shard_images)
    for shard in range(done, shards):
        temporary, digests, bad = folder / "writing.tmp", [], {}
        writer = array_record_module.ArrayRecordWriter(str(temporary), _OPTIONS)
        first = shard * shard_images
        for row in range(first, min(first + shard_images, count)):
            image = next(rows)
            if isinstance(image, decode.BadImage):
                bad[row] = str(image)
                continue
            with _disk_errors():
                writer.write(image.tobytes())
            digests.append(cache.digest_pixels(image))
        with _disk_errors():
            writer.close()
        skipped |= bad
        cache.write_skipped(folder, meta["ids"], skipped)
        cache.check_skipped(len(skipped), count, max_skipped, folder)
        np.save(folder / f"digests-{shard:05d}.npy", np.reshape(digests, (-1, 32)))
        os.replace(temporary, folder / _shard_name(shard, shards))
        cache.write_atomically(_note(folder, shard), json.dumps(bad))
    cache.check_some(len(skipped), count, folder)
    _finish(folder, meta, skipped, shard_images, size, resize)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """ArrayRecord says that a disk is full by a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _note(folder: pathlib.Path, shard: int) -> pathlib.Path:
    return folder / f"skipped-{shard:05d}.json"


def _finish(
    folder: pathlib.Path,
    meta: dict,
    skipped: dict[int, str],
    shard_images: int,
    image_size: int,
    resize: decode.Resize,
) -> None:
    """Write what describes the files."""
    count = len(meta["ids"])
    kept = np.setdiff1d(np.arange(count), list(skipped))
    counts = np.bincount(kept // shard_images, minlength=-(-count // shard_images))
    digests = [np.load(path) for path in sorted(folder.glob("digests-*.npy"))]
    np.save(folder / "digests.npy", np.concatenate(digests).astype(np.uint8))
    meta = cache.keep_rows(meta, kept) | {
        "skipped": len(skipped),
        "counts": counts.tolist(),
        "image_size": image_size,
        "resize": resize,
    }
    cache.write_atomically(folder / "meta.json", json.dumps(meta))
