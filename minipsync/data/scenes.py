"""Scenes: a drawing, posed and lit among smaller ones, in front of a background; rendered in batches.

An image of the mini benchmark is (drawing, scene seed), so a data set is a list of pairs and nobody stores
pictures. `Scenes` hold plain numbers in units of the picture (x, y in [-1, 1], y down), so they can be
rendered at any size: 128 px for the data sets, 48 px in pre-training.
"""
from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike

CAMERA = 3.0              # distance of the camera, in half picture widths: sets the strength of perspective
# Two-colour settings with a horizon ("worlds"): name -> (upper colour, lower colour), RGB in [0, 1].
WORLDS = {
    "grass": ((.62, .80, .95), (.45, .70, .30)), "beach": ((.55, .80, .95), (.93, .85, .62)),
    "sea": ((.70, .85, .97), (.16, .42, .68)), "snow": ((.72, .80, .88), (.96, .97, .99)),
    "desert": ((.97, .86, .62), (.85, .62, .35)), "night": ((.05, .06, .18), (.12, .13, .22)),
    "sunset": ((.98, .62, .38), (.45, .25, .42)), "room": ((.93, .90, .83), (.62, .45, .32)),
    "forest": ((.42, .58, .42), (.20, .33, .18)), "street": ((.78, .80, .83), (.45, .45, .47)),
}
SIDES = (0.45, 0.95)      # side of the object / side of the picture, log-uniform
CUT = 0.3                 # at most this share of the object's width, and of its height, lies outside …
CUT_OFTEN = 0.2           # … in this share of the scenes
OTHERS = 4                # most smaller drawings around the object
BACKGROUNDS = ("white", "plain", "gradient", "noise", "stripes", "checks", "dots", "world")


@dataclass
class Scenes:
    """Parameters of N scenes: arrays of length N, angles in degrees."""

    roll: np.ndarray            # in-plane rotation of the object
    yaw: np.ndarray             # turn about the vertical axis
    pitch: np.ndarray           # turn about the horizontal axis
    scale: np.ndarray           # side of the drawing / side of the picture
    x: np.ndarray               # centre of the object, in [-1, 1]
    y: np.ndarray
    background: np.ndarray      # index into BACKGROUNDS
    world: np.ndarray           # index into WORLDS, used where the background is "world"
    colours: np.ndarray         # [N, 2, 3] the background's two colours
    phase: np.ndarray           # [N, 3] angle, frequency and offset of gradients and patterns, in [0, 1]
    field: np.ndarray           # [N, 3, 6, 6] coarse noise of the "noise" background
    brightness: np.ndarray      # factor on the finished picture
    contrast: np.ndarray        # factor about mid grey
    light: np.ndarray           # [N, 2] direction and strength of a side light
    camera: np.ndarray          # [N, 3] camera yaw, pitch, roll: moves background and object together
    texture: np.ndarray         # strength of a pattern printed on the object, 0 = none
    ink: np.ndarray             # [N, 3] colour of the line in monochrome drawings
    noise: np.ndarray           # standard deviation of pixel noise
    seed: np.ndarray            # of the pixel noise
    others: np.ndarray          # [N, OTHERS, 4] scale (0: none), x, y, roll of smaller drawings around it
    which: np.ndarray           # [N, OTHERS] in [0, 1): which drawings these are, as a share of all there are

    def __len__(self) -> int:
        return len(self.roll)

    def __getitem__(self, rows: list[int] | slice | np.ndarray) -> Scenes:
        """The scenes `rows`: a list, slice or mask, not a single number."""
        return Scenes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @staticmethod
    def concatenate(parts: list[Scenes]) -> Scenes:
        """The scenes of all `parts`, in their order."""
        return Scenes(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Scenes)})


def sample(rng: np.random.RandomState, mono: np.ndarray, hardness: float = 1.0,
           sides: tuple[float, float] = SIDES) -> Scenes:
    """Draw len(mono) scenes.

    rng: numpy RandomState, whose streams are frozen, so a seed gives the same scene everywhere.
    mono: bool [N], the drawing is black ink: then ink and paper are kept apart in brightness.
    hardness: 0 = upright, large and in the middle .. 1 = the benchmark's spread of pose, scale, place, light.
    sides: smallest and largest side of the object, as a share of the picture's.
    """
    n, h = len(mono), hardness
    kind = rng.choice(len(BACKGROUNDS), n, p=np.array([.25, .18, .17, .06, .04, .03, .03, .24]))
    world = rng.randint(len(WORLDS), size=n)
    colours = rng.uniform(0.15, 1.0, (n, 2, 3))
    grey = rng.uniform(size=n) < 0.3
    colours[grey] = colours[grey].mean(-1, keepdims=True)
    colours[:, 1] = 0.5 * (colours[:, 0] + colours[:, 1])             # patterns stay softer than objects
    is_world = kind == BACKGROUNDS.index("world")
    colours[is_world] = (np.array(list(WORLDS.values()))[world] + rng.normal(0, .03, (n, 2, 3)))[is_world]
    colours[kind == 0] = rng.uniform(0.94, 1.0, (n, 1, 1))[kind == 0]
    ink = rng.uniform(0, 0.25, (n, 3)) * rng.uniform(size=(n, 1))
    chalk = mono & (rng.uniform(size=n) < 0.12)
    paper = mono & ~chalk
    colours[paper] = 0.72 + 0.28 * colours[paper]                     # dark ink on light paper …
    colours[chalk] = 0.30 * colours[chalk]                            # … or light chalk on a dark board
    ink[chalk] = 1 - ink[chalk]
    low, high = sides
    scale = high * (low / high) ** (h * rng.uniform(size=n))
    cut = CUT * rng.uniform(size=(n, 2)) * (rng.uniform(size=(n, 1)) < CUT_OFTEN)
    room = np.abs(1 - scale)[:, None] + 2 * scale[:, None] * cut         # of the centre, about the middle
    place = rng.uniform(-1, 1, (n, 2)) * room * h
    others, which = _sample_others(rng, scale, place)
    return Scenes(                                                   # evaluated, so drawn, from top to bottom
        roll=rng.normal(0, 8 * h, n), yaw=rng.normal(0, 14 * h, n), pitch=rng.normal(0, 10 * h, n),
        scale=scale, x=place[:, 0], y=place[:, 1], others=others, which=which,
        background=kind, world=world, colours=colours.clip(0, 1),
        phase=rng.uniform(size=(n, 3)), field=rng.uniform(size=(n, 3, 6, 6)),
        brightness=np.exp(rng.normal(0, .14 * h, n)), contrast=np.exp(rng.normal(0, .14 * h, n)),
        light=np.stack([rng.uniform(0, 2 * np.pi, n), np.abs(rng.normal(0, .16 * h, n))], 1),
        camera=np.zeros((n, 3)), texture=np.zeros(n), ink=ink,
        noise=np.abs(rng.normal(0, .015 * h, n)), seed=rng.randint(2**31 - 1, size=n))


def _sample_others(rng: np.random.RandomState, scale: np.ndarray, place: np.ndarray,
                   tries: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Up to OTHERS smaller drawings a scene, beside the object: the first of `tries` places where less than a
    tenth of its side lies over the object, or none. -> `Scenes.others` and `Scenes.which`."""
    n = len(scale)
    side = scale[:, None] * rng.uniform(0.3, 0.6, (n, OTHERS))
    xy = rng.uniform(-1, 1, (n, OTHERS, tries, 2))
    away = np.abs(xy - place[:, None, None]).max(-1)                                   # [n, OTHERS, tries]
    free = away > (scale[:, None] + 0.8 * side)[..., None]
    first = free.argmax(-1)
    xy = np.take_along_axis(xy, first[..., None, None], 2)[:, :, 0]
    there = free.any(-1) & (np.arange(OTHERS) < rng.randint(OTHERS + 1, size=n)[:, None])
    roll = rng.normal(0, 12, (n, OTHERS))
    others = np.concatenate([(side * there)[..., None], xy, roll[..., None]], -1)
    return others, rng.uniform(size=(n, OTHERS))


def _homography(*pose: ArrayLike) -> torch.Tensor:
    """[N, 3, 3] map from the drawing's plane (side 2, centred) to picture coordinates, by perspective.

    pose: yaw, pitch, roll, scale, x, y, each of length N.
    """
    yaw, pitch, roll, scale, x, y = (torch.as_tensor(np.asarray(v), dtype=torch.float64) for v in pose)
    a, b, c = torch.deg2rad(yaw), torch.deg2rad(pitch), torch.deg2rad(roll)
    one, zero = torch.ones_like(a), torch.zeros_like(a)

    def matrix(*rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.stack([torch.stack(r, -1) for r in rows], -2)

    r = (matrix((c.cos(), -c.sin(), zero), (c.sin(), c.cos(), zero), (zero, zero, one))
         @ matrix((one, zero, zero), (zero, b.cos(), -b.sin()), (zero, b.sin(), b.cos()))
         @ matrix((a.cos(), zero, a.sin()), (zero, one, zero), (-a.sin(), zero, a.cos())))
    z = r[:, 2] * scale[:, None]
    return matrix((r[:, 0, 0] * scale, r[:, 0, 1] * scale, x), (r[:, 1, 0] * scale, r[:, 1, 1] * scale, y),
                  (z[:, 0] / CAMERA, z[:, 1] / CAMERA, one))


def _grid(homography: torch.Tensor, size: int) -> torch.Tensor:
    """Sampling grid [N, size, size, 2]: where each pixel lies in the plane that `homography` maps from."""
    steps = (torch.arange(size, dtype=torch.float64) + 0.5) * 2 / size - 1
    yy, xx = torch.meshgrid(steps, steps, indexing="ij")
    points = torch.stack([xx, yy, torch.ones_like(xx)], -1).reshape(-1, 3)             # [S*S, 3]
    plane = points @ torch.linalg.inv(homography).mT                                   # [N, S*S, 3]
    return (plane[..., :2] / plane[..., 2:].clamp_min(1e-6)).reshape(-1, size, size, 2).float()


def _pattern(kind: str, s: Scenes, size: int) -> torch.Tensor:
    """The mix m(x, y) in [0, 1] of a background's two colours, [N, 1, size, size]."""
    steps = (torch.arange(size, dtype=torch.float32) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    phase = torch.as_tensor(s.phase, dtype=torch.float32)[:, :, None, None]
    angle, frequency, offset = 6.2832 * phase[:, 0], 4 + 8 * phase[:, 1], phase[:, 2]  # [N, 1, 1]
    if kind == "world":
        return (16 * (y - 0.1 - 0.5 * offset)).sigmoid()[:, None]
    u = x * angle.cos() + y * angle.sin()
    if kind == "gradient":
        return (u + 1.42)[:, None] / 2.84
    wave = torch.sin(frequency * u + 6.2832 * offset)
    if kind == "stripes":
        return (8 * wave).sigmoid()[:, None]
    wave = wave * torch.sin(frequency * (y * angle.cos() - x * angle.sin()))
    return (8 * (wave if kind == "checks" else wave - 0.6)).sigmoid()[:, None]


def backgrounds(s: Scenes, size: int) -> torch.Tensor:
    """Backgrounds [N, 3, size, size] in [0, 1]: two colours mixed by a pattern, or by soft noise.

    In "noise" the noise is the mix, channel by channel; in "world" a little of it is added.
    """
    first, second = torch.as_tensor(s.colours, dtype=torch.float32)[..., None, None].unbind(1)
    out = first.repeat(1, 1, size, size)
    for code in np.unique(s.background):
        kind = BACKGROUNDS[code]
        if kind in ("white", "plain"):
            continue
        rows = np.flatnonzero(s.background == code)
        a, b = first[rows], second[rows]
        if kind in ("noise", "world"):
            field = F.interpolate(torch.as_tensor(s.field[rows], dtype=torch.float32), (size, size),
                                  mode="bicubic", align_corners=False)                 # [n, 3, size, size]
        mix = 2 * field - 1 if kind == "noise" else _pattern(kind, s[rows], size)
        out[rows] = a + (b - a) * mix + (0.12 * (field - 0.5) if kind == "world" else 0)
    return out.clamp_(0, 1)


def _posed(drawings: torch.Tensor, grid: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Premultiplied drawings [N, 4, D, D] at `grid` [N, S, S, 2], without aliasing -> [N, 4, S, S].

    A small object (`scale` [N]) is sampled from a reduced copy.
    """
    size, full = grid.shape[1], drawings.shape[-1]
    wanted = scale * size                                                              # px the object covers
    out = drawings.new_zeros(len(drawings), 4, size, size)
    levels = torch.tensor([full, full * 3 // 4, full // 2, full // 3, full // 4, full // 6, full // 8])
    level = (wanted[:, None] * 1.15 < levels).sum(1).clamp(1, len(levels)) - 1
    level = torch.where(wanted * 1.15 >= full, 0, level)
    for k in level.unique().tolist():
        rows = level == k
        source = drawings[rows]
        if k > 0:
            source = F.interpolate(source, (int(levels[k]),) * 2, mode="area")
        out[rows] = F.grid_sample(source, grid[rows], mode="bilinear", padding_mode="zeros",
                                  align_corners=False)
    return out


def render(drawings: torch.Tensor, mono: np.ndarray, scenes: Scenes, size: int = 128,
           others: torch.Tensor | None = None) -> torch.Tensor:
    """Pictures [N, 3, size, size] in [0, 1].

    drawings: [N, 4, D, D] RGBA in [0, 1], not premultiplied.
    mono: bool [N], replace the colour by the scene's ink.
    others: [N, OTHERS, 4, D, D], the smaller drawings behind the object; None: there are none.
    """
    picture = backgrounds(scenes, size)
    still = np.zeros(len(scenes))
    for k in range(OTHERS):
        rows = np.flatnonzero(scenes.others[:, k, 0])
        if others is not None and len(rows):
            side, x, y, roll = scenes.others[rows, k].T
            pose = still[rows], still[rows], roll, side, x, y
            picture[rows] = _pasted(picture[rows], _inked(others[rows, k], mono[rows], scenes[rows]), pose)
    drawings = _inked(drawings, mono, scenes)
    if scenes.texture.any():
        drawings = torch.cat([_textured(drawings[:, :3], scenes), drawings[:, 3:]], 1)
    picture = _pasted(picture, drawings, (scenes.yaw, scenes.pitch, scenes.roll, scenes.scale, scenes.x,
                                          scenes.y))
    if scenes.camera.any():
        yaw, pitch, roll = scenes.camera.T
        view = _grid(_homography(yaw, pitch, roll, still + 1, still, still), size)
        picture = F.grid_sample(picture, view, mode="bilinear", padding_mode="reflection",
                                align_corners=False)
    return _lit(picture, scenes).clamp(0, 1)


def _inked(drawings: torch.Tensor, mono: np.ndarray, s: Scenes) -> torch.Tensor:
    """Drawings [N, 4, D, D] with the scene's ink for colour where `mono`."""
    rows = torch.as_tensor(mono)
    if not rows.any():
        return drawings
    ink = torch.as_tensor(s.ink, dtype=torch.float32)[:, :, None, None]
    return torch.cat([torch.where(rows[:, None, None, None], ink, drawings[:, :3]), drawings[:, 3:]], 1)


def _pasted(pictures: torch.Tensor, drawings: torch.Tensor, pose: tuple) -> torch.Tensor:
    """Drawings [N, 4, D, D], posed (yaw, pitch, roll, scale, x, y), in front of pictures [N, 3, S, S]."""
    colour, alpha = drawings[:, :3], drawings[:, 3:]
    scale = torch.as_tensor(pose[3], dtype=torch.float32)
    grid = _grid(_homography(*pose), pictures.shape[-1])
    posed = _posed(torch.cat([colour * alpha, alpha], 1), grid, scale)
    return posed[:, :3] + (1 - posed[:, 3:]) * pictures


def _textured(colour: torch.Tensor, s: Scenes) -> torch.Tensor:
    """Print a checkered two-colour pattern onto the drawing, mixed in by `texture`."""
    steps = torch.linspace(-1, 1, colour.shape[-1])
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    frequency = torch.as_tensor(6 + 12 * s.phase[:, 1], dtype=torch.float32)[:, None, None]
    m = (6 * torch.sin(frequency * x) * torch.sin(frequency * y)).sigmoid()[:, None]
    colours = np.stack([s.ink, 1 - s.ink], 1) * 0.8 + 0.1                              # [N, 2, 3]
    first, second = torch.as_tensor(colours, dtype=torch.float32)[..., None, None].unbind(1)
    tint = torch.as_tensor(s.field[:, :, 0, 0], dtype=torch.float32)[:, :, None, None]
    pattern = (first + (second - first) * m) * 0.5 + 0.5 * tint
    strength = torch.as_tensor(s.texture, dtype=torch.float32)[:, None, None, None]
    return colour + strength * (pattern - colour)


@cache
def _grain() -> np.ndarray:
    """One table of pixel noise [3, 256, 256]; a scene reads the window that its seed names."""
    return np.random.RandomState(0).standard_normal((3, 256, 256)).astype(np.float32)


def _lit(picture: torch.Tensor, s: Scenes) -> torch.Tensor:
    """Side light, brightness, contrast and pixel noise."""
    n, _, size, _ = picture.shape
    steps = torch.linspace(-1, 1, size)
    direction, strength, brightness, contrast = (torch.as_tensor(v, dtype=torch.float32)[:, None, None, None]
                                                 for v in (*s.light.T, s.brightness, s.contrast))
    shade = 1 + strength * (steps * direction.cos() + steps[:, None] * direction.sin())    # [N, 1, S, S]
    picture = picture * (shade * brightness * contrast) + (0.5 - 0.5 * contrast)
    for i in np.flatnonzero(s.noise > 0):
        row, column = (int(s.seed[i]) // k % (256 - size) for k in (1, 997))
        window = _grain()[:, row:row + size, column:column + size]
        picture[i] += float(s.noise[i]) * torch.from_numpy(window)
    return picture
