"""The work of preparing: images of a source, decoded by several threads, in order."""

import concurrent.futures
import errno
import os
from collections.abc import Iterator

import numpy as np
import tqdm
from PIL import Image

from input_pipeline.stores.decode import BadImage, Budget, Resize, decode, fit
from input_pipeline.stores.image_source import Source
from sp_jax.errors import UserError

_AHEAD = 512  # Images in flight, but not more than:
_BYTES_AHEAD = 10**9
# Of all files that are being decoded; a larger one is refused.
_bytes_in_flight = Budget(10**9)
# What no image is to blame for.
_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def decode_rows(
    source: Source, count: int, size: int, resize: Resize, start: int = 0
) -> Iterator[np.ndarray | BadImage]:
    """Rows start .. count - 1 of a source: uint8 [size, size, 3], or why not.

    Raises:
      UserError: the memory or the number of threads does not suffice.
      OSError: too many files are open.
    """
    read = source.open_reader()

    def one(row: int) -> np.ndarray | BadImage:
        try:
            with _bytes_in_flight.hold(source.size_of(row)):
                content = read(row)
                if isinstance(content, bytes):
                    return decode(content, size, resize)
                return fit(Image.fromarray(content), size, resize)
        except OSError as error:
            if error.errno in _LIMITS:
                raise
            return BadImage(f"cannot be read: {error}")
        except BadImage as error:
            return BadImage(str(error))  # Its traceback would keep the content.

    threads = min(os.cpu_count() or 1, 32)  # PIL decodes without the interpreter lock.
    ahead = max(1, min(_AHEAD, _BYTES_AHEAD // (3 * size**2)))
    progress = tqdm.tqdm(
        total=count,
        initial=start,
        desc=source.name,
        unit="image",
        mininterval=1.0,
        disable=count - start <= 2000,
    )
    with progress, concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for first in range(start, count, ahead):
            try:
                for image in pool.map(one, range(first, min(first + ahead, count))):
                    progress.update()
                    yield image
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "new thread" not in str(error):
                    raise
                raise UserError(
                    "The memory or the number of threads does not suffice to decode the "
                    "images: end other programs, or raise the limit (ulimit -v, -u)."
                ) from error
