"""A figure as a notebook keeps it: sharp, small, with a caption below and words for those who cannot see it.

    Captioned(figure, "Sure views are right more often.", alt="Two line charts: accuracy against the rank …")
"""

import base64
import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

DPI = 150                                  # of the stored picture
CSS_DPI = 90                               # how large it is shown: a figure 10 inches wide takes 900 pixels
COLOURS = 32                               # of a palette, enough for charts; edges stay smooth
QUALITY = 62                               # of a JPEG, for figures with photographs


class Captioned:
    """A figure with its caption and its alternative text, as the value of a cell.

    figure:  a matplotlib Figure
    caption: Markdown, a sentence or two: what to see in the figure
    alt:     plain text, what the figure shows, for readers who cannot see it

    Raises ValueError where one of the two texts is empty.
    """

    def __init__(self, figure: Figure, caption: str, alt: str) -> None:
        for name, text in (("caption", caption), ("alt", alt)):
            if not text.strip():
                raise ValueError(f"{name} is empty; expected a sentence about the figure")
        self.figure, self.caption, self.alt = figure, caption, alt

    def _ipython_display_(self) -> None:
        from IPython.display import Markdown, display

        data, metadata = self.bundle()
        display(data, metadata=metadata, raw=True)
        display(Markdown(f"**Figure.** {self.caption}"))

    def bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What Jupyter's display takes: ({type: data}, {type: width in pixels and alternative text})."""
        kind, raw, width = _encoded(self.figure)
        about = {"alt": self.alt, "width": width}
        return ({kind: base64.b64encode(raw).decode(), "text/plain": f"Figure: {self.alt}"}, {kind: about})


def _encoded(figure: Figure) -> tuple[str, bytes, int]:
    """(type, bytes, width on the page): JPEG where it holds photographs, else PNG with a palette."""
    figure.savefig(buffer := io.BytesIO(), format="png", dpi=DPI, bbox_inches="tight", facecolor="white")
    image, out = Image.open(buffer).convert("RGB"), io.BytesIO()
    width = round(image.width * CSS_DPI / DPI)
    if any(np.asarray(shown.get_array()).ndim == 3 for axis in figure.axes for shown in axis.get_images()):
        image.save(out, "JPEG", quality=QUALITY, optimize=True)
        return "image/jpeg", out.getvalue(), width
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return "image/png", out.getvalue(), width
