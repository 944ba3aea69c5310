"""Turning any PIL image into RGB with 8 bits a channel; the only place that knows of odd pictures."""

import warnings

import numpy as np
from PIL import Image

BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339         # tags of TIFF
SIGNED = 2                                               # a value of the tag SAMPLE_FORMAT
SAVE_IT = "save it with 8 bits a channel"


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as RGB: its first (or present) frame, with transparent parts on white.

    Of 16 unsigned bits a channel the high byte is taken; PIL alone would make all but the darkest 256 levels
    white. The note in EXIF of how the camera was held is not followed: neither PIL, torchvision nor the
    official codes follow it, so published numbers are of the pixels as they are stored.
    Raises ValueError for pixels whose range is not defined (floating point, signed, 32-bit integers) and for
    images without pixels, and what PIL raises for files that it cannot decode.
    """
    deep = any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))     # known only before decoding
    image.load()
    if 0 in image.size:
        raise ValueError(f"it has no pixels, its size is {image.size}")
    tags = getattr(image, "tag_v2", {})
    if SIGNED in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1)):                     # PIL shows some as unsigned
        raise ValueError(f"pixels of signed whole numbers have no defined range; {SAVE_IT}")
    if image.mode == "F":
        raise ValueError(f"floating point pixels have no defined range; {SAVE_IT}")
    if image.mode == "I" and image.format not in ("PNG", "PPM"):                # in those "I" is 16 bits
        raise ValueError(f"whole numbers of 32 bits have no defined range; {SAVE_IT}")
    if image.mode.startswith("I"):
        return _from_16_bits(image, int(np.max(tags.get(BITS, 16))), tags.get(PHOTOMETRIC) == 0)
    key = image.info.get("transparency")
    if isinstance(key, tuple) and (deep or max(key) > 255):                     # the pixels are 8 bits by now
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or key is not None:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(image: Image.Image, bits: int, white_is_zero: bool) -> Image.Image:
    """Return a grey image with values 0 … 2 ** bits - 1 as RGB, its transparent value as white."""
    values = np.asarray(image).astype(np.int32).clip(0, 2 ** bits - 1)                        # [H, W]
    grey = values >> (bits - 8)
    if values.max() > 0 == grey.max() and not white_is_zero:
        warnings.warn(f"a picture of {bits} bits a pixel is black: its largest value is {values.max()} of "
                      f"{2 ** bits - 1}. If its range is smaller, save it with 8 bits", stacklevel=3)
    grey = 255 - grey if white_is_zero else grey
    if (key := image.info.get("transparency")) is not None:
        grey = np.where(values == key, 255, grey)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
