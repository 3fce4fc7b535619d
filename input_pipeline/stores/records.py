"""Prepared images in ArrayRecord files: for sets that are too large for one array.

A folder OUT that `python -m input_pipeline.prepare` wrote holds

* `images-00000-of-00079.array_record`, ...: a record is the pixels of one image,
* `digests.npy`, `meta.json`, `checked.json`, `skipped.csv`: as in `memory_map`.

It is written as `OUT.partial`, file by file, and renamed when complete. A preparation that
was killed goes on behind its last whole file. The empty file `.OUT.lock` lets one process
at a time write it; nothing else is left beside OUT.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

import filelock
import numpy as np
from array_record.python import array_record_module

from input_pipeline.stores import decode, memory_map, prepared_images
from input_pipeline.stores.image_source import Source
from input_pipeline.stores.pixels import RecordPixels
from input_pipeline.stores.preparing import decode_rows
from sp_jax.cli import describe_os_error
from sp_jax.errors import UserError
from sp_jax.files import write_text
from sp_jax.json_file import read_json

FORMAT = 1
# Every record can be read alone. Pixels hardly shrink, so they are not compressed.
_OPTIONS = "group_size:1,uncompressed"


def load(
    directory: str | os.PathLike[str],
    image_size: int,
    resize: decode.Resize,
    max_skipped: float = 0.01,
    verify: bool = False,
) -> prepared_images.Prepared:
    """Open a prepared folder.

    Args:
      directory: the folder.
      image_size: side of its images in pixels.
      resize: how they were made square.
      max_skipped: share of the images that may have been left out.
      verify: compare all pixels with their digests, also if nothing seems changed.

    Raises:
      UserError: it is missing or damaged, its images are of another kind, or too many
        were left out.
    """
    memory_map.check_share(max_skipped)
    root = pathlib.Path(os.path.expanduser(directory))
    again = f"prepare the images again, with another --out or after you removed {root}"
    path = root / "meta.json"
    if not path.exists():
        raise UserError(
            f"{root} holds no prepared images: make them with python -m "
            f"input_pipeline.prepare --store=NAME --out={root}."
        )
    try:
        noted = prepared_images.read_note(root)
        meta = read_json(path)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}: {again}.") from error
    counts, given = meta.get("counts"), (meta.get("image_size"), meta.get("resize"))
    if not isinstance(counts, list) or not all(
        type(n) is int and n >= 0 for n in counts
    ):
        raise UserError(
            f"{path} is damaged: it does not say how many images the files hold: {again}."
        )
    if given != (image_size, resize):
        raise UserError(
            f"{root} was prepared with image_size={given[0]}, resize={given[1]}, not "
            f"{image_size}, {resize}: set these values, or prepare another folder."
        )
    names = [_shard_name(i, len(counts)) for i in range(len(counts))]
    for name in names:
        if not (root / name).exists():
            raise UserError(f"{root / name} is missing: {again}.")
    images = RecordPixels([root / name for name in names], counts, image_size)
    path = root / "digests.npy"
    try:
        digests = memory_map.load_digests(path, sum(counts))
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise UserError(f"{path} is damaged: {error}: {again}.") from error
    prepared = prepared_images.Prepared(images, digests, meta)
    try:
        prepared_images.check(root, noted, names, counts, prepared, verify)
    except UserError as error:
        said = str(error).rstrip(".")
        advice = "" if "prepare the images again" in said else f": {again}"
        raise UserError(f"{said}{advice}.") from error
    memory_map.report_skipped(meta, max_skipped, root)
    return prepared


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
    memory_map.check_share(max_skipped)
    out = pathlib.Path(os.path.expanduser(out)).absolute()
    made_of = [FORMAT, decode.VERSION, image_size, resize, shard_images, source.key]
    try:
        if out.exists():
            _check_made_of(out, made_of)
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes one writes; the others wait, and find what it made.
        lock = out.with_name(f".{out.name}.lock")
        lock.touch()  # Where that fails, filelock may wait for ever.
        with filelock.FileLock(lock):
            if out.exists():
                _check_made_of(out, made_of)
                return
            partial = out.with_name(f"{out.name}.partial")
            partial.mkdir(exist_ok=True)
            # What a program left that was killed before the first image.
            begun = ("made_of.json", ".made_of.json.")
            if not all(name.startswith(begun) for name in os.listdir(partial)):
                _check_made_of(partial, made_of)
            write_text(partial / "made_of.json", json.dumps(made_of))
            _write(source, partial, image_size, resize, shard_images, max_skipped)
            os.replace(partial, out)
            left = ("digests-*.npy", "skipped-*.json", ".*.tmp")
            for path in [path for pattern in left for path in out.glob(pattern)]:
                path.unlink()
    except OSError as error:
        raise UserError(
            f"Cannot write {out}: {describe_os_error(error)} What is there already "
            "will be used by the same command; --out chooses another folder."
        ) from error


def _check_made_of(folder: pathlib.Path, made_of: list) -> None:
    """Raise UserError if a folder holds other images, or something else."""
    path = folder / "made_of.json"
    if not path.exists() or path.read_bytes() != json.dumps(made_of).encode():
        raise UserError(
            f"{folder} holds something else than these images (see {path}): remove it, "
            "or choose another --out."
        )


def _shard_name(shard: int, shards: int) -> str:
    return f"images-{shard:05d}-of-{shards:05d}.array_record"


def _check_space(folder: pathlib.Path, need: int) -> None:
    there = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if need - there > free:
        reason = f"{need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
        raise OSError(errno.ENOSPC, reason)


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
    while done < shards:
        bad = _read_shard(folder, done, shards, shard_images, count, size)
        if bad is None:
            break
        skipped |= bad
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
            digests.append(prepared_images.digest_pixels(image))
        with _disk_errors():
            writer.close()
        skipped |= bad
        memory_map.write_skipped(folder, meta["ids"], skipped)
        memory_map.check_skipped(len(skipped), count, max_skipped, folder)
        np.save(folder / f"digests-{shard:05d}.npy", np.reshape(digests, (-1, 32)))
        os.replace(temporary, folder / _shard_name(shard, shards))
        write_text(_note(folder, shard), json.dumps(bad))
    memory_map.check_some(len(skipped), count, folder)
    _finish(folder, meta, skipped, shard_images, size, resize)


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """ArrayRecord says that a disk is full by a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code)) from error
        raise OSError(str(error)) from error


def _read_shard(
    folder: pathlib.Path,
    shard: int,
    shards: int,
    shard_images: int,
    count: int,
    size: int,
) -> dict[int, str] | None:
    """What a file that was written before leaves out; None if it must be written."""
    first, end = shard * shard_images, min((shard + 1) * shard_images, count)
    try:
        noted = read_json(_note(folder, shard))
        bad = {int(row): str(reason) for row, reason in noted.items()}
        if not bad.keys() <= set(range(first, end)):
            return None
        digests = np.load(folder / f"digests-{shard:05d}.npy")
        counts = [end - first - len(bad)]
        images = RecordPixels([folder / _shard_name(shard, shards)], counts, size)
        if digests.shape != (*counts, 32):
            return None
        if len(prepared_images.find_damaged(images, digests, np.arange(*counts))):
            return None
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return bad


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
    meta = memory_map.keep_rows(meta, kept) | {
        "skipped": len(skipped),
        "counts": counts.tolist(),
        "image_size": image_size,
        "resize": resize,
    }
    write_text(folder / "meta.json", json.dumps(meta))
    prepared_images.note(
        folder, [_shard_name(i, len(counts)) for i in range(len(counts))]
    )
