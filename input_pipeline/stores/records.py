"""Prepared images in ArrayRecord files: for sets that are too large for one array.

The pixels of a folder OUT that `python -m input_pipeline.prepare` wrote are in
`images-00000-of-00079.array_record`, ..., a record an image; `prepared_images` says what lies
beside them, and `made_of.json` of what the folder was made. With --coded a record is a JPEG
file of the whole image instead. A preparation that was killed goes on behind its last whole
file. The empty file `.OUT.lock` lets one process at a time write it;
nothing else is left beside OUT.
"""

import concurrent.futures
import contextlib
import errno
import functools
import json
import os
import pathlib
import shutil
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module

from input_pipeline.stores import decode, prepared_images, preparing
from input_pipeline.stores.image_source import Source
from input_pipeline.stores.prepared_images import Prepared
from sp_jax.cli import describe_os_error
from sp_jax.errors import UserError
from sp_jax.files import write_text
from sp_jax.json_file import read_json

FORMAT = 1
# Every record can be read alone. Pixels hardly shrink, so they are not compressed.
_OPTIONS = "group_size:1,uncompressed"
_AGAIN = "prepare the images again"


class Coding(NamedTuple):
    """JPEG files instead of pixels; see `decode.encode`."""

    shorter_side: int
    quality: int


def is_coded(meta: Mapping[str, Any]) -> bool:
    """Whether images of these meta data are JPEG files, by a `Coding`."""
    return "quality" in meta


class RecordPixels:
    """The records of several ArrayRecord files, one after the other: images of one size.

    A record is the bytes of one image. Each process that gets these pixels opens a file when
    it first reads from it. `counts` is the number of records of each file, by its name.
    """

    def __init__(self, folder: pathlib.Path, counts: dict[str, int], size: int):
        self._folder, self.counts = folder, counts
        self._paths = [folder / name for name in counts]
        self._starts = np.cumsum([0, *counts.values()])
        self._readers: dict[int, array_record_module.ArrayRecordReader] = {}
        self._lock = threading.Lock()
        self.shape = (int(self._starts[-1]), size, size, 3)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The pixels of some rows."""
        rows = np.asarray(rows)
        images = np.empty((rows.size, *self.shape[1:]), np.uint8)
        for image, record in zip(images, self.stored(rows.reshape(-1)), strict=True):
            image[...] = record.reshape(image.shape)
        return images.reshape(*rows.shape, *self.shape[1:])

    def stored(self, rows: np.ndarray) -> list[np.ndarray]:
        """As `Pixels.stored`; each file is read once."""
        count = self.shape[0]
        if rows.size and not 0 <= rows.min() <= rows.max() < count:
            raise IndexError(f"rows must be in [0, {count})")
        found: dict[int, np.ndarray] = {}
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        for shard in np.unique(shards):
            (places,) = np.nonzero(shards == shard)
            reader = self._reader(int(shard))
            try:
                records = reader.read((rows[places] - self._starts[shard]).tolist())
            except (ValueError, RuntimeError) as error:
                raise UserError(
                    f"Cannot read {self._paths[shard]} ({error}): {_AGAIN}."
                ) from error
            contents = (np.frombuffer(record, np.uint8) for record in records)
            found |= zip(places.tolist(), contents, strict=True)
        return [found[place] for place in range(rows.size)]

    def __reduce__(self):
        """Pickle the paths: open readers cannot be sent."""
        return type(self), (self._folder, self.counts, self.shape[1])

    def _reader(self, shard: int) -> array_record_module.ArrayRecordReader:
        with self._lock:
            if shard not in self._readers:
                path = self._paths[shard]
                wanted = self.counts[path.name]
                try:
                    # Random reads: no read-ahead.
                    reader = array_record_module.ArrayRecordReader(
                        str(path), options="readahead_buffer_size:0"
                    )
                    count, reason = reader.num_records(), ""
                except ValueError as error:
                    count, reason = 0, f" ({error})"
                if count != wanted:
                    # A lack of permission or of file handles reads as no records, too.
                    with open(path, "rb"), open(path, "rb"):
                        pass
                    raise UserError(
                        f"{path} holds {count} images instead of {wanted}{reason}: {_AGAIN}."
                    )
                self._readers[shard] = reader
            return self._readers[shard]


class CodedImages(RecordPixels):
    """Records that are JPEG files; reading gives their centres, with the side `size`."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The centres of some rows, by threads."""
        rows, size = np.asarray(rows), self.shape[1]

        def one(content: np.ndarray) -> np.ndarray:
            try:
                return decode.decode(content.tobytes(), size)
            except decode.BadImage as error:
                raise UserError(
                    f"An image in {self._folder} {error}: {_AGAIN}."
                ) from error

        with concurrent.futures.ThreadPoolExecutor(
            min(os.cpu_count() or 1, 32)
        ) as pool:
            found = list(pool.map(one, self.stored(rows.reshape(-1))))
        return np.reshape(np.array(found, np.uint8), (*rows.shape, *self.shape[1:]))


def load(
    directory: str | os.PathLike[str],
    image_size: int,
    resize: decode.Resize,
    verify: bool,
) -> Prepared:
    """Open a prepared folder; arguments and errors are those of `open_store`."""
    root = pathlib.Path(os.path.expanduser(directory))
    if not (root / "meta.json").exists():
        raise UserError(
            f"{root} holds no prepared images: make them with python -m "
            f"input_pipeline.prepare --store=NAME --out={root}."
        )
    other = "set these values, or prepare another folder"

    def open_pixels(meta: dict[str, Any]) -> RecordPixels:
        coded = is_coded(meta)
        counts, given = meta.get("counts"), (meta.get("image_size"), meta.get("resize"))
        if not isinstance(counts, list) or not all(
            type(n) is int and n >= 0 for n in counts
        ):
            raise UserError(
                f"{root / 'meta.json'} is damaged: it does not say how many images the "
                "files hold"
            )
        if coded and resize != "crop":
            raise UserError(
                f"{root} holds JPEG files, which programs crop to their centre: set "
                "resize=crop, or prepare pixels, without --coded."
            )
        if not coded and given != (image_size, resize):
            raise UserError(
                f"{root} was prepared with image_size={given[0]}, resize={given[1]}, not "
                f"{image_size}, {resize}: {other}."
            )
        names = _shard_names(len(counts))
        for name in names:
            if not (root / name).exists():
                raise UserError(f"{root / name} is missing")
        kind = CodedImages if coded else RecordPixels
        return kind(root, dict(zip(names, counts, strict=True)), image_size)

    try:
        return prepared_images.open_folder(root, open_pixels, verify)
    except UserError as error:
        said = str(error).rstrip(".")
        if not said.endswith((_AGAIN, other, "without --coded")):
            said += f": {_AGAIN}, with another --out or after removing {root}"
        raise UserError(f"{said}.") from error


def write(
    source: Source,
    out: str | os.PathLike[str],
    image_size: int,
    resize: decode.Resize,
    max_skipped: float,
    shard_images: int,
    coding: Coding | None = None,
) -> None:
    """Prepare the images of a source in the folder `out`, unless it holds the same ones.

    A file holds `shard_images` of them, minus those that are left out; the last may hold
    fewer. With a coding they are JPEG files, and image_size and resize have no effect. The
    other arguments are those of `open_store`.

    Raises:
      UserError: the folder holds something else, too many images are unusable, or the
        disk is full.
    """
    out = pathlib.Path(os.path.expanduser(out)).absolute()
    form = {"image_size": image_size, "resize": resize}
    form = coding._asdict() if coding else form
    made_of = [FORMAT, decode.VERSION, *form.values(), shard_images, source.key]

    def make() -> None:
        writer = functools.partial(_Writer, made_of=made_of, form=form)
        preparing.prepare(source, out, writer, max_skipped)

    lock = out.with_name(f".{out.name}.lock")
    try:
        preparing.find_or_make(lock, lambda: _is_there(out, made_of), make)
    except OSError as error:
        raise UserError(
            f"Cannot write {out}: {describe_os_error(error)} The same command will "
            "continue from the files that are there; --out chooses another folder."
        ) from error


def _is_there(folder: pathlib.Path, made_of: list) -> bool:
    """Whether a folder exists; UserError if it holds other images, or something else."""
    if not folder.exists():
        return False
    path = folder / "made_of.json"
    if not path.exists() or path.read_bytes() != json.dumps(made_of).encode():
        raise UserError(
            f"{folder} holds something other than these images (see {path}): remove it, "
            "or choose another --out."
        )
    return True


def _shard_names(shards: int) -> list[str]:
    return [f"images-{i:05d}-of-{shards:05d}.array_record" for i in range(shards)]


class _Writer:
    """Writes one file after the other, and notes each; see `preparing.Writer`."""

    def __init__(
        self, folder: pathlib.Path, count: int, made_of: list, form: dict[str, Any]
    ):
        # The remains of a program that was killed before the first image.
        begun = ("made_of.json", ".made_of.json.")
        if not all(name.startswith(begun) for name in os.listdir(folder)):
            _is_there(folder, made_of)
        write_text(folder / "made_of.json", json.dumps(made_of))
        *_, self.chunk, _ = made_of
        self._form, (self._size, how) = form, form.values()
        self.image_bytes = 3 * self._size**2
        if coded := is_coded(form):
            self.convert = functools.partial(decode.encode, **form)
        else:
            self.convert = functools.partial(decode.fit, size=self._size, resize=how)
        there = sum(path.stat().st_size for path in folder.iterdir())
        # The size of JPEG files is known only when they are written.
        need = 0 if coded else count * self.image_bytes
        free = shutil.disk_usage(folder).free
        if need - there > free:
            reason = f"{need / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
            raise OSError(errno.ENOSPC, reason)
        self._folder = folder
        self._names = _shard_names(-(-count // self.chunk))
        self.done, self.skipped = 0, {}
        for shard in range(len(self._names)):
            rows = range(self.done, min(self.done + self.chunk, count))
            bad = self._read_shard(shard, rows)
            if bad is None:
                break
            self.done = rows.stop
            self.skipped |= bad

    def write(self, images: Iterator[np.ndarray]) -> None:
        path, self._digests = str(self._folder / "writing.tmp"), []
        records = array_record_module.ArrayRecordWriter(path, _OPTIONS)
        for image in images:
            with _disk_errors():
                records.write(image.tobytes())
            self._digests.append(prepared_images.digest_pixels(image))
        with _disk_errors():
            records.close()

    def note(self, done: int, skipped: dict[int, str]) -> None:
        shard = (done - 1) // self.chunk
        bad = {row: skipped[row] for row in skipped if row >= shard * self.chunk}
        digests, noted = self._notes(shard)
        np.save(digests, np.reshape(self._digests, (-1, 32)))
        os.replace(self._folder / "writing.tmp", self._folder / self._names[shard])
        write_text(noted, json.dumps(bad))

    def finish(self, kept: np.ndarray) -> tuple[list[str], dict[str, Any]]:
        shards = len(self._names)
        digests = [np.load(self._notes(shard)[0]) for shard in range(shards)]
        digests = np.concatenate(digests).astype(np.uint8)
        np.save(self._folder / "digests.npy", digests)
        counts = np.bincount(kept // self.chunk, minlength=shards).tolist()
        return self._names, {"counts": counts, **self._form}

    def _notes(self, shard: int) -> tuple[pathlib.Path, pathlib.Path]:
        """The names of the files with a shard's digests, and with the images left out."""
        names = f"digests-{shard:05d}.npy", f"skipped-{shard:05d}.json"
        return tuple(self._folder / name for name in names)

    def _read_shard(self, shard: int, rows: range) -> dict[int, str] | None:
        """The images left out of a file that is written already; None if it must be written."""
        path, noted = self._notes(shard)
        with contextlib.suppress(FileNotFoundError, ValueError, EOFError):
            bad = {int(row): str(said) for row, said in read_json(noted).items()}
            digests = np.load(path)
            kept = np.arange(count := len(rows) - len(bad))
            images = RecordPixels(self._folder, {self._names[shard]: count}, self._size)
            if (
                bad.keys() <= set(rows)
                and digests.shape == (count, 32)
                and not len(prepared_images.find_damaged(images, digests, kept))
            ):
                return bad
        return None


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn ArrayRecord's RuntimeError, for a full disk, into an OSError."""
    try:
        yield
    except RuntimeError as error:
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code)) from error
        raise OSError(str(error)) from error
