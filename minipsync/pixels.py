"""What an odd picture looks like: the one place that turns any PIL image into RGB of 8 bits a channel."""

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB, decoded: the first (or present) frame, transparent parts on white.

    16 bits a channel become 8 by their high byte; PIL alone makes all but the darkest 256 levels white.
    EXIF's note of how the camera was held is not followed, as in the official codes, PIL and torchvision:
    published numbers are of the pixels as they are stored. Raises ValueError for pixels without a defined
    range (floating point) or without extent, and whatever PIL does for files that it cannot decode.
    """
    image.load()
    if 0 in image.size:
        raise ValueError(f"it has no pixels, its size is {image.size}")
    if image.mode.startswith("I"):                        # "I;16", and "I", as which older PILs read the same
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating point pixels have no defined range; save it with 8 bits a channel")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")
