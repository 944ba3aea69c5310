"""Pictures of cosines and of attention show the numbers that they are given."""
import numpy as np
import pytest
import torch

from minipsync.notebook.inside_clip import attended, cosines


def test_every_cosine_stands_in_its_place():
    values = torch.tensor([[0.11, 0.22, 0.33], [0.44, 0.55, 0.66]])
    pictures = [torch.zeros(3, 4, 4), torch.ones(3, 4, 4)]
    figure = cosines(pictures, ["a photo of a dog.", "a photo of a rose.", "a photo of a taco."], values, "t")
    table = next(axis for axis in figure.axes if axis.get_title(loc="left") == "t")
    assert [text.get_text() for text in table.texts] == ["0.11", "0.22", "0.33", "0.44", "0.55", "0.66"]
    assert [text.get_text().split("\n")[-1] for text in table.get_xticklabels()] == ["dog.", "rose.", "taco."]
    shown = [axis.get_images()[0].get_array() for axis in figure.axes if axis.get_images()]
    assert [image.max() for image in shown] == [0, 1]
    with pytest.raises(ValueError, match=r"shape \(2, 3\); expected 1 pictures by 3 sentences"):
        cosines(pictures[:1], ["a", "b", "c"], values)


def test_the_largest_weight_is_the_brightest_patch():
    weights = torch.full((2, 4), 0.1)
    weights[0, 1], weights[1, 2] = 0.7, 0.4                                  # top right, bottom left
    figure = attended([torch.full((3, 8, 8), 0.5)], [weights], ["a dog"])
    shown = [np.asarray(axis.get_images()[0].get_array()) for axis in figure.axes]
    assert len(shown) == 3 and figure.axes[0].get_ylabel() == "a dog"
    corners = [[image[y, x, 0] for y in (1, 6) for x in (1, 6)] for image in shown[1:]]
    assert [int(np.argmax(corner)) for corner in corners] == [1, 2]
    assert corners[0][1] == pytest.approx(corners[1][2])                # each head by its own largest
    assert corners[0][0] < corners[1][0]
    assert [axis.get_title() for axis in figure.axes] == ["picture", "head 1", "head 2"]
    assert len(attended([torch.zeros(3, 8, 8)], [weights], ["a"], most=1).axes) == 2
    with pytest.raises(ValueError, match="weights for 3 patches"):
        attended([torch.zeros(3, 8, 8)], [weights[:, :3]], ["a"])
