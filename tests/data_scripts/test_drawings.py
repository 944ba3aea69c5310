"""The readers of the mini benchmark's sources, on an icon and a font as those packages hold them."""
import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from data_scripts import make_mini
from data_scripts.make_mini import ASSETS, RENDERER, differing, pixels
from data_scripts.mini_sources import MARGIN, READERS, SIZE, Emoji, _square, _svg

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


INDEX = json.loads((ASSETS / "index.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("style", INDEX["styles"], ids=lambda style: style["name"])
def test_a_sheet_holds_the_pixels_that_were_drawn(style):
    assert pixels(Image.open(ASSETS / style["file"]).convert("RGBA")) == style["pixels"]


def test_the_pinned_renderer_draws_the_same_pixels_everywhere():
    """Curves, a gradient, transparency: what renderers of other versions round in other ways."""
    assert INDEX["renderer"] == f"resvg-py {RENDERER}"
    if (here := version("resvg-py")) != RENDERER:
        pytest.skip(f"the sheets were drawn by resvg-py {RENDERER}, here is {here}")
    drawn = _svg('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 37 31"><defs><linearGradient id="g">'
                 '<stop stop-color="#f80"/><stop offset="1" stop-color="#40c" stop-opacity=".4"/>'
                 '</linearGradient></defs><path d="M2 29C7 1 19 3 35 2 31 17 27 30 2 29z" fill="url(#g)" '
                 'stroke="#123" stroke-width="1.3"/><circle cx="17.3" cy="14.1" r="5.7" fill="#fff8"/></svg>')
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == "45e7b7ea31f03083"


def test_another_renderer_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("data_scripts.make_mini.version", lambda package: "0.4.9")
    monkeypatch.setattr("sys.argv", ["make_mini"])
    with pytest.raises(SystemExit):
        make_mini.main()
    assert "resvg-py 0.4.9 draws other pixels" in capsys.readouterr().err


def test_other_pixels_are_told(tmp_path):
    shutil.copyfile(ASSETS / "index.json", tmp_path / "index.json")
    assert differing(tmp_path) == []
    changed = {**INDEX, "styles": [{**s, "pixels": "0" * 16} if s["name"] == "noto" else s
                                   for s in INDEX["styles"]]}
    (tmp_path / "index.json").write_text(json.dumps(changed))
    assert differing(tmp_path) == ["noto"]
