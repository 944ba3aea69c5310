"""The mini benchmark's promises (families never mix, the same pictures everywhere); folders of one's own."""
import json

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import largest, resampling

import minipsync as mp
from minipsync.data.faults import KINDS, corrupted
from minipsync.data.mini import ASSETS, LEVELS, NAMES, OOD, PUG, TRAIN, TRANSFER, TRANSFER_STYLES
from minipsync.data.sampling import balanced_name, long_tailed, tail_counts
from minipsync.data.scenes import OTHERS, SIDES, WORLDS, Scenes, render, sample

bench = mp.benchmark("mini")
N_CLASSES = {"imagenet": 200, "v2": 200, "sketch": 200, "r": 200, "a": 200, "c": 200, "val": 200,
             "animals": 43, "plants": 16, "dishes": 23, "vehicles": 31, "sports": 22, "instruments": 21,
             "clothing": 14, "fruit": 15, "faces": 86, "signs": 51}


def styles_of(data):
    return {data.image_id(i).split("/")[3] for i in range(len(data))}


def test_every_listed_data_set_exists_with_its_classes():
    assert set(bench.names) == set(NAMES) and len(TRANSFER) == len(PUG) == 10
    for name in bench.names:
        data = bench.dataset(name)
        assert len(data.class_names) == N_CLASSES.get(name, 50), name
        assert len(set(data.class_names)) == len(data.class_names)
        assert len(data) == len({data.image_id(i) for i in range(len(data))}) > 0
        assert all(t.count("{}") == 1 for t in data.templates) and data.templates[0] == "a photo of a {}."
        if name != "a":
            assert set(data.labels) == set(range(len(data.class_names))), name


def test_families_are_held_out():
    family = {s["name"]: s["family"] for s in bench.index["styles"]}
    role = {s["name"]: s["role"] for s in bench.index["styles"]}
    by_role = {r: {family[s] for s in family if role[s] == r} for r in ("train", "validation", "test")}
    assert not by_role["train"] & by_role["test"]
    assert not by_role["train"] & by_role["validation"]
    assert not by_role["validation"] & by_role["test"]
    trained = {family[s] for s in TRAIN}
    assert {family[s] for s in styles_of(bench.dataset("imagenet", "train"))} <= trained
    assert trained <= by_role["train"]
    assert "twemoji" not in trained
    for name in ("v2", "sketch", "r", "a", *(f"pug_{f}" for f in PUG)):
        assert {role[s] for s in styles_of(bench.dataset(name))} == {"test"}, name
    assert {role[s] for s in styles_of(bench.dataset("val"))} == {"validation"}
    assert styles_of(bench.dataset("imagenet")) == styles_of(bench.dataset("c")) == {"twemoji"}


def test_pretraining_reads_no_test_or_validation_family():
    from data_scripts.mini_sources import ICON_SETS, STYLES
    learnt = {s.family for s in STYLES + ICON_SETS if s.role == "train"}
    assert learnt.isdisjoint(s.family for s in STYLES if s.role != "train")
    roles = {s.name: s.role for s in STYLES if s.name != "fluent-colour"}
    assert roles == {s["name"]: s["role"] for s in bench.index["styles"]}


def test_classes_of_transfer_sets_are_not_in_imagenet():
    known = set(bench.dataset("imagenet").class_names)
    for name in TRANSFER:
        assert known.isdisjoint(bench.dataset(name).class_names)


def test_no_class_lacks_a_needed_drawing():
    for style in bench.styles.values():
        if style["name"] not in ("fxemoji", "streamline"):
            assert style["missing"] == []
        assert Image.open(ASSETS / style["file"]).size[0] == bench.index["size"] * bench.index["columns"]
    for row in range(0, len(bench.index["classes"]), 37):
        for style in ("noto", *TRANSFER_STYLES, "openmoji-black", "fluent-contrast"):
            assert (bench.drawing(style, row)[..., 3] > 128).mean() > 0.02, (style, row)


def test_a_picture_depends_on_its_id_alone():
    data = bench.dataset("sketch")
    again = mp.benchmark("mini").dataset("sketch")
    for i in (0, 417, 999):
        assert np.array_equal(np.asarray(data[i][0]), np.asarray(again[i][0]))
    assert data[0][0].size == (128, 128) and data[0][0].mode == "RGB"
    assert not np.array_equal(np.asarray(data[0][0]), np.asarray(data[1][0]))
    part = data.subset([417, 0])
    assert part.image_id(0) == data.image_id(417)
    assert np.array_equal(np.asarray(part[1][0]), np.asarray(data[0][0]))


def test_pictures_are_the_ones_that_were_published():
    """Coarse means of some pictures, so that a change of the generator cannot go unnoticed."""
    known = json.loads((ASSETS / "fingerprints.json").read_text())
    for name, rows in known.items():
        data = bench.dataset(name)
        for i, mean in rows.items():
            assert np.asarray(data[int(i)][0], float).mean((0, 1)) == pytest.approx(mean, abs=0.5), (name, i)


def test_sweeps_change_one_factor_only():
    for factor in PUG:
        data = bench.dataset(f"pug_{factor}")
        levels = len(WORLDS) if factor == "worlds" else LEVELS
        assert len(data) == 50 * levels
        keys = [data.image_id(i) for i in range(levels)]
        scenes = [bench._pug_scene(factor, k, "fluent-3d") for k in keys]
        first = vars(scenes[0])
        changed = {f for f in first if any(not np.array_equal(first[f], getattr(s, f)) for s in scenes)}
        expected = {"worlds": {"world", "colours"}}.get(factor, {PUG[factor][0]})
        assert changed == expected, factor
        assert not np.array_equal(np.asarray(data[0][0]), np.asarray(data[levels - 1][0]))


def test_hard_scenes_come_from_test_families_and_are_not_those_of_other_sets():
    data = bench.dataset("a")
    listed = json.loads((ASSETS / "hard.json").read_text())
    assert len(data) == len(listed["images"]) >= 400
    assert all(data.image_id(i).startswith("a/test/") for i in range(len(data)))


def test_transfer_sets_are_split_by_scene():
    for name in TRANSFER:
        train, val, test = (bench.dataset(name, split) for split in ("train", "val", "test"))
        assert styles_of(train) == styles_of(test) == set(TRANSFER_STYLES)
        assert styles_of(val) == {"noto-v1"}
        assert np.array_equal(np.bincount(train.labels), np.full(len(test.class_names), 16))
        assert np.array_equal(np.bincount(val.labels), np.full(len(test.class_names), 24))
    train, val, test = (bench.dataset("clothing", split) for split in ("train", "val", "test"))
    ids = [{data.image_id(i) for i in range(len(data))} for data in (train, val, test)]
    assert not ids[0] & ids[1] and not ids[0] & ids[2] and not ids[1] & ids[2]
    pixels = [{data[i][0].tobytes() for i in range(len(data))} for data in (train, test)]
    assert not pixels[0] & pixels[1]                   # the same drawings, never the same picture


def test_training_split_has_sixteen_scenes_per_class():
    data = bench.dataset("imagenet", "train")
    assert np.array_equal(np.bincount(data.labels), np.full(200, 16))
    assert data.split == "train"


@pytest.mark.parametrize("name, split, told", [("sketchh", "test", "sketch"), ("sketch", "train", "imagenet"),
                                               ("imagenet", "val", "train")])
def test_unknown_names_list_the_known(name, split, told):
    with pytest.raises(ValueError, match=told):
        bench.dataset(name, split)


def test_unknown_benchmark():
    with pytest.raises(ValueError, match="'big'.*mini"):
        mp.benchmark("big")


# ---- scenes ----
def test_rendering_a_batch_equals_rendering_one_by_one():
    mono = np.array([False, True, False, True, False])
    scenes = sample(np.random.RandomState(3), mono)
    scenes.camera[2] = 30, 10, 45
    scenes.texture[4] = 0.7
    drawings = torch.rand(5, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    others = torch.rand(5, OTHERS, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    together = render(drawings, mono, scenes, 48, others)
    for i in range(5):
        alone = render(drawings[i:i + 1], mono[i:i + 1], scenes[[i]], 48, others[i:i + 1])
        assert largest(together[i], alone[0]) < resampling(64)
    assert together.min() >= 0 and together.max() <= 1


def test_an_upright_full_size_scene_shows_the_drawing():
    drawing = torch.zeros(1, 4, 64, 64)
    drawing[:, 0, :, :32], drawing[:, 2, :, 32:], drawing[:, 3] = 1, 1, 1          # left red, right blue
    scene = sample(np.random.RandomState(0), np.array([False]), hardness=0)
    scene.scale[:] = 1.0
    picture = render(drawing, np.array([False]), scene, 64)[0]
    assert picture[0, 32, 8] > 0.95 and picture[2, 32, 8] < 0.05 and picture[2, 32, 56] > 0.95


def test_object_angles_turn_the_object():
    drawing = torch.zeros(1, 4, 64, 64)
    drawing[:, 3, 24:40, :] = 1                                                    # a black horizontal bar
    scene = sample(np.random.RandomState(0), np.array([False]), hardness=0)
    scene.background[:], scene.colours[:] = 0, 1.0

    def ink(**change):
        for field, value in change.items():
            getattr(scene, field)[:] = value
        return 1 - render(drawing, np.array([False]), scene, 64)[0].mean(0)

    flat = ink()
    assert flat.sum(1).max() > 3 * flat.sum(0).max() / 2 and flat.sum() > 500
    turned = ink(roll=90)
    assert turned.sum(0).max() == pytest.approx(float(flat.sum(1).max()), rel=0.05)
    assert ink(roll=0, yaw=60).sum() < 0.7 * flat.sum()
    assert ink(yaw=0, scale=0.3).sum() < 0.15 * flat.sum()


def test_scenes_can_be_cut_and_joined():
    scenes = sample(np.random.RandomState(1), np.zeros(6, bool))
    joined = Scenes.concatenate([scenes[[0, 1]], scenes[[2, 3, 4, 5]]])
    assert all(np.array_equal(getattr(joined, f), getattr(scenes, f)) for f in vars(scenes))


def test_objects_are_small_and_large_anywhere_and_cut_off_at_times():
    s = sample(np.random.RandomState(0), np.zeros(4000, bool))
    low, high = SIDES
    assert low <= s.scale.min() < low * 1.01 and high * 0.99 < s.scale.max() <= high
    # log-uniform: each third of the logarithmic range holds a third of the scenes (6 standard deviations)
    share = np.histogram(np.log(s.scale), np.linspace(np.log(low), np.log(high), 4))[0] / 4000
    assert np.abs(share - 1 / 3).max() < 6 * (2 / 9 / 4000) ** 0.5
    outside = np.maximum(0, np.maximum(np.abs(s.x), np.abs(s.y)) + s.scale - 1) / (2 * s.scale)
    assert 0.05 < (outside > 1e-9).mean() < 0.2 and 0.25 < outside.max() <= 0.3
    assert np.abs([s.x, s.y]).max() > 0.7 and np.abs([s.x.mean(), s.y.mean()]).max() < 0.05


def test_other_drawings_are_smaller_and_beside_the_object():
    s = sample(np.random.RandomState(0), np.zeros(1000, bool))
    side, x, y, _ = np.moveaxis(s.others, -1, 0)                                   # [N, OTHERS]
    there = side > 0
    assert set(there.sum(1)) == set(range(OTHERS + 1)) and (side <= 0.6 * s.scale[:, None]).all()
    away = np.maximum(np.abs(x - s.x[:, None]), np.abs(y - s.y[:, None]))
    assert (away > s.scale[:, None] + 0.8 * side)[there].all()


def test_other_drawings_are_behind_the_object_and_none_is_no_change():
    drawings = torch.zeros(1, 4, 64, 64)
    drawings[:, 0], drawings[:, 3] = 1, 1                                          # a red square
    others = torch.zeros(1, OTHERS, 4, 64, 64)
    others[:, :, 2:] = 1                                                           # blue squares
    scene, mono = sample(np.random.RandomState(0), np.array([False]), hardness=0), np.array([False])
    scene.scale[:], scene.others[:] = 0.5, 0
    plain = render(drawings, mono, scene, 64)
    assert torch.equal(render(drawings, mono, scene, 64, others), plain)
    scene.others[0, 1] = 0.2, 0.5, 0.0, 0.0                         # half of it under the red one
    red, _, blue = render(drawings, mono, scene, 64, others)[0, :, 32]             # the row through both
    assert red[46] > 0.9 and blue[46] < 0.1 and blue[51] > 0.9 and red[51] < 0.1


@pytest.mark.parametrize("name, group", [("v2", "imagenet"), ("animals", "animals")])
def test_other_drawings_are_no_labels_of_the_set(name, group):
    strangers = bench.strangers(group)
    names = {bench.index["classes"][row]["name"] for row in strangers}
    assert names.isdisjoint(bench.dataset(name).class_names) and len(strangers) > 300


# ---- corruptions ----
def test_corrupted_pictures_are_those_of_the_source():
    data, source = bench.dataset("c"), bench.dataset("imagenet")
    assert len(data) == len(source) and np.array_equal(data.labels, source.labels)
    kinds = [data.image_id(i).rpartition("/")[2] for i in range(len(data))]
    assert set(kinds) == set(KINDS) and max(map(kinds.count, KINDS)) - min(map(kinds.count, KINDS)) <= 1
    for i in (0, 501, 999):
        plain, faulty = (np.asarray(d[i][0], float) for d in (source, data))
        assert plain.shape == faulty.shape and np.abs(plain - faulty).mean() > 1
        assert np.array_equal(np.asarray(data[i][0]), faulty)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_follows_its_seed(kind):
    picture = bench.dataset("imagenet")[3][0]
    once, again, other = (np.asarray(corrupted(picture, kind, seed)) for seed in (1, 1, 2))
    assert np.array_equal(once, again) and not np.array_equal(once, np.asarray(picture))
    assert np.array_equal(once, other) == (kind in ("palette", "blur", "contrast", "jpeg"))


def test_what_corruptions_do():
    x = np.zeros((32, 32, 3), np.uint8)
    x[:, 16:] = 200
    picture = Image.fromarray(x)
    assert set(np.unique(np.asarray(corrupted(picture, "palette", 0)))) == {0, 255}    # of 0, 127.5 and 255
    impulse = np.asarray(corrupted(picture, "impulse", 0)).astype(int)
    hit = (impulse != x).any(-1)
    assert 0.08 < hit.mean() < 0.26 and set(np.unique(impulse[hit])) == {0, 255}       # 17 %, some unseen
    assert np.abs(np.asarray(corrupted(picture, "motion", 0)).astype(int).mean() - x.mean()) < 6
    with pytest.raises(ValueError, match="'fog'.*expected one of noise"):
        corrupted(picture, "fog", 0)


# ---- a long tail ----
def test_a_long_tail_has_shares_of_one_by_rank():
    data = bench.dataset("clothing", scenes=30)                                    # 14 classes, 90 each
    part = long_tailed(data, 200)
    counts = sorted(np.bincount(part.labels, minlength=14).tolist(), reverse=True)
    exact = 200 / np.arange(1, 15) / sum(1 / r for r in range(1, 15))
    assert counts == tail_counts(200, 14) and sum(counts) == len(part) == 200
    assert np.abs(np.array(counts) - exact).max() < 1
    assert part.class_names == data.class_names and part.fingerprint == data.fingerprint
    ids = [part.image_id(i) for i in range(200)]
    assert len(set(ids)) == 200
    assert ids == [long_tailed(data, 200).image_id(i) for i in range(200)]
    shuffled = data.subset(np.random.RandomState(0).permutation(len(data)))
    assert ids == [long_tailed(shuffled, 200).image_id(i) for i in range(200)]
    assert ids != [long_tailed(data, 200, seed=1).image_id(i) for i in range(200)]
    half = np.bincount(part.subset(range(100)).labels, minlength=14)               # mixed, not class by class
    assert (half > 0).sum() > 10


def test_a_long_tail_says_what_is_missing():
    with pytest.raises(ValueError, match=r"has 9 pictures of class .* needs 62: ask for a smaller limit"):
        long_tailed(bench.dataset("clothing"), 200)
    with pytest.raises(ValueError, match="limit is 0"):
        long_tailed(bench.dataset("clothing"), 0)
    few = long_tailed(bench.dataset("clothing"), 29)
    assert len(few) == 29 and max(np.bincount(few.labels)) == 9


@pytest.mark.parametrize("name, classes", [("v2", 200), ("r", 200), ("clothing", 14)])
def test_a_benchmark_makes_as_many_scenes_as_a_long_tail_needs(name, classes):
    sample = bench.long_tailed(name, 300)
    counts = np.bincount(sample.labels, minlength=classes).tolist()
    assert sorted(counts, reverse=True) == tail_counts(300, classes)
    assert sample.name == f"{name}_longtail" and balanced_name(sample.name) == name
    assert bench.settings("maple_tpt", sample.name) == bench.settings("maple_tpt", name)
    assert bench.build("zero_shot", sample).class_names == sample.class_names
    with pytest.raises(ValueError, match="limit is 0"):
        bench.long_tailed(name, 0)


def test_more_scenes_of_a_drawing_begin_with_the_published_ones():
    data, more = bench.dataset("v2"), bench.dataset("v2", scenes=7)
    published, all_ids = ({d.image_id(i) for i in range(len(d))} for d in (data, more))
    assert len(more) == 1400 and published < all_ids
    assert np.array_equal(np.asarray(data[5][0]), np.asarray(more[7][0]))    # the second class' first scene
    for name, split in (("a", "test"), ("animals", "train"), ("pug_worlds", "test")):
        with pytest.raises(ValueError, match="scenes=3.*imagenet, v2"):
            bench.dataset(name, split, scenes=3)


# ---- folders ----
def paint(path, colour, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (20, 30), colour).save(path)


def test_folder_reads_class_folders(tmp_path):
    paint(tmp_path / "hot_dog/b.png", "red")
    paint(tmp_path / "hot_dog/deep/a.jpg", "red")
    paint(tmp_path / "ant/1.png", (0, 0, 0, 0), "RGBA")
    data = mp.folder(tmp_path)
    assert data.class_names == ["ant", "hot dog"] and list(data.labels) == [0, 1, 1]
    assert data[0][0].getpixel((3, 3)) == (255, 255, 255)                         # transparent is white
    assert {data.image_id(i) for i in range(3)} == {"ant/1.png", "hot_dog/b.png", "hot_dog/deep/a.jpg"}
    (tmp_path / "classnames.txt").write_text("ant a small ant\nhot_dog sausage in a bun\n", encoding="utf-8")
    assert mp.folder(tmp_path).class_names == ["a small ant", "sausage in a bun"]
    assert mp.folder(tmp_path, ["x", "y"]).class_names == ["x", "y"]


def test_folder_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        mp.folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no sub-folders"):
        mp.folder(tmp_path)
    paint(tmp_path / "ant/1.png", "red")
    paint(tmp_path / "bee/1.png", "red")
    with pytest.raises(ValueError, match="3 class names for 2 folders"):
        mp.folder(tmp_path, ["a", "b", "c"])
    with pytest.raises(ValueError, match="bee"):
        mp.folder(tmp_path, {"ant": "ant"})


def test_base_and_novel_halves_are_relabelled():
    data = bench.dataset("fruit")
    novel = data.of_classes(range(8, 15))
    assert novel.class_names == data.class_names[8:] and set(novel.labels) == set(range(7))
    assert novel.image_id(0) == data.image_id(int(np.flatnonzero(data.labels == 8)[0]))


def test_out_of_domain_sets_offer_templates_of_their_own():
    assert set(OOD) >= {"v2", "sketch", "r", "val"}
    assert any("sketch" in t for t in bench.dataset("sketch").templates)


@pytest.mark.parametrize("places", [None, [], [("a.png", None, None)]])
def test_pictures_that_nothing_tells_how_to_read_are_refused(places):
    count = len(places or ())
    with pytest.raises(ValueError, match=f"'mine': {count} places of pictures but 2 images, .*`read`"):
        mp.Dataset("mine", ["cat", "dog"], [0, 1], ["a", "b"], None, places=places)
