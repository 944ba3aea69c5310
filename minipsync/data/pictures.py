"""Reading the pictures that files hold."""
from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from .content import Place
from .pixels import to_rgb


def open_image(file: str | Path | BinaryIO) -> Image.Image:
    """The first frame of a picture file as RGB, as `to_rgb` says; OSError for whatever PIL cannot read."""
    try:
        with Image.open(file) as image:
            return to_rgb(image)
    except (OSError, MemoryError):
        raise
    except Exception as error:                            # PIL's decoders raise all sorts for damaged files
        raise OSError(f"{type(error).__name__}: {error}") from error


# Classes, not functions inside functions: a process that reads pictures for a training is handed its data set
# pickled where processes are not forked (Windows, macOS).
class ReadPlaces:
    """index -> picture, from files and from parts of files."""

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
    """index -> picture, of those of another reader."""

    def __init__(self, read: Callable[[int], Image.Image], rows: Sequence[int]):
        self.read, self.rows = read, rows

    def __call__(self, i: int) -> Image.Image:
        return self.read(self.rows[i])
