"""The folder of a run: one program at a time trains in it, and always the same run."""

import contextlib
import errno
import inspect
import json
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import filelock

from sp_jax.config import flatten, get_config
from sp_jax.errors import UserError
from sp_jax.files import write_text
from sp_jax.json_file import read_json
from sp_jax.train.checkpoint import newest_sound_step, read_meta
from sp_jax.train.identity import is_free
from sp_jax.train.writer import read_metrics

# Errors of a file system without locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)
_FOLDERS = ("checkpoints", "damaged", "eval", "profile", "tensorboard")


@contextlib.contextmanager
def claim_workdir(
    workdir: pathlib.Path, config: Mapping[str, Any]
) -> Iterator[Mapping[str, Any] | None]:
    """Hold a run's folder, made if missing, while this program trains in it.

    Writes config.json, or checks that the folder holds the run of this config: that of its
    config.json, or of its newest checkpoint where config.json was lost.

    Yields:
        The meta data of the newest intact checkpoint; None if there is none.

    Raises:
        UserError: another program trains in the folder, it holds another run, or one of its
            files is damaged or is not a file of a run.
    """
    if wrong := sorted(set("\\[") & set(str(workdir))):
        raise UserError(
            f"{workdir} has a {wrong[0]} in its name, and Orbax cannot restore arrays from "
            "such a folder: use another --workdir."
        )
    workdir.mkdir(parents=True, exist_ok=True)
    with _lock(workdir):
        for name in _FOLDERS:
            path = workdir / name
            if path.exists() and not path.is_dir():
                raise UserError(
                    f"{path} is a file, but a run needs a folder of that name: move it "
                    "away, or use another --workdir."
                )
        read_metrics(workdir)  # a damaged record is refused now
        new = json.loads(json.dumps(config))  # tuples become lists, as in the file
        checkpoints, path = workdir / "checkpoints", workdir / "config.json"
        step = newest_sound_step(checkpoints)
        meta = None if step is None else read_meta(checkpoints / str(step))
        if path.exists():
            check_same_run(read_json(path), new, workdir)
        elif meta is not None:
            check_same_run(meta["config"], new, workdir)
        write_text(path, json.dumps(new, indent=2) + "\n")
        yield meta


@contextlib.contextmanager
def _lock(workdir: pathlib.Path) -> Iterator[None]:
    """A lock that the operating system frees when this program ends, however it ends."""
    # Without locks of the system, newer versions of filelock would leave a marker file, which
    # a killed program never removes.
    known = inspect.signature(filelock.FileLock.__init__).parameters
    options = {"fallback_to_soft": False} if "fallback_to_soft" in known else {}
    lock = filelock.FileLock(workdir / ".training.lock", timeout=0, **options)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"Another program is training in {workdir}: wait for its end, or use another "
            "--workdir."
        ) from None
    except (NotImplementedError, OSError) as error:
        if getattr(error, "errno", None) not in (None, *_NO_LOCKS):
            raise
        logging.warning(
            f"The file system of {workdir} has no file locks: make sure yourself that only "
            "one program trains there."
        )
    try:
        yield
    finally:
        lock.release()


def check_same_run(
    before: Mapping[str, Any], after: Mapping[str, Any], workdir: pathlib.Path
) -> None:
    """Raise UserError if a run's config has changed beyond what is `FREE_TO_CHANGE`."""
    before, after = flatten(before), flatten(after)
    # A key that an older version did not have was what it is by default.
    defaults = flatten(json.loads(json.dumps(get_config().to_dict())))
    for name in sorted(before | after):
        was = before.get(name, defaults.get(name) if name in after else None)
        if is_free(name) or was == after.get(name):
            continue
        raise UserError(
            f"{workdir} holds a run with config.{name} = {was!r}, but "
            f"now it is {after.get(name)!r}: use another --workdir, or the config "
            "of that run."
        )
