"""Reading the pictures that lie in files, or in parts of files."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from .content import Place
from .pixels import to_rgb


def open_image(file: str | Path | BinaryIO) -> Image.Image:
    """Return the first frame of a picture file as RGB (`to_rgb`). Raises OSError if it cannot be read."""
    try:
        with Image.open(file) as image:
            return to_rgb(image)
    except (OSError, MemoryError):
        raise
    except Exception as error:                       # Pillow's decoders raise many kinds for damaged files
        raise OSError(f"{type(error).__name__}: {error}") from error


# The readers are classes, since functions inside functions cannot be pickled. On Windows and macOS, processes
# that read pictures for training get their data set pickled.
class ReadPlaces:
    """Called with an index, returns the picture at that place."""

    def __init__(self, places: Sequence[Place]):
        self.places = places

    def __call__(self, i: int) -> Image.Image:
        path, start, size = self.places[i]
        if size is None:
            return open_image(path)
        with open(path, "rb") as file:
            file.seek(start)
            return open_image(io.BytesIO(file.read(size)))


class ReadSome:
    """Called with an index i, returns what another reader gives for the index rows[i]."""

    def __init__(self, read: Callable[[int], Image.Image], rows: Sequence[int]):
        self.read, self.rows = read, rows

    def __call__(self, i: int) -> Image.Image:
        return self.read(self.rows[i])
