"""The full benchmark and its ten transfer sets on look-alikes: labels, names, and what errors tell."""
import json

import numpy as np
import pytest
import torch
from lookalikes import (
    AIRCRAFT,
    NUMBERS,
    TRANSFER,
    aircraft,
    change,
    label_of,
    official_lists,
    right_pictures,
    split_json,
    transfer_pictures,
    transfer_set,
)

import minipsync as mp
from minipsync.data.checks import fingerprint
from minipsync.data.imagenet import FOLDERS
from minipsync.data.splits import SPLITS

OFFICIAL = ["oxford_pets", "stanford_cars", "sun397", "ucf101"]
DRAWN = sorted(TRANSFER.keys() - set(OFFICIAL))


def expect_small(monkeypatch, name):
    """Let the registry expect the look-alike of a transfer set: its counts and class names."""
    names = [n.replace("_", " ") for n in (TRANSFER[name][0] if name in TRANSFER else AIRCRAFT)]
    sizes = tuple(len(NUMBERS[part]) * len(names) for part in ("train", "val", "test"))
    change(monkeypatch, name, sizes=sizes, classes=len(names), names=fingerprint(names))
    return names


def test_names_and_counts_are_those_of_the_papers():
    assert set(mp.benchmark("full").names) == {
        "imagenet", "v2", "sketch", "a", "r", *TRANSFER, "fgvc_aircraft",
        *(n for n in mp.benchmark("mini").names if n.startswith("pug_"))}
    assert {n: f.sizes["test"] for n, f in FOLDERS.items() if f.sizes} == {
        "imagenet": 50_000, "v2": 10_000, "sketch": 50_889, "a": 7_500, "r": 30_000}
    assert {n: (s.classes, s.sizes[2]) for n, s in SPLITS.items()} == {
        "caltech101": (100, 2465), "oxford_pets": (37, 3669), "stanford_cars": (196, 8041), "dtd": (47, 1692),
        "oxford_flowers": (102, 2463), "food101": (101, 30_300), "fgvc_aircraft": (100, 3333),
        "sun397": (397, 19_850), "eurosat": (10, 8100), "ucf101": (101, 3783)}
    a_type = {"oxford_pets": "pet", "oxford_flowers": "flower", "fgvc_aircraft": "aircraft"}
    assert {n: s.template for n, s in SPLITS.items()} == {
        **{n: "a photo of a {}." for n in ("caltech101", "stanford_cars", "sun397")},
        **{n: f"a photo of a {{}}, a type of {what}." for n, what in a_type.items()},
        "food101": "a photo of {}, a type of food.", "dtd": "{} texture.",
        "eurosat": "a centered satellite photo of {}.", "ucf101": "a photo of a person doing {}."}
    assert [n for n, s in SPLITS.items() if s.read_test] == OFFICIAL


@pytest.mark.parametrize("name", SPLITS)
def test_splits_give_labels_and_names(name, tmp_path, monkeypatch):
    transfer_set(tmp_path, name)
    names = expect_small(monkeypatch, name)
    bench = mp.benchmark("full", root=tmp_path)
    seen = set()
    for part, ks in NUMBERS.items():
        data = bench.dataset(name, part)
        assert data.class_names == names and data.split == part and right_pictures(data)
        assert np.array_equal(np.bincount(data.labels), np.full(len(names), len(ks)))
        seen |= {data.image_id(i) for i in range(len(data))}
    assert len(seen) == 6 * len(names)
    assert data.templates == list(dict.fromkeys([SPLITS[name].template, "a photo of a {}."]))


def test_the_order_of_the_file_is_kept(tmp_path):
    """Dassl's few-shot sample depends on it (METHODS 3.4)."""
    transfer_set(tmp_path, "dtd")
    rows = json.loads((tmp_path / "dtd/split_zhou_DescribableTextures.json").read_text())["train"]
    with pytest.warns(UserWarning):
        data = mp.benchmark("full", root=tmp_path, partial=True).dataset("dtd", "train")
    assert [data.image_id(i) for i in range(len(data))] == [row[0] for row in rows]
    assert list(data.labels)[:2] == [1, 0]


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_test_split_equals_the_file(name, tmp_path, monkeypatch):
    """Without CoOp's file the test split comes from the data set's own lists; train cannot."""
    transfer_set(tmp_path / "with", name)
    transfer_pictures(tmp_path / "without" / SPLITS[name].folder / SPLITS[name].images[0], name)
    expect_small(monkeypatch, name)
    bench = mp.benchmark("full", root=tmp_path / "without")
    with pytest.raises(FileNotFoundError, match=f"{SPLITS[name].file}.*or the official lists.*is missing"):
        bench.dataset(name)
    official_lists(tmp_path / "without" / SPLITS[name].folder, name)
    mine, theirs = bench.dataset(name), mp.benchmark("full", root=tmp_path / "with").dataset(name)
    assert mine.class_names == theirs.class_names and right_pictures(mine)
    assert {mine.image_id(i): y for i, y in enumerate(mine.labels)} == \
           {theirs.image_id(i): y for i, y in enumerate(theirs.labels)}
    with pytest.raises(FileNotFoundError, match="drew train and val .*split='test' is the official one"):
        bench.dataset(name, "train")


@pytest.mark.parametrize("name", DRAWN)
def test_a_random_test_split_is_not_drawn_anew(name, tmp_path):
    transfer_pictures(tmp_path / SPLITS[name].folder / SPLITS[name].images[0], name)
    with pytest.raises(FileNotFoundError, match=f"{SPLITS[name].file}.*train, val and test.*be compared"):
        mp.benchmark("full", root=tmp_path, partial=True).dataset(name)


def test_aircraft_lists(tmp_path, monkeypatch):
    aircraft(tmp_path / "fgvc_aircraft")
    expect_small(monkeypatch, "fgvc_aircraft")
    bench, lists = mp.benchmark("full", root=tmp_path), tmp_path / "fgvc_aircraft/images_variant_val.txt"
    assert bench.dataset("fgvc_aircraft").class_names == ["707-320", "Boeing 717", "F-16A/B"]
    lists.write_text(lists.read_text().replace("Boeing 717", "Boeing 718"))
    with pytest.raises(ValueError, match="'Boeing 718', which is none of the 3"):
        bench.dataset("fgvc_aircraft", "val")
    (tmp_path / "fgvc_aircraft/variants.txt").unlink()
    with pytest.raises(FileNotFoundError, match="variants.txt.*fgvc-aircraft"):
        bench.dataset("fgvc_aircraft")


def test_counts_and_names_are_verified(tmp_path, monkeypatch):
    transfer_set(tmp_path, "food101")
    bench = mp.benchmark("full", root=tmp_path)
    with pytest.raises(ValueError, match="list of test has 4 pictures, expected 30300; 2 class names.*"
                                         "expected 101 with 9c0eeb5a368baacb.*split_zhou_Food101.json from"):
        bench.dataset("food101")
    expect_small(monkeypatch, "food101")
    assert len(bench.dataset("food101")) == 4
    change(monkeypatch, "food101", names=fingerprint(["cheesecake", "cheese plate"]))       # TPT's order
    with pytest.raises(ValueError, match="names or their order differ"):
        bench.dataset("food101")


def test_missing_pictures_are_told_or_left_out(tmp_path, monkeypatch):
    transfer_set(tmp_path, "eurosat")
    expect_small(monkeypatch, "eurosat")
    base = tmp_path / "eurosat/2750"
    (base / "Forest/Forest_4.jpg").unlink()
    with pytest.raises(ValueError, match="1 of 6 pictures of test are not in '.*2750': 'Forest/Forest_4"):
        mp.benchmark("full", root=tmp_path).dataset("eurosat")
    with pytest.warns(UserWarning, match="1 of 6"):
        data = mp.benchmark("full", root=tmp_path, partial=True).dataset("eurosat")
    assert len(data) == 5 and right_pictures(data) and list(np.bincount(data.labels)) == [2, 1, 2]
    assert [tuple(each) for each in data.left_out] == [("Forest/Forest_4.jpg", "missing", 1, 1)]
    assert data.accounts == {"found": 5, "left_out": {"missing": 1}}
    for file in base.glob("*/*_[45].jpg"):
        file.unlink()
    with pytest.raises(ValueError, match="6 of 6 pictures of test"):
        mp.benchmark("full", root=tmp_path, partial=True).dataset("eurosat")


def test_a_link_to_nowhere_is_a_picture_that_cannot_be_read(tmp_path, monkeypatch):
    transfer_set(tmp_path, "eurosat")
    expect_small(monkeypatch, "eurosat")
    for name, target in (("Forest/Forest_4.jpg", "nowhere.jpg"), ("SeaLake/SeaLake_4.jpg", "SeaLake_4.jpg")):
        (tmp_path / "eurosat/2750" / name).unlink()
        (tmp_path / "eurosat/2750" / name).symlink_to(target)
    data = mp.benchmark("full", root=tmp_path).dataset("eurosat")
    with pytest.warns(UserWarning, match="2 of 6 images"):
        result = mp.evaluate(Guess(data.class_names), data, progress=False)
    assert sorted(image for image, _ in result.skipped) == ["Forest/Forest_4.jpg", "SeaLake/SeaLake_4.jpg"]


@pytest.mark.parametrize("file", ["variants.txt", "images_variant_test.txt"])
def test_blank_lines_in_lists(file, tmp_path, monkeypatch):
    """A line's number is a label in one of them."""
    aircraft(tmp_path / "fgvc_aircraft")
    expect_small(monkeypatch, "fgvc_aircraft")
    text = (tmp_path / "fgvc_aircraft" / file).read_text().replace("\n", "\n\n", 1)
    (tmp_path / "fgvc_aircraft" / file).write_text(text)
    bench = mp.benchmark("full", root=tmp_path)
    if file == "variants.txt":
        with pytest.raises(ValueError, match="line 2 of .*variants.txt' is blank"):
            bench.dataset("fgvc_aircraft")
    else:
        assert right_pictures(bench.dataset("fgvc_aircraft"))


def test_pictures_where_tpt_keeps_them(tmp_path, monkeypatch):
    transfer_pictures(tmp_path / "oxford_pets", "oxford_pets")
    split_json(tmp_path / "oxford_pets/split_zhou_OxfordPets.json", "oxford_pets")
    expect_small(monkeypatch, "oxford_pets")
    assert right_pictures(mp.benchmark("full", root=tmp_path).dataset("oxford_pets"))


def two_names(parts):
    parts["val"][0][2] = "dotted"


def gap(parts):
    for part in parts.values():
        for row in part:
            row[1] *= 2


def escape(parts):
    parts["test"][0][0] = "../../secret.jpg"


def short_row(parts):
    del parts["train"][1][1]


def no_part(parts):
    del parts["val"]


@pytest.mark.parametrize("damage, told", [
    (two_names, "calls label 1 both"), (gap, "has the labels 0, 2"), (escape, "leads out of the folder"),
    (short_row, "cannot be read"), (no_part, "cannot be read.*val"), (None, "cannot be read.*JSONDecode")])
def test_damaged_split_files(damage, told, tmp_path):
    transfer_set(tmp_path, "dtd")
    file = tmp_path / "dtd/split_zhou_DescribableTextures.json"
    parts = json.loads(file.read_text())
    if damage:
        damage(parts)
    file.write_text(json.dumps(parts)[:None if damage else 100])
    with pytest.raises(ValueError, match=f"DescribableTextures.json' .*{told}.*fetch it again"):
        mp.benchmark("full", root=tmp_path, partial=True).dataset("dtd")


# ---- the benchmark ----
def test_missing_folders_tell_where_they_should_be(tmp_path):
    bench = mp.benchmark("full", root=tmp_path)
    for name in bench.names:
        with pytest.raises(FileNotFoundError) as error:
            bench.dataset(name)
        place = SPLITS[name].folder if name in SPLITS else FOLDERS[name].places["test"][0]
        assert repr(str(tmp_path / place)) in str(error.value) and repr(name) in str(error.value)
    with pytest.raises(FileNotFoundError, match="nowhere.*caltech-101"):
        mp.benchmark("full", root=tmp_path / "nowhere")


def test_unknown_names_and_splits(tmp_path):
    bench = mp.benchmark("full", root=tmp_path)
    with pytest.raises(ValueError, match="eurosat.*folder:/path.*Did you mean 'sketch'"):
        bench.dataset("sketchh")
    with pytest.raises(ValueError, match="'v2' has no split 'train'.*test"):
        bench.dataset("v2", "train")
    with pytest.raises(ValueError, match="'dtd' has no split 'all'.*train, val, test"):
        bench.dataset("dtd", "all")


def test_root_comes_from_the_call_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("MINIPSYNC_ROOT", raising=False)
    with pytest.raises(ValueError, match="root='/path'.*MINIPSYNC_ROOT"):
        mp.benchmark("full").dataset("v2")
    monkeypatch.setenv("MINIPSYNC_ROOT", str(tmp_path))
    assert mp.benchmark("full").root == tmp_path
    with pytest.raises(ValueError, match="takes no root"):
        mp.benchmark("mini", root=tmp_path)


def test_settings_differ_on_fine_grained_sets_only():
    bench = mp.benchmark("full")
    assert bench.settings("promptalign", "dtd") == {"fine_grained": True}
    assert bench.settings("maple_tpt", "ucf101") == {"fine_grained": True}
    assert bench.settings("tpt", "eurosat") == {"augmix": True}
    assert bench.settings("promptalign") == bench.settings("promptalign", "sketch") == {}
    assert bench.settings("maple", "dtd") == bench.settings("maple.fit", "dtd") == {}
    assert bench.settings("tpt", "pug_worlds") == {}


def test_base_and_novel(tmp_path, monkeypatch):
    transfer_set(tmp_path, "caltech101")
    expect_small(monkeypatch, "caltech101")
    base, novel = mp.benchmark("full", root=tmp_path).dataset("caltech101").halves()
    assert base.class_names == ["face", "leopard", "motorbike"]
    assert novel.class_names == ["accordion", "airplane"]
    assert sorted(set(novel.labels)) == [0, 1] and len(base) + len(novel) == 10
    assert label_of(novel[0][0]) == novel[0][1] + 3


class Guess:
    """A method that says class 0 of everything."""

    name, config = "guess", None

    def __init__(self, class_names):
        self.class_names = class_names

    def predict(self, images):
        return torch.eye(len(self.class_names))[[0] * len(images)]


def test_a_broken_picture_is_listed_as_skipped(tmp_path, monkeypatch):
    transfer_set(tmp_path, "dtd")
    expect_small(monkeypatch, "dtd")
    file = tmp_path / "dtd/images/banded/x_0004.jpg"
    file.write_bytes(file.read_bytes()[:30])
    data = mp.benchmark("full", root=tmp_path).dataset("dtd")
    with pytest.warns(UserWarning, match="1 of 4 images"):
        result = mp.evaluate(Guess(data.class_names), data, progress=False)
    assert [image for image, _ in result.skipped] == ["banded/x_0004.jpg"] and result.n == 3


@pytest.mark.parametrize("name, file, content, told", [
    ("stanford_cars", "devkit/cars_meta.mat", slice(0, 150), "cars_meta.mat' cannot be read.*fetch it again"),
    ("stanford_cars", "cars_test_annos_withlabels.mat", slice(0, -40), "withlabels.mat' cannot be read"),
    ("stanford_cars", "devkit/cars_meta.mat", b"<html>", "cars_meta.mat' cannot be read.*fetch it again"),
    ("ucf101", "ucfTrainTestlist/classInd.txt", b"1\n", "lists of 'ucf101'.*damaged.*fetch them again"),
    ("oxford_pets", "annotations/test.txt", b"Abyssinian_201\n", "lists of 'oxford_pets'.*damaged")])
def test_damaged_official_lists(name, file, content, told, tmp_path, monkeypatch):
    transfer_pictures(tmp_path / SPLITS[name].folder, name)
    official_lists(tmp_path / SPLITS[name].folder, name)
    expect_small(monkeypatch, name)
    path = tmp_path / SPLITS[name].folder / file
    path.write_bytes(path.read_bytes()[content] if isinstance(content, slice) else content)
    with pytest.raises(ValueError, match=told):
        mp.benchmark("full", tmp_path).dataset(name)
