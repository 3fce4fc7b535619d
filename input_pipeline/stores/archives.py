"""Datasets in their authors' archives: a .tar.gz that is read in place, or its folder."""

import contextlib
import os
import pathlib
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from input_pipeline.stores.image_files import key_of
from sp_jax.errors import UserError


class Archive(NamedTuple):
    """An archive, packed or unpacked.

    Attributes:
      title: of the set.
      url: where its authors have it.
      path: the .tar.gz, or the folder that holds the files.
    """

    title: str
    url: str
    path: pathlib.Path

    def files(self) -> Iterator[tuple[str, int, BinaryIO]]:
        """Names without folders, sizes and contents, in the order of the archive.

        Each file is open until the next one is asked for. Use it in `told`.
        """
        if self.path.is_dir():
            for path in sorted(self.path.iterdir()):
                if path.is_file():
                    with open(path, "rb") as file:
                        yield path.name, path.stat().st_size, file
            return
        with tarfile.open(self.path) as archive:
            for member in archive:
                if (file := archive.extractfile(member)) is not None:
                    yield os.path.basename(member.name), member.size, file

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """A context to read in it; an error becomes one sentence."""
        try:
            yield
        except (UserError, MemoryError):
            raise
        except Exception as error:  # What reads damaged files raises many types.
            reason = str(error) or type(error).__name__
            raise UserError(
                f"{self.path} is not {self.title} of {self.url}, or is damaged ({reason}): "
                "download that file again."
            ) from error

    def key(self) -> str:
        """A key that changes whenever its files may have changed."""
        if not self.path.is_dir():
            return key_of(self.path.parent, [self.path])
        return key_of(self.path, sorted(p for p in self.path.iterdir() if p.is_file()))


def find(path: str, title: str, url: str, *names: str) -> Archive:
    """The archive at a path.

    Args:
      path: of the .tar.gz, of the folder with the files, or of what holds one of these.
      title: of the set, such as "CIFAR-10".
      url: of the archive to get.
      *names: of archives and of their folders, where the path holds them.

    Raises:
      UserError: it is not there; names the file to get.
    """
    root = pathlib.Path(path).expanduser()
    if not root.exists():
        raise UserError(
            f"There is no {root}: get {title} from {url} and give the path of that file, or "
            "of its unpacked folder."
        )
    inside = [root / name for name in names if (root / name).exists()]
    return Archive(title, url, inside[0] if inside else root)
