"""ImageNet, its variants and PUG on look-alike folders: labels, names, and what errors tell."""
import numpy as np
import pytest
from lookalikes import PUG, change, class_folders, paint, right_pictures
from timm.data import ImageNetInfo

import minipsync as mp
from minipsync.data.checks import fingerprint
from minipsync.data.imagenet_classes import imagenet_classes


@pytest.fixture(scope="module")
def wnids():
    return imagenet_classes()[0]


@pytest.fixture(scope="module")
def a_wnids(wnids):
    return [wnids[i] for i in imagenet_classes()[2]["a"]]


def test_imagenet_classes():
    wnids, names, part = imagenet_classes()
    assert list(wnids) == ImageNetInfo().label_names() == sorted(wnids) and len(set(wnids)) == 1000
    assert [i for i, n in enumerate(names) if n in ("missile", "sunglasses")] == [657, 744, 836, 837]
    assert (names[0], names[999], len(names)) == ("tench", "toilet paper", 1000)
    assert fingerprint(part["a"]) == "c956c2f04f2a0ba3" and fingerprint(part["r"]) == "66d45f31879983bd"
    assert len(part["a"]) == len(part["r"]) == 200 and len(set(part["a"]) & set(part["r"])) == 86


@pytest.mark.parametrize("name, place", [("imagenet", "imagenet/images/val"),
                                         ("sketch", "imagenet-sketch/images")])
def test_thousand_classes_by_wordnet_id(name, place, tmp_path, wnids, monkeypatch):
    change(monkeypatch, name, sizes={"test": 1000}, each=1 if name == "imagenet" else None)
    class_folders(tmp_path / place, wnids)
    data = mp.benchmark("full", root=tmp_path).dataset(name)
    assert np.array_equal(data.labels, np.arange(1000)) and data.class_names[1] == "goldfish"
    assert data.image_id(1) == f"{wnids[1]}/0.JPEG" and data.templates == ["a photo of a {}."]
    assert right_pictures(data, (0, 1, 657, 999))


def test_numbers_of_v2_are_labels_though_10_sorts_before_2(tmp_path, monkeypatch):
    change(monkeypatch, "v2", sizes={"test": 1000}, each=1)
    class_folders(tmp_path / "imagenetv2/imagenetv2-matched-frequency-format-val", map(str, range(1000)))
    data = mp.benchmark("full", root=tmp_path).dataset("v2")
    assert sorted(data.image_id(i).split("/")[0] for i in range(1000))[2] == "10"          # the trap is there
    assert all(int(data.image_id(i).split("/")[0]) == data.labels[i] for i in range(1000))
    assert right_pictures(data, (2, 10, 100, 999))
    assert data.class_names[10] == imagenet_classes()[1][10] == "brambling"


@pytest.mark.parametrize("name, place", [("a", "imagenet-adversarial/imagenet-a"),
                                         ("r", "imagenet-rendition/imagenet-r")])
def test_subsets_have_their_own_200_classes(name, place, tmp_path, wnids, monkeypatch):
    change(monkeypatch, name, sizes={"test": 400})
    chosen = imagenet_classes()[2][name]
    class_folders(tmp_path / place, [wnids[i] for i in chosen], 2)
    data = mp.benchmark("full", root=tmp_path).dataset(name)
    assert np.array_equal(data.labels, np.repeat(np.arange(200), 2))
    assert right_pictures(data, (0, 1, 2, 250, 399))
    assert data.class_names == [imagenet_classes()[1][i] for i in chosen]
    assert len(set(data.class_names)) == 200


def test_a_partial_copy_is_refused_or_keeps_its_labels(tmp_path, a_wnids):
    base = tmp_path / "imagenet-adversarial/imagenet-a"
    for label in (3, 150):
        paint(base / a_wnids[label] / "x.jpg", label)
    (base / a_wnids[7]).mkdir()
    with pytest.raises(ValueError, match=rf"3 class folders, expected 200 \(no '{a_wnids[0]}'.* 1 class "
                                         rf"folders without a picture \('{a_wnids[7]}'\).*2 pictures, "
                                         "expected 7500.*natural-adv-examples.*partial=True"):
        mp.benchmark("full", root=tmp_path).dataset("a")
    with pytest.warns(UserWarning, match="expected 7500.*not the papers'"):
        data = mp.benchmark("full", root=tmp_path, partial=True).dataset("a")
    assert list(data.labels) == [3, 150] and right_pictures(data) and len(data.class_names) == 200
    assert data.accounts == {"found": 2, "left_out": {"missing": 7498}}


def test_what_else_lies_in_class_folders(tmp_path, a_wnids, monkeypatch):
    base = tmp_path / "imagenet-a"
    class_folders(base, a_wnids)
    change(monkeypatch, "a", sizes={"test": 200})
    paint(base / "__MACOSX/x.jpg", 0)
    paint(base / a_wnids[7] / "._x.jpg", 0)
    paint(base / a_wnids[7] / ".ipynb_checkpoints/x.jpg", 0)
    paint(base / a_wnids[7] / "photo", 0)
    (base / a_wnids[7] / "x.heic").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 .name not of a picture, first .*photo'.*, 1 .kind not read"):
        data = mp.benchmark("full", root=tmp_path).dataset("a")
    assert len(data) == 200 and {each.label for each in data.left_out} == {7}


def test_too_many_in_one_folder_and_too_few_in_another(tmp_path, monkeypatch):
    base = tmp_path / "imagenetv2-matched-frequency-format-val"
    class_folders(base, map(str, range(40)), 2)
    change(monkeypatch, "v2", sizes={"test": 80}, each=2)
    (base / "31/0.JPEG").rename(base / "32/5.JPEG")
    with pytest.raises(ValueError, match="2 folders have not the 2 pictures .* \\('31', '32'\\)"):
        mp.benchmark("full", root=tmp_path).dataset("v2")


def test_folders_of_another_data_set_are_refused_even_from_a_partial_copy(tmp_path, wnids, a_wnids):
    other = next(w for w in wnids if w not in a_wnids)
    paint(tmp_path / "imagenet-a" / other / "x.jpg", 0)
    paint(tmp_path / "imagenetv2/imagenetv2-matched-frequency-format-val" / other / "x.jpg", 0)
    bench = mp.benchmark("full", root=tmp_path, partial=True)
    with pytest.raises(ValueError, match=f"1 folders that are no class of data set 'a': '{other}'.*200"):
        bench.dataset("a")
    with pytest.raises(ValueError, match="no class of data set 'v2'.*'0', '1'"):
        bench.dataset("v2")


def test_a_flat_validation_folder_is_refused(tmp_path):
    paint(tmp_path / "imagenet/images/val/ILSVRC2012_val_00000001.JPEG", 0)
    with pytest.raises(ValueError, match="1 pictures without class folders.*n01440764.*Sort them"):
        mp.benchmark("full", root=tmp_path, partial=True).dataset("imagenet")


def test_nothing_at_all_is_an_error_also_from_a_partial_copy(tmp_path, a_wnids):
    (tmp_path / "imagenet-a" / a_wnids[0]).mkdir(parents=True)
    with pytest.raises(ValueError, match="0 pictures"):
        mp.benchmark("full", root=tmp_path, partial=True).dataset("a")


def test_training_pictures_of_imagenet(tmp_path, wnids):
    paint(tmp_path / "imagenet/train" / wnids[5] / "n_1.JPEG", 5)              # the second place it may be
    with pytest.warns(UserWarning, match="1 pictures, expected 1281167"):
        data = mp.benchmark("full", root=tmp_path, partial=True).dataset("imagenet", "train")
    assert (data.split, list(data.labels)) == ("train", [5])


def test_pug_is_named_by_its_list_and_numbered_by_its_folders(tmp_path, monkeypatch):
    base = tmp_path / "PUG_ImageNet/Object_Scale"
    class_folders(base, sorted(PUG), 1, ".png")
    bench = mp.benchmark("full", root=tmp_path)
    with pytest.raises(FileNotFoundError, match="classnames.txt.*PromptAlign"):
        bench.dataset("pug_object_scale")
    names = tmp_path / "PUG_ImageNet/classnames.txt"
    names.write_text("Banana banana\nAirliner airliner\nAfrican_crocodile African crocodile\nZebra zebra\n")
    with pytest.raises(ValueError, match="no name for 'Bell_Pepper'"):
        bench.dataset("pug_object_scale")
    names.write_text(names.read_text() + "\n\nBell_Pepper  bell pepper \n\n")
    with pytest.raises(ValueError, match="4 class folders, expected 151"):
        bench.dataset("pug_object_scale")
    monkeypatch.setattr("minipsync.data.imagenet.PUG_CLASSES", 4)
    data = bench.dataset("pug_object_scale")
    assert data.class_names == ["African crocodile", "airliner", "banana", "bell pepper"]
    assert list(data.labels) == [0, 1, 2, 3] and right_pictures(data)
    with pytest.raises(FileNotFoundError, match="Camera_Yaw"):
        bench.dataset("pug_camera_yaw")
