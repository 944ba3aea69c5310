"""Where the drawings of the mini benchmark come from: npm packages of openly licensed emoji.

They are aligned by code point or by name. One `Style` is one drawing hand in one medium; a `family` holds
styles that are near copies of each other (fluent flat and fluent 3D agree pixel by pixel in over 90 % of
cases), so training and test are separated by family, never by style.
"""
from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = 64          # px, side of a stored drawing
MARGIN = 2         # px kept free around it

EMOJIBASE, DATASOURCE = "emojibase-data@17.0.0", "emoji-datasource@16.0.0"


@dataclass(frozen=True)
class Style:
    """One drawing hand in one medium, and the package that has its drawings."""

    name: str
    package: str           # npm package with version
    family: str            # hold-out unit
    role: str              # "train" (pre-training and prompt training), "validation" or "test"
    medium: str            # "colour" or "mono" (black ink on transparent ground)
    licence: str           # SPDX
    credit: str
    reader: str = "iconify"    # key of READERS


STYLES = (
    Style("noto", "@iconify-json/noto@1.2.9", "noto", "train", "colour", "Apache-2.0", "Noto Emoji, Google"),
    Style("twemoji", "@iconify-json/twemoji@1.2.5", "twemoji", "train", "colour", "CC-BY-4.0",
          "Twemoji, Twitter"),
    Style("emojione", "@iconify-json/emojione@1.2.3", "emojione", "train", "colour", "CC-BY-4.0",
          "EmojiOne 2, EmojiOne"),
    Style("emojione-monotone", "@iconify-json/emojione-monotone@1.2.1", "emojione", "train", "mono",
          "CC-BY-4.0", "EmojiOne Monotone, EmojiOne"),
    Style("fxemoji", "@iconify-json/fxemoji@1.2.2", "fxemoji", "train", "colour", "Apache-2.0",
          "FxEmojis, Mozilla"),
    Style("streamline", "@iconify-json/streamline-emojis@1.2.4", "streamline", "train", "colour",
          "CC-BY-4.0", "Streamline Emojis, Streamline"),
    Style("noto-font", "@fontsource/noto-emoji@5.3.2", "noto-font", "train", "mono", "OFL-1.1",
          "Noto Emoji (monochrome font), Google", "font"),
    Style("noto-v1", "@iconify-json/noto-v1@1.2.5", "noto-v1", "validation", "colour", "Apache-2.0",
          "Noto Emoji v1, Google"),
    Style("fluent-3d", "@lobehub/fluent-emoji-3d@1.1.0", "fluent", "test", "colour", "MIT",
          "Fluent Emoji 3D, Microsoft", "webp"),
    Style("fluent-flat", "@iconify-json/fluent-emoji-flat@1.2.6", "fluent", "test", "colour", "MIT",
          "Fluent Emoji Flat, Microsoft"),
    Style("fluent-colour", "@iconify-json/fluent-emoji@1.2.7", "fluent", "test", "colour", "MIT",
          "Fluent Emoji, Microsoft"),
    Style("fluent-contrast", "@iconify-json/fluent-emoji-high-contrast@1.2.6", "fluent", "test", "mono",
          "MIT", "Fluent Emoji High Contrast, Microsoft"),
    Style("openmoji", "@iconify-json/openmoji@1.2.29", "openmoji", "test", "colour", "CC-BY-SA-4.0",
          "OpenMoji, HfG Schwäbisch Gmünd"),
    Style("openmoji-black", "openmoji@17.0.0", "openmoji", "test", "mono", "CC-BY-SA-4.0",
          "OpenMoji (black), HfG Schwäbisch Gmünd", "openmoji"),
)
# Icon sets that only pre-training sees: monochrome drawings by many more hands, matched to classes by name.
# None of them is committed.
ICON_SETS = tuple(Style(name, package, name, "train", "mono", licence, credit)
                  for name, package, licence, credit in (
    ("mdi", "@iconify-json/mdi@1.2.3", "Apache-2.0", "Material Design Icons, Pictogrammers"),
    ("tabler", "@iconify-json/tabler@1.2.41", "MIT", "Tabler Icons"),
    ("phosphor", "@iconify-json/ph@1.2.2", "MIT", "Phosphor Icons"),
    ("game-icons", "@iconify-json/game-icons@1.2.4", "CC-BY-3.0", "game-icons.net authors"),
    ("lucide", "@iconify-json/lucide@1.2.137", "ISC", "Lucide contributors"),
))


def fetch(package: str, cache: Path) -> Path:
    """Folder of the unpacked npm `package` ("name@version"), downloaded once with `npm pack`."""
    folder = cache / package.replace("/", "__").replace("@", "_")
    if not (folder / "package.json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["npm", "pack", "--silent", "--pack-destination", str(cache), package],
                              capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"npm pack {package} failed: {done.stderr.strip()[-300:]}. "
                               "Node's npm and its registry are needed once.")
        archive = cache / done.stdout.strip().splitlines()[-1]
        partial = folder.with_name(folder.name + ".part")          # a killed run leaves no half package
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(archive) as tar:
            members = [m for m in tar.getmembers() if m.isfile()]
            for m in members:
                m.name = m.name.split("/", 1)[1]
            tar.extractall(partial, members=members, filter="data")
        partial.rename(folder)
        archive.unlink()
    return folder


def squeeze(name: str) -> str:
    """'Ferris wheel' and 'ferris-wheel' -> 'ferriswheel'."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def bare(hexcode: str) -> str:
    """A code point sequence without variation selectors, lower case: '2615-FE0F' -> '2615'."""
    return "-".join(part for part in hexcode.lower().split("-") if part not in ("fe0f", "fe0e"))


@dataclass(frozen=True)
class Emoji:
    """A class of drawings: one emoji of Unicode's CLDR."""

    hexcode: str           # bare code point sequence
    char: str
    name: str              # CLDR English label
    keywords: tuple        # CLDR tags
    group: str
    subgroup: str
    aliases: frozenset     # squeezed names under which a style may know it


def emoji_list(cache: Path) -> list[Emoji]:
    """All emoji of CLDR without skin tones, flags and components, in CLDR order."""
    base, source = fetch(EMOJIBASE, cache), fetch(DATASOURCE, cache)
    rows = json.loads((base / "en/data.json").read_text(encoding="utf-8"))
    meta = json.loads((base / "meta/groups.json").read_text(encoding="utf-8"))
    shortcodes: dict[str, set] = {}
    for file in sorted((base / "en/shortcodes").glob("*.json")):
        for code, names in json.loads(file.read_text(encoding="utf-8")).items():
            shortcodes.setdefault(bare(code), set()).update([names] if isinstance(names, str) else names)
    for row in json.loads((source / "emoji.json").read_text(encoding="utf-8")):
        shortcodes.setdefault(bare(row["unified"]), set()).update([row["name"] or "", *row["short_names"]])
    found = []
    for row in sorted((r for r in rows if r.get("order") is not None), key=lambda r: r["order"]):
        group = meta["groups"].get(str(row.get("group")))
        if group in (None, "component", "flags"):
            continue
        code = bare(row["hexcode"])
        names = {squeeze(n) for n in shortcodes.get(code, set())} | {squeeze(row["label"])}
        aliases = frozenset(n for n in names if len(n) > 1)
        found.append(Emoji(code, row["emoji"], row["label"], tuple(row.get("tags", ())), group,
                           meta["subgroups"][str(row["subgroup"])], aliases))
    return found


def _square(image: Image.Image) -> np.ndarray:
    """Crop to the ink, centre on a SIZE x SIZE transparent square -> uint8 [SIZE, SIZE, 4]."""
    image = image.convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    if box is None:
        return np.zeros((SIZE, SIZE, 4), np.uint8)
    image = image.crop(box)
    room = SIZE - 2 * MARGIN
    scale = room / max(image.size)
    w, h = (max(1, round(s * scale)) for s in image.size)
    premultiplied = np.asarray(image, np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255     # so that resizing bleeds no hidden colours in
    channels = [Image.fromarray(premultiplied[..., c]) for c in range(4)]
    small = np.stack([np.asarray(c.resize((w, h), Image.Resampling.LANCZOS)) for c in channels], -1)
    alpha = small[..., 3:].clip(0, 255)
    colour = np.where(alpha > 0.5, small[..., :3] * 255 / np.maximum(alpha, 0.5), 0).clip(0, 255)
    out = np.zeros((SIZE, SIZE, 4), np.uint8)
    y, x = (SIZE - h) // 2, (SIZE - w) // 2
    out[y:y + h, x:x + w] = np.concatenate([colour, alpha], -1).round().astype(np.uint8)
    return out


def _svg(text: str) -> np.ndarray:
    import resvg_py
    png = bytes(resvg_py.svg_to_bytes(svg_string=text, width=2 * SIZE, height=2 * SIZE))
    return _square(Image.open(io.BytesIO(png)))


def _iconify(folder: Path, emoji: list[Emoji]):
    icons = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
    bodies = dict(icons["icons"])
    for alias, target in icons.get("aliases", {}).items():
        if set(target) == {"parent"} and target["parent"] in bodies:
            bodies.setdefault(alias, bodies[target["parent"]])
    codes = json.loads((folder / "chars.json").read_text(encoding="utf-8"))
    by_code = {bare(code): name for code, name in codes.items()}
    by_name: dict[str, str] = {}
    for name in bodies:
        by_name.setdefault(squeeze(name), name)
    for e in emoji:
        name = by_code.get(e.hexcode)
        if name not in bodies:
            names = (squeeze(e.name), *sorted(e.aliases))
            name = next((by_name[n] for n in names if n in by_name), None)
        if name is not None:
            icon = bodies[name]
            w, h = (icon.get(k, icons.get(k, 16)) for k in ("width", "height"))
            body = icon["body"].replace("currentColor", "#000000")
            box = f"{icon.get('left', 0)} {icon.get('top', 0)} {w} {h}"
            yield e.hexcode, name, _svg('<svg xmlns="http://www.w3.org/2000/svg" '
                                        'xmlns:xlink="http://www.w3.org/1999/xlink" '
                                        f'viewBox="{box}">{body}</svg>')


def _webp(folder: Path, emoji: list[Emoji]):
    files = {bare(f.stem): f for f in (folder / "assets").glob("*.webp")}
    for e in emoji:
        if e.hexcode in files:
            yield e.hexcode, files[e.hexcode].stem, _square(Image.open(files[e.hexcode]))


def _openmoji(folder: Path, emoji: list[Emoji]):
    files = {bare(f.stem): f for f in (folder / "black/svg").glob("*.svg")}
    for e in emoji:
        if e.hexcode in files:
            yield e.hexcode, files[e.hexcode].stem, _svg(files[e.hexcode].read_text(encoding="utf-8"))


def _font(folder: Path, emoji: list[Emoji]):
    from fontTools.ttLib import TTFont
    glyphs = {}
    for file in sorted((folder / "files").glob("*-400-normal.woff")):
        font = TTFont(file)
        face = ImageFont.truetype(io.BytesIO(_uncompressed(font)), 2 * SIZE)
        glyphs |= {code: face for code in font.getBestCmap()}
    for e in emoji:
        if "-" not in e.hexcode and int(e.hexcode, 16) in glyphs:
            canvas = Image.new("L", (4 * SIZE, 4 * SIZE))
            code = int(e.hexcode, 16)
            ImageDraw.Draw(canvas).text((SIZE, SIZE // 2), chr(code), fill=255, font=glyphs[code])
            if canvas.getbbox():
                ink = Image.new("RGBA", canvas.size, (0, 0, 0, 0))
                ink.putalpha(canvas)
                yield e.hexcode, e.hexcode, _square(ink)


def _uncompressed(font) -> bytes:
    font.flavor = None
    buffer = io.BytesIO()
    font.save(buffer)
    return buffer.getvalue()


READERS = {"iconify": _iconify, "webp": _webp, "openmoji": _openmoji, "font": _font}


def drawings(style: Style, emoji: list[Emoji], cache: Path):
    """Yield (hexcode, source name, uint8 RGBA [SIZE, SIZE, 4]) for every emoji that `style` draws."""
    yield from READERS[style.reader](fetch(style.package, cache), emoji)
