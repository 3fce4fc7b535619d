"""The work of preparing: images of a source, decoded by several threads, in order."""

import concurrent.futures
import os
from collections.abc import Iterator

import numpy as np
import tqdm
from PIL import Image

from input_pipeline.decode import BadImage, Resize, decode, fit
from input_pipeline.source import Source

_AHEAD = 512  # Images in flight: bounds the memory.


def decode_rows(
    source: Source, count: int, size: int, resize: Resize, start: int = 0
) -> Iterator[np.ndarray | BadImage]:
    """Rows start .. count - 1 of a source: uint8 [size, size, 3], or why not."""
    read = source.open_reader()

    def one(row: int) -> np.ndarray | BadImage:
        try:
            content = read(row)
            if isinstance(content, bytes):
                return decode(content, size, resize)
            return fit(Image.fromarray(content), size, resize)
        except OSError as error:
            return BadImage(f"cannot be read: {error}")
        except BadImage as error:
            return error

    threads = min(os.cpu_count() or 1, 32)  # PIL decodes without the interpreter lock.
    progress = tqdm.tqdm(
        total=count,
        initial=start,
        desc=source.name,
        unit="image",
        mininterval=1.0,
        disable=count - start <= 2000,
    )
    with progress, concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for first in range(start, count, _AHEAD):
            for image in pool.map(one, range(first, min(first + _AHEAD, count))):
                progress.update()
                yield image
