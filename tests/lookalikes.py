"""The full benchmark's folders in miniature: a few pictures a class, annotations in the real files' formats.

    python tests/lookalikes.py /tmp/look        all 25 data sets there; use them with --partial

A picture is of one colour, which its true label decides, so that a test can see whose picture it got.
"""
import dataclasses
import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from minipsync.data.imagenet import FOLDERS
from minipsync.data.imagenet_classes import imagenet_classes
from minipsync.data.splits import SPLITS

PUG = ["Airliner", "Banana", "Bell_Pepper", "African_crocodile"]        # not in sorted order
# name: (class names in label order, picture of class c and number k)
TRANSFER = {
    "caltech101": (["face", "leopard", "motorbike", "accordion", "airplane"],
                   lambda c, k: "{}/image_{:04}.jpg".format(
                       ["Faces", "Leopards", "Motorbikes", "accordion", "airplanes"][c], k)),
    "oxford_pets": (["abyssinian", "american_bulldog", "german_shorthaired"],
                    lambda c, k: f"{['Abyssinian', 'american_bulldog', 'german_shorthaired'][c]}_{k}.jpg"),
    "stanford_cars": (["2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 smart fortwo Convertible"],
                      lambda c, k: f"cars_{'train' if k < 4 else 'test'}/{100 * c + k:05}.jpg"),
    "oxford_flowers": (["pink primrose", "hard-leaved pocket orchid", "colt's foot"],
                       lambda c, k: f"image_{100 * c + k:05}.jpg"),
    "food101": (["cheese_plate", "cheesecake"], lambda c, k: f"{['cheese_plate', 'cheesecake'][c]}/{k}.jpg"),
    "sun397": (["abbey", "outdoor apartment_building", "indoor apse"],
               lambda c, k: f"{['a/abbey', 'a/apartment_building/outdoor', 'a/apse/indoor'][c]}/sun_{k}.jpg"),
    "dtd": (["banded", "polka-dotted"], lambda c, k: f"{['banded', 'polka-dotted'][c]}/x_{k:04}.jpg"),
    "eurosat": (["Annual Crop Land", "Forest", "Sea or Lake"],
                lambda c, k: "{0}/{0}_{1}.jpg".format(["AnnualCrop", "Forest", "SeaLake"][c], k)),
    "ucf101": (["Apply_Eye_Makeup", "Handstand_Pushups", "Yo_Yo"],
               lambda c, k: "{}/v_{}_g{:02}_c01.jpg".format(*[("Apply_Eye_Makeup", "ApplyEyeMakeup"),
                                                              ("Handstand_Pushups", "HandStandPushups"),
                                                              ("Yo_Yo", "YoYo")][c], k)),
}
AIRCRAFT = ["707-320", "Boeing 717", "F-16A/B"]
NUMBERS = {"train": (0, 1, 2), "val": (3,), "test": (4, 5)}             # k of a class's pictures


def change(monkeypatch, name, **fields):
    """Let the registry expect a look-alike."""
    table = FOLDERS if name in FOLDERS else SPLITS
    monkeypatch.setitem(table, name, dataclasses.replace(table[name], **fields))


def right_pictures(data, indices=None):
    """Whether pictures (all, or `indices`) were painted for the labels that they have."""
    return all(label_of(data[i][0]) == data[i][1] for i in (range(len(data)) if indices is None else indices))


def colour(label):
    """RGB of the pictures of a label."""
    return label % 40 * 6, label // 40 * 9, 90


def label_of(image):
    """Which label a picture was painted for."""
    red, green, _ = np.asarray(image, float).mean((0, 1))
    return round(green / 9) * 40 + round(red / 6)


def paint(path, label):
    """Write a picture of `label`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(label))


def picture(label, cache={}):                                          # noqa: B006  (bytes are made once)
    """The bytes of a JPEG file of `label`."""
    if label not in cache:
        file = io.BytesIO()
        Image.new("RGB", (6, 4), colour(label)).save(file, "JPEG", quality=98, subsampling=0)
        cache[label] = file.getvalue()
    return cache[label]


def class_folders(folder, keys, each=1, suffix=".JPEG"):
    """`each` pictures in a folder for every key; the label is the key's place."""
    for label, key in enumerate(keys):
        for k in range(each):
            paint(folder / key / f"{k}{suffix}", label)
    (folder / "README.txt").write_text("not a class")


def transfer_pictures(folder, name):
    """All pictures of a transfer set below `folder`."""
    names, path = TRANSFER[name]
    for label in range(len(names)):
        for k in range(6):
            paint(folder / path(label, k), label)


def split_json(file, name):
    """CoOp's split file; classes are shuffled, as the order must not matter for labels."""
    names, path = TRANSFER[name]
    order = [*range(1, len(names)), 0]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({part: [[path(c, k), c, names[c]] for k in ks for c in order]
                                for part, ks in NUMBERS.items()}), encoding="utf-8")


def aircraft(folder):
    """variants.txt, images_variant_*.txt and the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "variants.txt").write_text("\n".join(AIRCRAFT) + "\n")
    for part, ks in NUMBERS.items():
        rows = [(f"{1000 * c + k:07}", name) for k in ks for c, name in reversed(list(enumerate(AIRCRAFT)))]
        (folder / f"images_variant_{part}.txt").write_text("".join(f"{i} {name}\n" for i, name in rows))
        for image, name in rows:
            paint(folder / f"images/{image}.jpg", AIRCRAFT.index(name))


def official_lists(folder, name):
    """The data set's own lists of its test split."""
    names, path = TRANSFER[name]
    test = [(path(c, k), c) for k in NUMBERS["test"] for c in reversed(range(len(names)))]
    if name == "oxford_pets":
        (folder / "annotations").mkdir(parents=True)
        (folder / "annotations/test.txt").write_text(
            "".join(f"{p.removesuffix('.jpg')} {c + 1} 1 1\n" for p, c in test))
    elif name == "stanford_cars":
        meta = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "smart fortwo Convertible 2012"]
        (folder / "devkit").mkdir(parents=True)
        savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(meta, dtype=object)})
        rows = np.array([(9, 8, c + 1, p.removeprefix("cars_test/")) for p, c in test],
                        dtype=[("bbox_x1", "O"), ("bbox_y1", "O"), ("class", "O"), ("fname", "O")])
        savemat(folder / "cars_test_annos_withlabels.mat", {"annotations": rows})
    elif name == "sun397":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ClassName.txt").write_text("/a/abbey\n/a/apartment_building/outdoor\n/a/apse/indoor\n")
        (folder / "Testing_01.txt").write_text("".join(f"/{p}\n" for p, _ in test))
    elif name == "ucf101":
        lists, keys = folder / "ucfTrainTestlist", ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]
        lists.mkdir(parents=True)
        (lists / "classInd.txt").write_text("".join(f"{i + 1} {key}\r\n" for i, key in enumerate(keys)))
        (lists / "testlist01.txt").write_text(
            "".join(f"{keys[c]}/{p.split('/')[1].removesuffix('.jpg')}.avi\n" for p, c in test))


def shard(path, members):
    """A tar file of (name, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


# ---- all of them -----------------------------------------------------------------------------------
def transfer_set(root, name):
    """A transfer set as CoOp's DATASETS.md lays it out: pictures, and the list of its splits."""
    spec = SPLITS[name]
    if name == "fgvc_aircraft":
        return aircraft(root / spec.folder)
    transfer_pictures(root / spec.folder / spec.images[0], name)
    split_json(root / spec.folder / spec.file, name)


def everything(root, shots=1):
    """All data sets of the full benchmark below `root`: one picture a class, `shots` to train on."""
    wnids, _, part = imagenet_classes()
    for spec in FOLDERS.values():
        keys = PUG if spec.classes == "pug" else [
            str(i) if spec.numbers else wnids[i] for i in part[spec.classes]]
        for split, places in spec.places.items():
            class_folders(root / places[0], sorted(keys) if spec.classes == "pug" else keys,
                          shots if split == "train" else 1)
    (root / "PUG_ImageNet/classnames.txt").write_text("".join(f"{k} {k.replace('_', ' ')}\n" for k in PUG))
    for name in SPLITS:
        transfer_set(root, name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/lookalikes.py FOLDER")
    everything(Path(sys.argv[1]))
