"""Checkpoints by Orbax, written in the background and verified by SHA-256 on restore.

Orbax writes a step into a temporary folder and renames it when it is complete. What it
does not notice is a byte that changed later: most single flipped bytes restore in
silence. So each finished step also gets `MANIFEST.sha256`, in the format of `sha256sum
-c`, and a step whose files do not match it is moved aside and never loaded.
"""

import contextlib
import errno
import itertools
import logging
import os
import pathlib
import resource
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from sp_jax.errors import NonFiniteError, UserError
from sp_jax.files import sha256_of, write_text
from sp_jax.json_file import read_json

PyTree = Any
MANIFEST = "MANIFEST.sha256"
_LIMITS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS)


def write_manifest(step_dir: pathlib.Path) -> None:
    """Write the SHA-256 of every file below a finished step, atomically."""
    files = sorted(p for p in step_dir.rglob("*") if p.is_file())
    lines = [f"{sha256_of(p)}  {p.relative_to(step_dir).as_posix()}\n" for p in files]
    write_text(step_dir / MANIFEST, "".join(lines))


def find_damage(step_dir: pathlib.Path) -> str | None:
    """Say what is wrong with a step's files; None if they are as they were written."""
    manifest = step_dir / MANIFEST
    if not manifest.is_file():
        return f"it has no {MANIFEST}: the run was killed while it was written"
    lines = manifest.read_text(errors="replace").splitlines()
    if not lines:
        return f"its {MANIFEST} is empty"
    for line in lines:
        digest, separator, name = line.partition("  ")
        if not separator:
            return f"its {MANIFEST} is not readable"
        if not (step_dir / name).is_file():
            return f"the file {name} is missing"
        if sha256_of(step_dir / name) != digest:
            return f"the file {name} is not what was written (SHA-256 differs)"
    return None


def find_steps(directory: pathlib.Path) -> list[int]:
    """The steps of a checkpoint folder, newest first; verified or not."""
    if not directory.is_dir():
        return []
    steps = (p.name for p in directory.iterdir() if p.is_dir())
    return sorted((int(name) for name in steps if name.isdecimal()), reverse=True)


def newest_sound_step(directory: pathlib.Path) -> int | None:
    """The newest step whose files are intact; each damaged newer one is reported."""
    for step in find_steps(directory):
        damage = find_damage(directory / str(step))
        if damage is None:
            return step
        path = directory / str(step)
        logging.warning(
            f"Checkpoint {path} is damaged ({damage}); the one before it is used."
        )
    return None


def read_meta(step_dir: pathlib.Path) -> dict[str, Any]:
    """The meta data of a step, such as "config"; UserError if no run of ours wrote it."""
    path = step_dir / "meta" / "metadata"
    meta = read_json(path)
    if not isinstance(meta.get("config"), dict):
        raise UserError(
            f"{path} has no config: it is not a checkpoint of this project."
        )
    return meta


class _Manager(ocp.CheckpointManager):
    """Does not ask JAX whether to stop: it would count by steps, but the loop counts calls."""

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints of one run.

    Args:
        directory: the folder; made if missing.
        keep_last: how many of the newest to keep, at least 2: one to fall back to.
        keep_every: also keep each step that is a multiple of it; 0 for none.

    Steps in the folder that are older than its newest `keep_last` stay: they were kept.
    """

    def __init__(
        self, directory: str | os.PathLike, *, keep_last: int, keep_every: int
    ):
        self.directory = pathlib.Path(directory).absolute()
        self._lock = threading.Lock()
        self._set_damaged_aside()
        if jax.process_count() > 1:  # nobody looks before the damaged are gone
            multihost_utils.sync_global_devices("damaged checkpoints set aside")
        keep: list = [policies.LatestN(keep_last)]
        if keep_every:
            keep.append(policies.EveryNSteps(keep_every))
        # What an earlier start kept stays, whatever this one keeps.
        if kept := find_steps(self.directory)[keep_last:]:
            keep.append(policies.CustomSteps(kept))
        after_each = ocp.options.AsyncOptions(
            post_finalization_callback=self._write_manifests
        )
        options = ocp.CheckpointManagerOptions(
            create=True,
            preservation_policy=policies.AnyPreservationPolicy(keep),
            async_options=after_each,
        )
        self._manager = _Manager(self.directory, options=options)

    def _set_damaged_aside(self) -> None:
        # Moved, not deleted: a person may still want to look at it. It must leave the
        # folder, because Orbax refuses to save a step that exists.
        if jax.process_index() != 0:
            return
        # Begun by a program that was killed.
        for left in self.directory.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(left, ignore_errors=True)
        for step in find_steps(self.directory):
            path = self.directory / str(step)
            damage = find_damage(path)
            if damage is None:
                continue
            folder = self.directory.parent / "damaged"
            folder.mkdir(exist_ok=True)
            places = (folder / f"{step}.{number}" for number in itertools.count())
            aside = next(place for place in places if not place.exists())
            os.replace(path, aside)
            logging.warning(
                f"Checkpoint {path} is damaged ({damage}). It was moved to {aside}, and "
                "the one before it is used."
            )

    def _write_manifests(self) -> None:
        if jax.process_index() != 0:
            return
        with self._lock:
            for step in find_steps(self.directory):
                path = self.directory / str(step)
                try:
                    if not (path / MANIFEST).is_file():
                        write_manifest(path)
                except FileNotFoundError:
                    pass  # removed meanwhile, as an old one

    def check_space(self, state: PyTree) -> None:
        """Raise OSError if a state cannot be saved: threads of Orbax would print tracebacks."""
        folder = str(self.directory)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        # Orbax collects the parts of all processes before it puts them together.
        size = 2 * sum(x.nbytes for x in jax.tree.leaves(state)) + 1_000_000
        free = shutil.disk_usage(self.directory).free
        largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        for space, code in ((free, errno.ENOSPC), (largest, errno.EFBIG)):
            if space != resource.RLIM_INFINITY and space < size:
                text = f"{size / 1e6:.1f} MB are needed, there are {space / 1e6:.1f}"
                raise OSError(code, text, folder)

    def restore(self, state: PyTree) -> tuple[PyTree, dict] | None:
        """Load the newest intact checkpoint, with its meta data; None if there is none.

        The arrays get the shapes, dtypes and shardings of those of `state`.

        Raises:
            UserError: the checkpoint holds other arrays.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore()
        )
        try:
            restored = self._manager.restore(step, args=args)
        except Exception as error:  # Orbax raises many types
            words = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"Checkpoint {self.directory / str(step)} cannot be restored: its files are "
                f"as they were written, but do not fit this program ({words[:200]}). "
                "Use another --workdir, or the version of the code that wrote it."
            ) from error
        return restored["state"], restored["meta"]

    def save(self, step: int, state: PyTree, meta: dict) -> None:
        """Copy the state to the host, and write it in the background.

        Raises:
            OSError: this one, or the one before, cannot be written.
        """
        self.check_space(state)
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
        )
        with self._as_os_error():
            self._manager.save(step, args=args, force=True)

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Wait until all is written, unless another process may be dead."""
        ours = kind is None or not issubclass(kind, Exception)
        if ours or jax.process_count() == 1 or kind is NonFiniteError:
            self.close()

    def close(self) -> None:
        """Wait until all is written; OSError if the last checkpoint cannot be."""
        with self._as_os_error():
            self._manager.wait_until_finished()
            self._write_manifests()
            self._manager.close()

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        """Orbax and its store of arrays report a full disk by exceptions of many types."""
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            for code in _LIMITS:
                if (words := os.strerror(code)) in str(error):
                    raise OSError(code, words, str(self.directory)) from error
            raise
