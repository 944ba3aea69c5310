"""Draw the pictures of docs/mini.md: `python -m benchmarks.draw_mini`.

A contact sheet (classes by styles), one figure per data set of the mini benchmark, and the README picture.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

import minipsync as mp
from minipsync.data.mini import OOD, PUG, TRAIN, TRANSFER_STYLES
from minipsync.notebook import plots

OUT = Path(__file__).resolve().parent.parent / "docs/mini"
COLUMNS = 10


def save(figure, name: str) -> None:
    """A lossy WebP: a quarter of the PNG's size and no visible difference."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    OUT.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").save(OUT / f"{name}.webp", quality=85, method=6)


def by_class(data, styles, classes):
    """Rows: `styles`; columns: `classes`; the first scene of each."""
    place = {(int(data.labels[i]), data.image_id(i).split("/")[3]): i for i in reversed(range(len(data)))}
    return [[data[place[c, style]][0] if (c, style) in place else None for c in classes] for style in styles]


def contact_sheet(bench, rows) -> None:
    """Drawings as they are, classes down, styles across."""
    styles = list(bench.styles)
    images = [[None if row in bench.styles[style]["missing"] else Image.fromarray(bench.drawing(style, row))
               for style in styles] for row in rows]
    names = [bench.index["classes"][row]["name"] for row in rows]
    save(plots.contact_sheet(images, names, styles, size=0.75), "styles")


def data_set(bench, name: str) -> None:
    data = bench.dataset(name)
    if name.startswith("pug_"):
        levels = len(PUG[name.removeprefix("pug_")][2])
        classes = np.linspace(0, len(data.class_names) - 1, 3).astype(int)
        first = [int(np.flatnonzero(data.labels == c)[0]) for c in classes]
        images = [[data[i + k][0] for k in range(levels)] for i in first]
        figure = plots.contact_sheet(images, [data.class_names[c] for c in classes], range(1, levels + 1))
    elif name == "c":
        row = [int(np.flatnonzero(data.labels == c)[0]) for c in np.linspace(0, 199, 6).astype(int)]
        kinds = [[data.image_id(i + k).rpartition("/")[2] for i in row for k in range(2)]]
        source = bench.dataset("imagenet")
        images = [[each[i + k][0] for i in row for k in range(2)] for each in (source, data)]
        figure = plots.contact_sheet(images, ["imagenet", "c"], kinds[0])
    elif name == "a":
        rows = np.linspace(0, len(data) - 1, 2 * COLUMNS).astype(int).reshape(2, COLUMNS)
        names = [[data.class_names[data.labels[i]] for i in row] for row in rows]
        figure = plots.contact_sheet([[data[i][0] for i in rows[0]]], [""], names[0])
    else:
        classes = np.linspace(0, len(data.class_names) - 1, COLUMNS).astype(int)
        styles = OOD[name][0] if name in OOD else TRANSFER_STYLES
        figure = plots.contact_sheet(by_class(data, styles, classes), styles,
                                     [data.class_names[c] for c in classes])
    save(figure, name)


def overview(bench) -> None:
    """What is learned from, above, and what is tested on, below."""
    train = bench.dataset("imagenet", "train")
    classes = [c for c, name in enumerate(train.class_names) if len(name) < 10][::7][:COLUMNS]
    images, names = by_class(train, TRAIN[:3], classes), [f"source: {style}" for style in TRAIN[:3]]
    for name in ("imagenet", "v2", "sketch", "r"):
        images += by_class(bench.dataset(name), OOD[name][0], classes)
        names += [f"test: {name} ({style})" for style in OOD[name][0]]
    save(plots.contact_sheet(images, names, [train.class_names[c] for c in classes], size=0.8), "overview")


def main() -> None:
    bench = mp.benchmark("mini")
    overview(bench)
    contact_sheet(bench, bench.rows("imagenet")[::13])
    for name in bench.names:
        data_set(bench, name)
    print(f"{len(list(OUT.glob('*.webp')))} figures in {OUT}")


if __name__ == "__main__":
    main()
