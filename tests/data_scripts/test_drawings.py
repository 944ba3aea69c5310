"""The readers of the mini benchmark's sources, on an icon and a font as those packages hold them."""
import json
from pathlib import Path

import matplotlib
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from data_scripts.mini_sources import MARGIN, READERS, SIZE, Emoji, _square

SUN = Emoji("2600", "☀", "sun", (), "travel-places", "sky-weather", frozenset())
LETTER = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")


def test_an_icon_is_drawn(tmp_path):
    icon = {"body": '<rect x="5" width="10" height="10" fill="#ff0000"/>', "width": 20, "height": 10}
    (tmp_path / "icons.json").write_text(json.dumps({"icons": {"sun": icon}}))
    (tmp_path / "chars.json").write_text(json.dumps({"2600": "sun"}))
    (code, name, image), = READERS["iconify"](tmp_path, [SUN])
    wanted = np.zeros((SIZE, SIZE, 4), np.uint8)
    wanted[MARGIN:-MARGIN, MARGIN:-MARGIN] = 255, 0, 0, 255        # the ink, in the middle, as large as fits
    assert (code, name) == ("2600", "sun")
    assert np.abs(image.astype(int) - wanted).max() <= 1           # the sums of Lanczos' filter are rounded


def test_a_glyph_is_drawn_from_a_web_font(tmp_path):
    font = TTFont(LETTER)
    font.flavor = "woff"
    (tmp_path / "files").mkdir()
    font.save(tmp_path / "files/sans-latin-400-normal.woff")
    (code, _, image), = READERS["font"](tmp_path, [SUN])
    canvas = Image.new("L", (4 * SIZE, 4 * SIZE))
    ImageDraw.Draw(canvas).text((SIZE, SIZE), "☀", fill=255, font=ImageFont.truetype(str(LETTER), 2 * SIZE))
    ink = Image.new("RGBA", canvas.size)
    ink.putalpha(canvas)
    assert code == "2600" and np.array_equal(image, _square(ink)) and image[..., 3].max() > 200
