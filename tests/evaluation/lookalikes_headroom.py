"""Pictures and a model whose answers can be told by looking, for tests of the headroom report."""

import itertools

import numpy as np
import torch
from PIL import Image

from minipsync.methods.base import Method
from minipsync.settings import Settings

CORNERS = ["black", "blue", "green", "cyan", "red", "magenta", "yellow", "white"]     # of the cube of colours


def corner_pictures(share, per_class):
    """[(picture, label)]: the left `share` of it has a corner's colour, the rest is grey. All differ."""
    pictures = []
    for (label, colour), i in itertools.product(enumerate(itertools.product((0, 255), repeat=3)),
                                                range(per_class)):
        pixels = np.full((40, 40, 3), 128, np.uint8)
        pixels[:, :round(40 * share)] = colour
        pixels[0, -1 - i] ^= 1                           # another content, so other views
        pictures.append((Image.fromarray(pixels), label))
    return pictures


class ColourConfig(Settings, title="colours"):
    """No settings."""


class ByColour(Method):
    """Names the colour that is nearest to the mean colour: eight corners of the cube, or "mixed"."""

    name, Config = "colours", ColourConfig

    def set_class_names(self, names):
        self.class_names = list(names)
        return self

    def own_logits(self, x):
        mean = self.clip.denormalize(x).mean((-2, -1))                                   # [N, 3]
        known = torch.tensor([*itertools.product((0.0, 1.0), repeat=3), (0.5, 0.5, 0.5)])
        return -40 * (mean[:, None] - known).square().sum(-1)


class Colours:
    """A data set of such pictures."""

    name, class_names = "colours", [*CORNERS, "mixed"]

    def __init__(self, pictures):
        self.pictures, self.labels = [p for p, _ in pictures], np.array([label for _, label in pictures])

    def __len__(self):
        return len(self.pictures)

    def image_id(self, i):
        return f"{i}.png"

    def __getitem__(self, i):
        return self.pictures[i], int(self.labels[i])

    def method(self, clip):
        return ByColour(clip, self.class_names)


class Pictures:
    """Noise, the same on every machine; `broken` ones cannot be read."""

    name = "pictures"

    def __init__(self, class_names, per_class, broken=()):
        self.class_names, self.broken = list(class_names), set(broken)
        self.labels = np.repeat(np.arange(len(class_names)), per_class)

    def __len__(self):
        return len(self.labels)

    def image_id(self, i):
        return f"{i}.png"

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError("image file is truncated")
        pixels = np.random.RandomState(i).randint(0, 256, (5, 5, 3)).astype(np.uint8)
        return Image.fromarray(pixels).resize((36, 36)), int(self.labels[i])
