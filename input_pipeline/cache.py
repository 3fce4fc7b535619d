"""Prepared image folders: decoded and resized once, complete or absent.

A prepared folder `DATA_DIR/NAME-KEY/` holds

* `images.npy`: uint8 [N, S, S, 3], read through a memory map,
* `digests.npy`: uint8 [N, 32], the SHA-256 of each image's pixels (so that a
  fingerprint of any subset costs no pass over the pixels),
* `meta.json`: ids, labels, names, splits, for people and other programs.

It is written under a temporary name and renamed when complete, so a preparation that
is killed at any moment leaves nothing that could be taken for a complete one.
"""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tqdm

from input_pipeline.errors import UserError

# Part of every cache key: raise it when what is written below changes.
FORMAT = 1
_CHUNK = 512  # Images in flight: bounds the memory of a preparation.
_STALE_SECONDS = 24 * 3600

Reader = Callable[[int], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared folder, opened: pixels, their SHA-256 digests and the meta data."""

    images: np.ndarray
    digests: np.ndarray
    meta: dict[str, Any]


def data_root(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """The folder for prepared images: argument, else $SP_JAX_DATA, else ~/.cache."""
    if data_dir is None:
        data_dir = os.environ.get("SP_JAX_DATA") or "~/.cache/sp_jax"
    return pathlib.Path(data_dir).expanduser()


def load_or_prepare(
    data_dir: str | os.PathLike[str] | None,
    name: str,
    key: str,
    meta: dict[str, Any],
    image_size: int,
    open_reader: Callable[[], Reader],
) -> Prepared:
    """Open the prepared folder of (name, key); prepare it first where needed.

    Args:
      data_dir: see `data_root`.
      name: readable first part of the folder's name.
      key: SHA-256 hex of everything that the pixels depend on.
      meta: what goes into `meta.json`; `meta["ids"]` gives the number of images.
      image_size: side S in pixels.
      open_reader: called only when the folder must be prepared; gives a function
        row -> uint8 [S, S, 3] that several threads may call.

    Raises:
      UserError: from the reader, or when the disk cannot hold the images.
    """
    final = data_root(data_dir) / f"{name}-{key[:16]}"
    shape = (len(meta["ids"]), image_size, image_size, 3)
    prepared = _open(final, meta, shape)
    if prepared is None:
        _prepare(final, meta, shape, open_reader)
        prepared = _open(final, meta, shape)
        if prepared is None:
            raise UserError(
                f"The images prepared in {final} cannot be read back: check that "
                "disk, or choose another folder by data_dir or $SP_JAX_DATA."
            )
    return prepared


def _open(
    final: pathlib.Path, meta: dict[str, Any], shape: tuple[int, ...]
) -> Prepared | None:
    """The prepared folder, or None where it is missing, truncated or unreadable."""
    try:
        # np.load checks the file against its header: a truncated one raises.
        images = np.load(final / "images.npy", mmap_mode="r")
        digests = np.load(final / "digests.npy")
        written = json.loads((final / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError):
        return None
    if images.shape != shape or images.dtype != np.uint8:
        return None
    if digests.shape != (shape[0], 32) or written["ids"] != meta["ids"]:
        return None
    # The caller's labels and splits, not the written ones: a better split needs no
    # new preparation.
    return Prepared(images, digests, meta)


def _prepare(
    final: pathlib.Path,
    meta: dict[str, Any],
    shape: tuple[int, ...],
    open_reader: Callable[[], Reader],
) -> None:
    """Write the prepared folder under a temporary name, then rename it."""
    root = final.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot create {root} for prepared images ({error}): choose another "
            "folder by data_dir or $SP_JAX_DATA."
        ) from error
    _remove_stale(final)
    need, free = int(np.prod(shape)), shutil.disk_usage(root).free
    if need > free:
        # Checked beforehand because a memory map of a full disk dies of SIGBUS.
        raise UserError(
            f"{final} needs {need / 1e9:.1f} GB but only {free / 1e9:.1f} GB are free: "
            "make room, or choose another folder by data_dir or $SP_JAX_DATA."
        )
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f"{final.name}.tmp-", dir=root))
    try:
        digests = _write_images(
            temporary / "images.npy", shape, open_reader(), final.name
        )
        np.save(temporary / "digests.npy", digests)
        (temporary / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        _rename(temporary, final, meta, shape)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_images(
    path: pathlib.Path, shape: tuple[int, ...], read_image: Reader, description: str
) -> np.ndarray:
    """Write every image to an .npy file; returns their digests, uint8 [N, 32]."""
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    digests = np.zeros((shape[0], 32), np.uint8)

    def write(row: int) -> None:
        images[row] = read_image(row)
        digests[row] = digest_pixels(images[row])

    threads = min(os.cpu_count() or 1, 32)  # PIL decodes without the interpreter lock.
    progress = tqdm.tqdm(
        total=shape[0], desc=description, unit="image", disable=shape[0] <= 2000
    )
    with progress, concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, shape[0], _CHUNK):
            for _ in pool.map(write, range(start, min(start + _CHUNK, shape[0]))):
                progress.update()
    images.flush()
    return digests


def _rename(
    temporary: pathlib.Path,
    final: pathlib.Path,
    meta: dict[str, Any],
    shape: tuple[int, ...],
) -> None:
    """Put the complete folder in its place, whoever else prepared it meanwhile."""
    if final.exists():
        if _open(final, meta, shape) is not None:  # Another process was faster.
            shutil.rmtree(temporary)
            return
        # Renamed before it is removed: the wrong one is never half there.
        wrong = pathlib.Path(
            tempfile.mkdtemp(prefix=f"{final.name}.tmp-", dir=final.parent)
        )
        os.replace(final, wrong)
        shutil.rmtree(wrong, ignore_errors=True)
    os.chmod(temporary, 0o755)  # mkdtemp makes it 0700: useless to a colleague.
    try:
        os.replace(temporary, final)
    except OSError:
        if _open(final, meta, shape) is None:
            raise
        shutil.rmtree(temporary)


def _remove_stale(final: pathlib.Path) -> None:
    """Remove what a killed preparation of the same images left, a day later."""
    for path in final.parent.glob(f"{final.name}.tmp-*"):
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def digest_pixels(image: np.ndarray) -> np.ndarray:
    """SHA-256 of one image's bytes: uint8 [32]."""
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()
    return np.frombuffer(digest, np.uint8)
