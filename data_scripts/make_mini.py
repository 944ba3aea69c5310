"""Build the mini benchmark: `python -m data_scripts.make_mini`.

About three minutes on one core; npm is needed. Reads the openly licensed emoji drawings of `mini_sources`,
aligns them to one list of classes, cuts the classes into data sets and writes `minipsync/assets/mini/`: one
lossless WebP sheet per style and `index.json`.
`--drawings FILE` names a second file, with every drawing of the training families (several thousand that no
data set contains), which is what `train_mini_clip` learns from.
Packages and renderer have pinned versions, so the sheets' pixels are the same on every machine; `--check`
renders them anew and compares. Another version of the renderer is refused.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .mini_sources import ICON_SETS, SIZE, STYLES, drawings, emoji_list

ASSETS = Path(__file__).resolve().parent.parent / "minipsync/assets/mini"
RENDERER = "0.5.0"                               # of resvg-py: others round pixels in other ways
COLUMNS = 25                                     # drawings per row of a sheet
# styles that every class must have
NEEDED = tuple(s.name for s in STYLES if s.name not in ("fxemoji", "streamline", "fluent-colour"))

# Unicode sub-groups -> what they feed. SPLIT: every other class to `imagenet`, the rest to a transfer set.
SPLIT = {"animals": ("animal-mammal", "animal-bird", "animal-amphibian", "animal-reptile", "animal-marine",
                     "animal-bug"),
         "plants": ("plant-flower", "plant-other", "food-vegetable"),
         "dishes": ("food-prepared", "food-asian", "food-sweet"),
         "vehicles": ("transport-ground", "transport-water", "transport-air"),
         "sports": ("sport", "game", "arts-crafts", "award-medal"),
         "instruments": ("musical-instrument", "tool", "science", "medical", "household", "writing"),
         "clothing": ("clothing",)}
WHOLE = {"fruit": ("food-fruit",),
         "faces": ("face-smiling", "face-affection", "face-tongue", "face-hand",
                   "face-neutral-skeptical", "face-sleepy", "face-unwell", "face-hat", "face-glasses",
                   "face-concerned", "face-negative", "face-costume"),
         "signs": ("transport-sign", "warning", "religion", "zodiac")}
IMAGENET = ("drink", "dishware", "place-geographic", "place-building", "place-religious", "place-other",
            "place-map", "event", "sound", "music", "phone", "computer", "light-video", "book-paper", "money",
            "mail", "office", "lock", "other-object", "sky-weather", "body-parts")
N_IMAGENET = 200

# Classes left out after a look at the contact sheet: two names for what is drawn alike, or drawings that do
# not show the name.
EXCLUDED = {
    "sun behind small cloud", "sun behind large cloud", "sun behind rain cloud", "waxing crescent moon",
    "waning crescent moon", "first quarter moon", "last quarter moon", "waxing gibbous moon",
    "waning gibbous moon", "new moon face", "first quarter moon face", "last quarter moon face",
    "crescent moon", "night with stars", "cityscape at dusk", "sunrise over mountains", "bridge at night",
    "closed mailbox with raised flag", "open mailbox with raised flag", "open mailbox with lowered flag",
    "envelope with arrow", "incoming envelope", "inbox tray", "outbox tray", "open file folder",
    "tear-off calendar", "spiral calendar", "page with curl", "bookmark tabs", "rolled-up newspaper",
    "green book", "blue book", "orange book", "closed book", "open book", "euro banknote", "pound banknote",
    "yen banknote", "money with wings", "currency exchange", "chart increasing with yen", "chart decreasing",
    "round pushpin", "locked with pen", "locked with key", "unlocked", "muted speaker", "speaker low volume",
    "speaker medium volume", "mobile phone with arrow", "telephone receiver", "videocassette", "optical disk",
    "left speech bubble", "musical notes", "house with garden", "Japanese post office", "derelict house",
    "houses", "convenience store", "love hotel", "department store", "cloud with lightning",
    "cloud with snow", "cloud with lightning and rain", "closed umbrella", "umbrella", "umbrella on ground",
    "dim button", "bright button", "sun with face", "full moon face", "new moon", "full moon", "glowing star",
    "star", "milky way", "snow-capped mountain", "beach with umbrella", "Japanese dolls", "pine decoration",
    "red envelope", "admission tickets", "tanabata tree", "wind chime", "moon viewing ceremony",
    "carp streamer",
}
# (style, class): drawings that are wrong or show something else; they count as missing.
WRONG = {
    ("streamline", "map of Japan"), ("streamline", "turkey"),                    # the countries' flags
    ("fxemoji", "bow and arrow"), ("fxemoji", "sunglasses"),                     # a ribbon, a face with them
    ("fxemoji", "tram car"),                                                     # a black square
    ("mdi", "red apple"), ("mdi", "green apple"),                                # a company's sign
    ("mdi", "mouse face"), ("tabler", "mouse face"), ("phosphor", "mouse face"),
    ("game-icons", "mouse face"), ("lucide", "mouse face"),                      # the computer's mouse
    ("mdi", "national park"), ("mdi", "neutral face"), ("mdi", "restroom"),
    ("tabler", "face with medical mask"),
}


def choose(emoji, have) -> dict[str, list]:
    """{data set: [Emoji]} of the emoji that every style of NEEDED has, by `have` {style: hexcodes}.

    `imagenet` is thinned to N_IMAGENET classes evenly along CLDR order, after the splits have given theirs.
    """
    good = [e for e in emoji if all(e.hexcode in have[s] for s in NEEDED) and e.name not in EXCLUDED]
    sets: dict[str, list] = {}
    pool = [e for e in good if e.subgroup in IMAGENET]
    for name, subgroups in SPLIT.items():
        members = [e for e in good if e.subgroup in subgroups]
        pool, sets[name] = pool + members[0::2], members[1::2]
    for name, subgroups in WHOLE.items():
        sets[name] = [e for e in good if e.subgroup in subgroups]
    order = {e.hexcode: i for i, e in enumerate(emoji)}
    pool.sort(key=lambda e: order[e.hexcode])
    keep = np.linspace(0, len(pool) - 1, min(N_IMAGENET, len(pool))).round().astype(int)
    return {"imagenet": [pool[i] for i in keep], **sets}


def sheet(images: list[np.ndarray]) -> Image.Image:
    """Drawings [n] of [SIZE, SIZE, 4] -> one RGBA picture, COLUMNS per row."""
    rows = -(-len(images) // COLUMNS)
    canvas = np.zeros((rows * SIZE, COLUMNS * SIZE, 4), np.uint8)
    for i, image in enumerate(images):
        y, x = divmod(i, COLUMNS)
        canvas[y * SIZE:(y + 1) * SIZE, x * SIZE:(x + 1) * SIZE] = image
    return Image.fromarray(canvas)


def pixels(drawn: Image.Image) -> str:
    """16 hex digits for a sheet's pixels; the bytes of its file depend on the version of WebP."""
    return hashlib.sha256(np.asarray(drawn).tobytes()).hexdigest()[:16]


def differing(made: Path) -> list[str]:
    """The styles whose sheets in `made` have other pixels than those in the package."""
    def known(folder: Path) -> dict[str, str]:
        styles = json.loads((folder / "index.json").read_text(encoding="utf-8"))["styles"]
        return {style["name"]: style["pixels"] for style in styles}

    new = known(made)
    return [name for name, digest in known(ASSETS).items() if new.get(name) != digest]


def read_all(cache: Path):
    """-> emoji list, {style name: {hexcode: uint8 RGBA}} of all styles and icon sets."""
    emoji = emoji_list(cache)
    names = {e.hexcode: e.name for e in emoji}
    have = {}
    for style in tqdm(STYLES + ICON_SETS, desc="rendering styles"):
        have[style.name] = {h: a for h, _, a in drawings(style, emoji, cache)
                            if (style.name, names[h]) not in WRONG and a[..., 3].any()}
    return emoji, have


def tidy(image: np.ndarray, medium: str) -> np.ndarray:
    """Drop what nobody sees but WebP pays for, from a drawing uint8 [SIZE, SIZE, 4].

    That is colour under transparent pixels, all colour of black ink, the lowest three bits of the rest.
    """
    def quantised(x, levels):
        return (x.astype(np.float32) / 255 * levels).round() * 255 / levels

    ink = quantised(image[..., 3:], 15 if medium == "mono" else 31)
    black = np.zeros_like(ink).repeat(3, -1)
    colour = black if medium == "mono" else quantised(image[..., :3], 31) * (ink > 0)
    return np.concatenate([colour, ink], -1).round().astype(np.uint8)


def write(sets, have, out: Path) -> None:
    """One sheet per style over all classes, and index.json."""
    out.mkdir(parents=True, exist_ok=True)
    classes = [(name, e) for name, members in sets.items() for e in members]
    styles = [s for s in STYLES if s.name != "fluent-colour"]
    blank = np.zeros((SIZE, SIZE, 4), np.uint8)
    index = {"size": SIZE, "columns": COLUMNS, "renderer": f"resvg-py {RENDERER}", "styles": [],
             "classes": [
        {"name": e.name, "hexcode": e.hexcode, "keywords": list(e.keywords), "group": e.group,
         "subgroup": e.subgroup, "set": name} for name, e in classes]}
    for s in styles:
        missing = [i for i, (_, e) in enumerate(classes) if e.hexcode not in have[s.name]]
        drawn = sheet([tidy(have[s.name].get(e.hexcode, blank), s.medium) for _, e in classes])
        drawn.save(out / f"{s.name}.webp", lossless=True, quality=100, method=4)
        index["styles"].append({
            "name": s.name, "family": s.family, "role": s.role, "medium": s.medium, "licence": s.licence,
            "credit": s.credit, "source": s.package, "file": f"{s.name}.webp", "missing": missing,
            "pixels": pixels(drawn)})
    (out / "index.json").write_text(json.dumps(index, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def write_drawings(emoji, have, file: Path) -> None:
    """All drawings of all families but the test ones: uint8 [E, SIZE, SIZE, 4] a style, blank if missing."""
    training = [s for s in STYLES + ICON_SETS if s.role != "test"]    # validation too, for monitoring only
    file.parent.mkdir(parents=True, exist_ok=True)
    blank = np.zeros((SIZE, SIZE, 4), np.uint8)
    rows = [[e.hexcode, e.name, list(e.keywords), e.group, e.subgroup] for e in emoji]
    stacks = {s.name: np.stack([have[s.name].get(e.hexcode, blank) for e in emoji]) for s in training}
    np.savez_compressed(file, emoji=json.dumps(rows), **stacks)


def write_fingerprints() -> None:
    """Mean colours of the first, middle and last picture of every data set, for tests/data/test_data.py."""
    from minipsync.data.mini import Mini  # needs the files that this script makes
    known, bench = {}, Mini()
    for name in bench.names:
        data = bench.dataset(name)
        known[name] = {i: np.asarray(data[i][0], float).mean((0, 1)).round(2).tolist()
                       for i in (0, len(data) // 2, len(data) - 1)}
    (ASSETS / "fingerprints.json").write_text(json.dumps(known, indent=0), encoding="utf-8")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cache", type=Path, default=Path("build/npm"), help="where npm packages are unpacked")
    p.add_argument("--drawings", type=Path, default=Path("build/drawings.npz"),
                   help="all drawings of the training families")
    p.add_argument("--out", type=Path, default=ASSETS)
    p.add_argument("--fingerprints", action="store_true",
                   help="only note what the pictures look like now (after make_hard; a test compares)")
    p.add_argument("--check", action="store_true", help="write nothing; say which sheets would be others")
    args = p.parse_args()
    if args.fingerprints:
        return write_fingerprints()
    if (here := version("resvg-py")) != RENDERER:
        p.error(f"resvg-py {here} draws other pixels than {RENDERER}, with which the sheets were made: "
                f"pip install resvg-py=={RENDERER}")
    emoji, have = read_all(args.cache)
    sets = choose(emoji, have)
    if args.check:
        with tempfile.TemporaryDirectory() as made:
            write(sets, have, Path(made))
            others = differing(Path(made))
        raise SystemExit(f"other pixels: {', '.join(others)}" if others else None)
    write(sets, have, args.out)
    write_drawings(emoji, have, args.drawings)
    print({name: len(members) for name, members in sets.items()})
    size = sum(f.stat().st_size for f in args.out.iterdir())
    print(f"{args.out}: {size / 1e6:.1f} MB; {args.drawings}: {args.drawings.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
