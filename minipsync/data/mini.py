"""The mini benchmark: emoji by independent hands, set in scenes.

One class, many artists; the shift between artists is the shift of ImageNet → V2 / Sketch / R, small enough
for a laptop (docs/mini.md shows it; data_scripts/make_mini.py makes the files).
Families that the CLIP was trained on and families of the tests never mix: see `Mini.styles` (role "train",
"validation", "test"). Prompts for the shifted sets learn from training families alone. A transfer set is
split as the papers' are: few shots and test by the same artists, in different scenes.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cache, cached_property, partial
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from PIL import Image

from ..files.paths import read_text
from ..settings import did_you_mean
from .dataset import TEMPLATE, Dataset
from .faults import KINDS, corrupted
from .own import own_or_half
from .scenes import BACKGROUNDS, WORLDS, Scenes, render, sample
from .warm_light import LAMP, in_warm_light

ASSETS = Path(__file__).resolve().parent.parent / "assets/mini"
SIZE = 128                                         # px, side of a picture
SHOTS = 16                                         # training scenes per class
# training families without twemoji: the few shots of `imagenet`
TRAIN = ("noto", "emojione", "emojione-monotone", "fxemoji", "streamline", "noto-font")
# data set: (styles, scenes per class and style, further templates)
OOD = {
    "imagenet": (("twemoji",), 5, ("a flat icon of a {}.", "a sticker of a {}.")),
    "v2": (("fluent-flat",), 5, ("a flat icon of a {}.", "an icon of a {}.")),
    "sketch": (("openmoji-black",), 5,
               ("a sketch of a {}.", "a line drawing of a {}.", "a black and white drawing of a {}.")),
    "r": (("fluent-3d", "fluent-contrast", "openmoji"), 2,
          ("a 3d rendering of a {}.", "a cartoon of a {}.", "a drawing of a {}.")),
    "val": (("noto-v1",), 5, ("a cartoon of a {}.", "a picture of a {}.")),
}
# transfer set: what its classes are a type of
TRANSFER = {"animals": "animal", "plants": "plant", "dishes": "food", "vehicles": "vehicle", "sports": "game",
            "instruments": "tool", "clothing": "garment", "fruit": "fruit", "faces": "face", "signs": "sign"}
TRANSFER_STYLES, TRANSFER_SCENES = ("twemoji", "fluent-flat", "openmoji"), 3
VALIDATION, VALIDATION_SCENES = "noto-v1", 24      # split "val" of a transfer set: style, scenes per class
LEVELS = 9                                         # steps of a PUG sweep
PUG = {                                            # factor: (field of the scene, column or None, values)
    "camera_yaw": ("camera", 0, np.linspace(-56, 56, LEVELS)),
    "camera_pitch": ("camera", 1, np.linspace(-56, 56, LEVELS)),
    "camera_roll": ("camera", 2, np.linspace(-160, 160, LEVELS)),
    "object_yaw": ("yaw", None, np.linspace(-64, 64, LEVELS)),
    "object_pitch": ("pitch", None, np.linspace(-64, 64, LEVELS)),
    "object_roll": ("roll", None, np.linspace(-160, 160, LEVELS)),
    "object_scale": ("scale", None, np.geomspace(.14, .95, LEVELS)),
    "object_texture": ("texture", None, np.linspace(.2, 1, LEVELS)),
    "scene_light": ("brightness", None, np.geomspace(.12, 3.2, LEVELS)),
    "worlds": ("world", None, np.arange(len(WORLDS))),
}
PUG_STYLE, PUG_CLASSES = "fluent-3d", slice(0, None, 4)
NAMES = (*OOD, "a", "c", *(f"pug_{factor}" for factor in PUG), *TRANSFER)


@cache
def _fingerprint() -> str:
    """16 hex digits for the drawings, the lists of classes and how scenes are made."""
    digest = hashlib.sha256((ASSETS / "index.json").read_bytes())
    for file in sorted(ASSETS.glob("*.webp")):
        digest.update(file.read_bytes())
    probe = sample(np.random.RandomState(0), np.arange(64) % 4 == 0)
    for field in fields(Scenes):                       # rounded: processors differ in the last digit of exp
        digest.update(np.round(getattr(probe, field.name), 4).tobytes())
    digest.update(repr((SIZE, LAMP)).encode())
    return digest.hexdigest()[:16]


@cache
def _sheet(file: str) -> np.ndarray:
    """All drawings of one style, uint8 [rows * 64, columns * 64, 4]."""
    return np.asarray(Image.open(ASSETS / file).convert("RGBA"))


class ReadScenes:
    """index -> picture, drawn anew each time."""

    def __init__(self, bench: Mini, images: list[tuple[str, str, int]], scene: Callable[[str, str], Scenes]):
        self.bench, self.images, self.scene = bench, images, scene

    def __call__(self, i: int) -> Image.Image:
        key, style, row = self.images[i]
        return self.bench.picture(style, row, self.scene(key, style))


class ReadCorrupted(ReadScenes):
    """index -> the picture of `imagenet` that is named in the id, with the fault that the id ends with."""

    def __call__(self, i: int) -> Image.Image:
        key, style, row = self.images[i]
        stem, _, kind = key.rpartition("/")
        plain = self.scene("imagenet" + stem.removeprefix("c"), style)
        return corrupted(self.bench.picture(style, row, plain), kind, crc32(key.encode()))


class Mini:
    """The mini benchmark's data sets and its CLIP."""

    name = "mini"
    names = NAMES

    def __reduce__(self) -> tuple:
        return Mini, ()                            # another process reads its index itself

    @cached_property
    def index(self) -> dict:
        """assets/mini/index.json: its classes in the order of the drawings, and its styles."""
        return json.loads(read_text(ASSETS / "index.json"))

    @cached_property
    def styles(self) -> dict[str, dict]:
        """Style name -> its family, role, medium, licence, file and missing classes."""
        return {s["name"]: s for s in self.index["styles"]}

    def drawing(self, style: str, row: int) -> np.ndarray:
        """Drawing uint8 [64, 64, 4] of class `row` of the index by `style`."""
        side, (y, x) = self.index["size"], divmod(row, self.index["columns"])
        return _sheet(self.styles[style]["file"])[y * side:(y + 1) * side, x * side:(x + 1) * side]

    def rows(self, group: str) -> list[int]:
        """Rows of the index that belong to `imagenet` or to a transfer set."""
        return [i for i, c in enumerate(self.index["classes"]) if c["set"] == group]

    def strangers(self, group: str) -> list[int]:
        """Rows of the index whose classes are no labels of `group`'s data sets."""
        return [i for i, c in enumerate(self.index["classes"]) if c["set"] != group]

    def picture(self, style: str, row: int, scene: Scenes, size: int = SIZE) -> Image.Image:
        """Class `row` drawn by `style` in one scene (N = 1), as an RGB picture.

        The smaller drawings around it are by the same hand, of classes outside the row's own set of labels;
        the warm light (warm_light.py) is the same on all.
        """
        group = self.index["classes"][row]["set"]
        good = [r for r in self.strangers(group) if r not in self.styles[style]["missing"]]
        rows = [row, *(good[int(share * len(good))] for share in scene.which[0])]
        sheets = torch.from_numpy(np.stack([self.drawing(style, r) for r in rows]))
        drawings = sheets.permute(0, 3, 1, 2)[None].float() / 255
        mono = np.array([self.styles[style]["medium"] == "mono"])
        picture = in_warm_light(render(drawings[:, 0], mono, scene, size, drawings[:, 1:])[0])
        return Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())

    def scene(self, key: str, style: str) -> Scenes:
        """The scene that belongs to an image id."""
        mono = np.array([self.styles[style]["medium"] == "mono"])
        return sample(np.random.RandomState(crc32(key.encode())), mono)

    # ---- lists of pictures: (id, style, row); the id names data set, split, class, style and scene ----
    def _image(self, name: str, split: str, row: int, style: str, k: int) -> tuple[str, str, int]:
        return f"{name}/{split}/{self.index['classes'][row]['hexcode']}/{style}/{k}", style, row

    def _list(self, name: str, split: str, rows: list[int], styles: Iterable[str],
              scenes: int) -> list[tuple[str, str, int]]:
        """Every class, style and scene."""
        return [self._image(name, split, row, style, k)
                for row in rows for style in styles for k in range(scenes)]

    def _few_shot(self, name: str, rows: list[int]) -> list[tuple[str, str, int]]:
        """SHOTS scenes per class, over the styles of the data set in turn."""
        found = []
        for row in rows:
            artists = TRAIN if name == "imagenet" else TRANSFER_STYLES
            styles = [s for s in artists if row not in self.styles[s]["missing"]]
            found += [self._image(name, "train", row, styles[k % len(styles)], k) for k in range(SHOTS)]
        return found

    def _hard(self) -> list[tuple[str, str, int]]:
        """The scenes that data_scripts/make_hard.py chose for data set `a`."""
        row = {c["hexcode"]: i for i, c in enumerate(self.index["classes"])}
        ids = json.loads(read_text(ASSETS / "hard.json"))["images"]
        return [(i, i.split("/")[3], row[i.split("/")[2]]) for i in ids]

    def _corrupted(self) -> list[tuple[str, str, int]]:
        """The test pictures of `imagenet`, each with a fault: every one of KINDS equally often."""
        styles, scenes, _ = OOD["imagenet"]
        plain = self._list("c", "test", self.rows("imagenet"), styles, scenes)
        return [(f"{key}/{KINDS[i % len(KINDS)]}", style, row) for i, (key, style, row) in enumerate(plain)]

    def _pug(self, factor: str) -> list[tuple[str, str, int]]:
        """Every level of `factor`, class by class."""
        rows, levels = self.rows("imagenet")[PUG_CLASSES], len(PUG[factor][2])
        return self._list(f"pug_{factor}", "test", rows, (PUG_STYLE,), levels)

    def _pug_scene(self, factor: str, key: str, style: str) -> Scenes:
        """An upright scene that only `factor` changes: all else is the same at every level of one class."""
        stem, _, level = key.rpartition("/")
        scene = sample(np.random.RandomState(crc32(stem.encode())), np.array([False]), hardness=0.25)
        field, column, values = PUG[factor]
        if factor == "worlds":
            scene.background[:] = BACKGROUNDS.index("world")
            scene.colours[0] = list(WORLDS.values())[int(level)]
        target = getattr(scene, field)
        target[(slice(None), column) if column is not None else slice(None)] = values[int(level)]
        return scene

    def dataset(self, name: str, split: str = "test", scenes: int | None = None) -> Dataset:
        """The data set `name`, a half of it ("animals_base", "animals_novel"), or one's own: "folder:/path"
        (`folder`) and "wds:/path" (`webdataset`).

        split: "test"; "train" (16 scenes per class) for `imagenet` and the ten transfer sets; "val" for the
        transfer sets, 24 scenes per class by the artist of the validation domain, for choosing settings.
        scenes: how many of each drawing a test set has, where that is not the published number: the first
        ones are the same pictures. `long_tailed` needs many of the classes that it makes frequent.
        Raises ValueError for an unknown name or split, with the list of good ones, and for `scenes` where
        the number of scenes is fixed.
        """
        if (data := own_or_half(self, name, split)) is not None:
            return data
        if name not in NAMES:
            raise ValueError(f"unknown data set {name!r} of the mini benchmark, expected one of: "
                             f"{', '.join(NAMES)}, 'folder:/path' or 'wds:/path'.{did_you_mean(name, NAMES)}")
        good = ("test", "train", "val") if name in TRANSFER else ("test", *["train"] * (name == "imagenet"))
        if split not in good:
            raise ValueError(f"data set {name!r} has no split {split!r}, expected "
                             + " or ".join(map(repr, good)) + ("" if "train" in good
                                else f"; 'train' exists for: {', '.join(('imagenet', *TRANSFER))}"))
        group = name if name in TRANSFER else "imagenet"
        rows, templates, scene = self.rows(group), [TEMPLATE], self.scene
        if scenes is not None and (split != "test" or name not in (*OOD, *TRANSFER) or scenes < 1):
            raise ValueError(f"scenes={scenes} for the split {split!r} of {name!r}: expected 1 or more, "
                             f"and the test split of one of {', '.join((*OOD, *TRANSFER))}")
        reader = ReadScenes
        if split == "train":
            images = self._few_shot(name, rows)
        elif split == "val":
            images = self._list(name, split, rows, (VALIDATION,), VALIDATION_SCENES)
        elif name in OOD:
            styles, published, more = OOD[name]
            images, templates = self._list(name, split, rows, styles, scenes or published), [TEMPLATE, *more]
        elif name in TRANSFER:
            images = self._list(name, split, rows, TRANSFER_STYLES, scenes or TRANSFER_SCENES)
            templates = [TEMPLATE, f"a photo of a {{}}, a type of {TRANSFER[name]}."]
        elif name == "a":
            images = self._hard()
        elif name == "c":
            images, reader = self._corrupted(), ReadCorrupted
        else:
            factor = name.removeprefix("pug_")
            rows, images = rows[PUG_CLASSES], self._pug(factor)
            scene = partial(self._pug_scene, factor)
        label = {row: i for i, row in enumerate(rows)}
        return Dataset(name, [self.index["classes"][row]["name"] for row in rows],
                       [label[row] for *_, row in images], [key for key, *_ in images],
                       reader(self, images, scene), templates, split, _fingerprint(), "mini")
