"""A figure with caption and alternative text: what Jupyter gets, and that nothing is lost for its size."""
import base64
import io

import numpy as np
import pytest
from PIL import Image

from minipsync.notebook import drawing
from minipsync.notebook.captions import CSS_DPI, DPI, Captioned


def chart():
    figure, [[axis]] = drawing.new_figure(1, 1, (4, 2))
    axis.plot([0, 1], [0, 1])
    return figure


def test_a_chart_is_sharp_and_has_words():
    data, metadata = Captioned(chart(), "It rises.", alt="A rising line.").bundle()
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.mode == "P" and abs(image.width - 4 * DPI) < 0.3 * DPI         # cut to what is drawn
    assert metadata["image/png"] == {"alt": "A rising line.", "width": round(image.width * CSS_DPI / DPI)}
    assert "A rising line." in data["text/plain"]


def test_photographs_keep_their_shades():
    """A palette of 64 colours would show steps in a sky; a map of one number per place is a chart."""
    figure, axes = drawing.new_figure(1, 2, (4, 2))
    axes[0, 0].imshow(np.random.RandomState(0).rand(20, 20, 3))
    data, metadata = Captioned(figure, "Noise.", alt="Noise.").bundle()
    assert set(metadata) == {"image/jpeg"}
    assert Image.open(io.BytesIO(base64.b64decode(data["image/jpeg"]))).format == "JPEG"
    figure, [[axis]] = drawing.new_figure(1, 1, (4, 2))
    axis.imshow(np.eye(3))
    assert set(Captioned(figure, "A map.", alt="A map.").bundle()[1]) == {"image/png"}


@pytest.mark.parametrize("texts", [(" ", "a line"), ("A line.", "")])
def test_no_figure_without_words(texts):
    with pytest.raises(ValueError, match="is empty; expected a sentence about the figure"):
        Captioned(chart(), texts[0], alt=texts[1])


def test_what_a_cell_shows(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *what, **how: shown.append((what, how)))
    Captioned(chart(), "It rises.", alt="A rising line.")._ipython_display_()
    (_, how), (caption, _) = shown
    assert how["raw"] and caption[0].data == "**Figure.** It rises."
