"""Pictures with captions that say what is in them: the "web" on which the mini CLIP is pre-trained.

A caption names the class and, often, what only this picture shows: medium, size, quality, colour, place,
what else there is. Objects are small and large, near and cut off, alone and among others. With pairs of the
same class in different media in a batch, the name alone does not tell them apart, so the rest of the caption
comes to matter: that is what makes the model promptable.
"""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from minipsync.data.scenes import BACKGROUNDS, WORLDS, Scenes, render, sample

from .mini_sources import ICON_SETS, STYLES

GENERIC = ("photo", "picture", "image")
MEDIA = {                                             # how people would call what each hand draws
    "noto": ("photo", "picture", "rendering", "3d rendering", "toy", "plastic figure"),
    "twemoji": ("flat icon", "sticker", "clip art", "emoji", "icon"),
    "emojione": ("cartoon", "illustration", "clip art", "emoji"),
    "fxemoji": ("cartoon", "illustration", "doodle", "drawing"),
    "streamline": ("illustration", "comic", "colored drawing", "icon"),
    "emojione-monotone": ("black and white icon", "stencil", "logo", "pictogram", "black and white drawing"),
    "noto-font": ("sketch", "line drawing", "ink drawing", "black and white drawing", "outline"),
    "mdi": ("pictogram", "symbol", "silhouette", "black and white icon", "logo"),
    "tabler": ("line drawing", "line icon", "sketch", "outline"),
    "phosphor": ("line drawing", "line icon", "sketch", "outline"),
    "lucide": ("line drawing", "line icon", "sketch", "outline"),
    "game-icons": ("engraving", "stencil", "black and white drawing", "tattoo"),
    "line art": ("sketch", "pencil drawing", "line drawing", "drawing", "scribble"),
    "grey": ("black and white photo", "black and white picture", "grayscale photo"),
    "silhouette": ("silhouette", "shadow", "black shape"),
    "painting": ("painting", "watercolor", "work of art", "artwork"),
    "pixels": ("pixel art", "video game picture", "low resolution photo"),
}
PLACES = {
    "grass": ("on the grass", "in a meadow"), "beach": ("on the beach", "on the sand"),
    "sea": ("at sea", "on the water"), "snow": ("in the snow",), "desert": ("in the desert",),
    "night": ("at night", "in the dark"), "sunset": ("at sunset",), "room": ("in a room", "on a table"),
    "forest": ("in the forest", "in the woods"), "street": ("on the street", "in the city"),
}
PATTERNS = {
    "stripes": "on a striped background", "checks": "on a checkered background",
    "dots": "on a dotted background", "gradient": "on a gradient", "noise": "on a colorful background",
    "white": "on a white background",
}
COLOURS = {
    "red": (.85, .15, .15), "orange": (.95, .55, .1), "yellow": (.95, .85, .2), "green": (.25, .65, .25),
    "blue": (.2, .45, .85), "purple": (.55, .25, .7), "pink": (.95, .55, .7), "brown": (.5, .32, .2),
    "gray": (.55, .55, .55), "black": (.1, .1, .1), "white": (.95, .95, .95),
}
OTHER_WORDS = "a an the of on background , . blurry bad dark bright grainy good"
SMALL, LARGE = ("small", "tiny", "little"), ("large", "big")
NEAR = ("close-up", "close-up photo", "cropped photo")
CORNERS = {(-1, -1): "in the top left corner", (1, -1): "in the top right corner",
           (-1, 1): "in the bottom left corner", (1, 1): "in the bottom right corner",
           (-1, 0): "on the left", (1, 0): "on the right", (0, -1): "at the top", (0, 1): "at the bottom",
           (0, 0): "in the middle"}
COMPANY = ("among other things", "with other things", "surrounded by small things")
SIDES = (0.2, 1.3)            # object's side / picture's side before the crop, log-uniform
_SWATCHES = np.array(list(COLOURS.values()), np.float32)


def colour_name(rgb: np.ndarray) -> str:
    """The name in COLOURS that is nearest to `rgb` [3] in [0, 1]."""
    return list(COLOURS)[int(((_SWATCHES - rgb) ** 2).sum(1).argmin())]


class Web:
    """Endless batches of (picture, caption, class) over the training families.

    drawings: the npz file that `make_mini --drawings` writes.
    favoured: class names that appear six times as often as others.
    """

    def __init__(self, drawings: str | Path, favoured: set[str]):
        with np.load(drawings) as z:
            self.emoji = json.loads(str(z["emoji"]))
            self.styles = [s for s in STYLES + ICON_SETS if s.role == "train"]
            self.sheets = np.stack([z[s.name] for s in self.styles])                  # [styles, E, 64, 64, 4]
        self.mono = np.array([s.medium == "mono" for s in self.styles])
        have = self.sheets[..., 3].any((2, 3))                                         # [styles, E]
        icons = [s.name for s in ICON_SETS]
        weight = np.where(np.isin([s.name for s in self.styles], icons), 0.35, 1.0)
        weight[[s.name == "noto-font" for s in self.styles].index(True)] = 1.5
        self.style_weight = have * weight[:, None]
        self.classes = np.flatnonzero(have.sum(0) >= 2)
        chance = np.array([6.0 if self.emoji[i][1] in favoured else 1.0 for i in self.classes])
        self.class_chance = chance / chance.sum()

    def words(self) -> list[str]:
        """Texts that hold every word a caption can use."""
        said = [*GENERIC, *COLOURS, *PATTERNS.values(), OTHER_WORDS, *SMALL, *LARGE, *NEAR, "in the corner",
                *CORNERS.values(), *COMPANY, "and with"]
        groups = (*MEDIA.values(), *PLACES.values())
        names = (w for e in self.emoji for w in (e[1], *e[2]))
        return [*said, *(w for group in groups for w in group), *names]

    def batch(self, rng: np.random.RandomState, pairs: int, size: int, hardness: float = 1.0,
              lines: float = 0.34, crowded: float = 0.4) -> tuple[torch.Tensor, list[str], np.ndarray]:
        """Pictures [2*pairs, 3, size, size] in [0, 1], their captions, and classes [2*pairs] into `emoji`.

        `pairs` classes, each twice, in two styles where it has them; `hardness` is the scenes', `lines` the
        share of colour drawings that become line art, `crowded` that of pictures with smaller drawings too.
        """
        picked = rng.choice(self.classes, pairs, replace=False, p=self.class_chance)
        wait = rng.exponential(size=(len(self.styles), pairs))
        order = np.argsort(wait / np.maximum(self.style_weight[:, picked], 1e-9), axis=0)
        # who waits least is drawn first: a weighted draw of styles without replacement
        second = np.where(self.style_weight[order[1], picked] > 0, order[1], order[0])
        style, label = np.concatenate([order[0], second]), np.concatenate([picked, picked])
        drawings = torch.from_numpy(self.sheets[style, label]).permute(0, 3, 1, 2).float() / 255
        drawings, mono, effect = self._filtered(rng, drawings, self.mono[style], lines)    # [N, 4, 64, 64]
        scenes = sample(rng, mono, hardness, SIDES)
        scenes.others[rng.uniform(size=len(style)) >= crowded] = 0
        companions = self.classes[(scenes.which * len(self.classes)).astype(int)]      # [N, OTHERS]
        companions = np.where(self.style_weight[style[:, None], companions] > 0, companions, label[:, None])
        scenes.others[companions == label[:, None]] = 0
        others = torch.from_numpy(self.sheets[style[:, None], companions]).movedim(-1, 2).float() / 255
        flip = rng.uniform(size=len(style)) < 0.5
        drawings[flip] = drawings[flip].flip(-1)
        pictures, place = render(drawings, mono, scenes, size, others), np.stack([scenes.x, scenes.y], 1)
        pictures, quality, box = self._finished(rng, pictures, effect, size, place)
        side, place = scenes.scale / box[:, :2].min(1), (place - box[:, 2:]) / box[:, :2]
        ink = drawings[:, 3:]
        tint = (drawings[:, :3] * ink).sum((2, 3)) / ink.sum((2, 3)).clamp_min(1)         # [N, 3] mean colour
        captions = []
        for i in range(len(style)):
            beside = [self.emoji[c][1] for c, o in zip(companions[i], scenes.others[i], strict=True) if o[0]]
            captions.append(self._caption(rng, label[i], self.styles[style[i]].name, effect[i], quality[i],
                                          scenes, i, mono[i], tint[i].numpy(), side[i], place[i], beside))
        return pictures, captions, label

    def _filtered(self, rng, drawings, mono, lines):
        """Change the medium of some colour drawings: line art, silhouette, grey, painting, other palettes.

        drawings [N, 4, 64, 64] are changed in place; returns them, mono [N] and the effects' names [N].
        """
        n = len(drawings)
        effect = np.full(n, "", object)
        u = rng.uniform(size=n)
        colour = ~mono
        for name, low, high in (("line art", .38, .38 + lines), ("silhouette", .18, .21),
                                ("grey", .21, .28), ("painting", .28, .33)):
            effect[colour & (u >= low) & (u < high)] = name
        effect[(u >= .33) & (u < .38)] = "pixels"
        rows = np.flatnonzero(effect == "line art")
        if len(rows):
            gain = torch.from_numpy(rng.uniform(0.5, 1.6, len(rows))).float()
            drawings[rows] = line_art(drawings[rows], gain)
        bold = np.flatnonzero((mono | (effect == "line art")) & (rng.uniform(size=n) < 0.3))
        if len(bold):                                                                  # a broader pen
            drawings[bold, 3:] = F.max_pool2d(drawings[bold, 3:], 3, 1, 1)
        for i in np.flatnonzero(effect == "grey"):
            drawings[i, :3] = drawings[i, :3].mean(0, keepdim=True)
        rows = np.flatnonzero(effect == "painting")
        if len(rows):
            soft = F.avg_pool2d(drawings[rows], 5, 1, 2)
            drawings[rows, :3] = (soft[:, :3] * 5).round() / 5
        palette = colour & (rng.uniform(size=n) < 0.35) & (effect == "")
        for i in np.flatnonzero(palette):
            mix = np.eye(3) + rng.normal(0, .28, (3, 3))
            mix /= mix.sum(1, keepdims=True).clip(0.3)
            mixed = torch.einsum("rc,chw->rhw", torch.from_numpy(mix).float(), drawings[i, :3])
            drawings[i, :3] = mixed.clamp(0, 1)
        return drawings, mono | np.isin(effect, ("line art", "silhouette")), effect

    def _finished(self, rng, pictures, effect, size, place):
        """Faults of finished pictures [N, 3, S, S]: blur, coarse pixels, crop, squeeze.

        place [N, 2]: of the object, which the crop keeps. Also their quality [N], and what was kept: width,
        height, x, y [N, 4] in units of the picture."""
        n = len(pictures)
        quality = np.full(n, "", object)
        u = rng.uniform(size=n)
        quality[(u < .06) & (effect == "")] = "blurry"
        for i in np.flatnonzero(effect == "pixels"):
            small = F.interpolate(pictures[i:i + 1], (int(rng.randint(14, 22)),) * 2, mode="area")
            pictures[i] = F.interpolate(small, (size, size), mode="nearest")[0]
        rows = np.flatnonzero(quality == "blurry")
        if len(rows):
            once = F.avg_pool2d(pictures[rows], 3, 1, 1, count_include_pad=False)
            pictures[rows] = F.avg_pool2d(once, 3, 1, 1, count_include_pad=False)
        low = np.exp(rng.uniform(np.log(.5), 0, n))                   # crop side, as a share of the picture
        low[rng.uniform(size=n) < 0.6] = 1.0
        aspect = np.exp(rng.uniform(-.2, .2, n))
        w, h = np.minimum(1, low * aspect), np.minimum(1, low / aspect)
        theta = np.zeros((n, 2, 3), np.float32)
        theta[:, 0, 0], theta[:, 1, 1] = w, h
        kept = np.stack([w, h], 1)
        centre = (rng.uniform(-1, 1, (n, 2)) * (1 - kept)).clip(place - 0.7 * kept, place + 0.7 * kept)
        theta[:, :, 2] = centre.clip(kept - 1, 1 - kept)
        grid = F.affine_grid(torch.from_numpy(theta), (n, 3, size, size), align_corners=False)
        pictures = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection",
                                 align_corners=False)
        return pictures, quality, np.concatenate([kept, theta[:, :, 2]], 1)

    def _caption(self, rng, label, style, effect, quality, s: Scenes, i, mono, tint, side, place,
                 beside) -> str:
        """What one would say of picture i: some of medium, quality, size, colour, place, company.

        side: of the object, as a share of the finished picture's; place: its centre there, [2] in [-1, 1];
        beside: names of the other things.
        """
        _, name, keywords, _, _ = self.emoji[label]
        u = rng.uniform(size=8)
        if u[0] < 0.10:
            return name
        if keywords and u[0] > 0.88:
            name = f"{name}, {keywords[rng.randint(len(keywords))]}"
        media = GENERIC if u[1] < 0.28 else MEDIA[effect or style]
        medium = media[rng.randint(len(media))]
        words = []
        if quality:
            words.append(("blurry", "bad")[rng.randint(2)])
        elif u[2] < 0.25:
            words += _condition(s, i)
        near = side > 1.2 and u[4] < 0.5
        words += [NEAR[rng.randint(len(NEAR))] if near else medium, "of", "the" if u[3] < 0.2 else "a"]
        if u[4] < 0.4 and not near:
            if side < .42:
                words.append(SMALL[rng.randint(len(SMALL))])
            elif side > .8:
                words.append(LARGE[rng.randint(len(LARGE))])
        if u[5] < 0.15 and not mono and effect in ("", "painting"):
            words.append(colour_name(tint))
        words.append(name)
        if beside and rng.uniform() < 0.35:
            words += [f"{('and', 'with')[rng.randint(2)]} a {beside[0]}" if rng.uniform() < 0.5
                      else COMPANY[rng.randint(len(COMPANY))]]
        if u[6] < 0.15 and side < 0.6:
            words.append(_corner(rng, place))
        elif u[6] < 0.45:
            words += _place(rng, s, i, mono)
        text = " ".join(words)
        article = "the " if u[7] < 0.1 else "" if u[7] < 0.3 else "an " if text[0] in "aeio" else "a "
        return article + text + ("." if rng.uniform() < 0.6 else "")


def _condition(s: Scenes, i: int) -> list[str]:
    """What light and noise of scene i say of the picture: at most one word."""
    if s.brightness[i] < .85:
        return ["dark"]
    if s.brightness[i] > 1.18:
        return ["bright"]
    return ["grainy"] if s.noise[i] > .03 else ["good"] if s.noise[i] < .01 else []


def _place(rng, s: Scenes, i: int, mono: bool) -> list[str]:
    """What the background of scene i shows, if there is a word for it."""
    kind = BACKGROUNDS[s.background[i]]
    if kind == "world" and not mono:
        places = PLACES[list(WORLDS)[s.world[i]]]
        return [places[rng.randint(len(places))]]
    if kind == "plain":
        return [f"on a {colour_name(s.colours[i, 0])} background"]
    return [PATTERNS[kind]] if kind in PATTERNS else []


def _corner(rng, place) -> str:
    """Where in the picture a small object at `place` is."""
    column, row = (int(np.sign(v)) * (abs(v) > 0.25) for v in place)
    return "in the corner" if column and row and rng.uniform() < 0.4 else CORNERS[column, row]


def line_art(drawings: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """Colour drawings [N, 4, H, W] -> black ink [N, 4, H, W] where brightness, colour or outline change.

    gain [N]: how dark the lines get.
    """
    alpha = drawings[:, 3:]
    flat = torch.cat([drawings[:, :3] * alpha + 1 - alpha, alpha], 1)                 # on white paper
    flat = F.avg_pool2d(flat, 3, 1, 1, count_include_pad=False)
    dy = F.pad(flat[:, :, 2:] - flat[:, :, :-2], (0, 0, 1, 1))
    dx = F.pad(flat[..., 2:] - flat[..., :-2], (1, 1))
    edge = (dx.square() + dy.square()).sum(1, keepdim=True).sqrt()
    ink = (edge * 1.6 * gain[:, None, None, None] - 0.15).clamp(0, 1)
    return torch.cat([torch.zeros_like(drawings[:, :3]), ink], 1)
