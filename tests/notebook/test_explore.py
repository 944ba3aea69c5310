"""Cells with controls: the start alone where nobody is there; else drawn anew when a control moves."""
import ipywidgets
import pytest

from minipsync.notebook.explore import control, explore


@pytest.fixture
def shown(monkeypatch):
    """What was displayed."""
    found = []
    monkeypatch.setattr("IPython.display.display", lambda *things: found.extend(things))
    return found


def draw(image=3, views=64, entropy=True):
    return [f"image {image}", f"{views} views, entropy {entropy}"]


CONTROLS = {"image": (0, 9), "views": [16, 64], "entropy": bool}


def test_headless_shows_the_start_alone(shown, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    explore(draw, **CONTROLS)
    assert shown == ["image 3", "64 views, entropy True"]


def test_a_reader_moves_what_is_shown(shown, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "05_tpt.ipynb")
    explore(draw, **CONTROLS)
    (box,) = (each for each in shown if isinstance(each, ipywidgets.VBox))
    image, views, entropy, _ = box.children
    assert (image.value, views.value, entropy.value) == (3, 64, True) and (image.min, image.max) == (0, 9)
    assert "image 3" in shown
    image.value, views.value, entropy.value = 7, 16, False
    assert shown[-2:] == ["image 7", "16 views, entropy False"]


def test_controls_and_arguments_belong_together():
    with pytest.raises(TypeError, match="controls are image and the arguments of draw image, views, entropy"):
        explore(draw, image=(0, 9))
    with pytest.raises(TypeError, match="a control and a default for each"):
        explore(lambda image: [], image=(0, 9))
    with pytest.raises(TypeError, match=r"image=5: expected \(low, high\)"):
        control("image", 5, 3)
