"""One's own data: webdataset's shards, and names like "wds:/path" and "folder:/path"."""
import gzip

import pytest
from lookalikes import class_folders, picture, right_pictures, shard

import minipsync as mp


def members(labels, start=0):
    for k, label in enumerate(labels, start):
        yield f"{k:04}.cls", str(label).encode()
        yield f"{k:04}.jpg", picture(label)
        yield f"{k:04}.json", b"{}"


def test_shards(tmp_path):
    shard(tmp_path / "test/0.tar", members([2, 0, 1]))
    shard(tmp_path / "test/1.tar", [*members([1], 7), ("deep/a.JPG", picture(0)), ("deep/a.cls", b"0\n"),
                                    ("deep/._a.jpg", b"junk"), ("deep/a.mask.png", b"junk")])
    (tmp_path / "classnames.txt").write_text("ant\nbee\nhot dog\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a sketch of {c}.\nart of {c}.\n")
    data = mp.webdataset(tmp_path / "test")
    assert data.class_names == ["ant", "bee", "hot dog"]
    assert data.templates == ["a sketch of {}.", "art of {}."]
    assert list(data.labels) == [2, 0, 1, 1, 0] and right_pictures(data)
    assert [data.image_id(i) for i in (0, 3, 4)] == ["0.tar/0000", "1.tar/0007", "1.tar/deep/a"]
    assert list(mp.webdataset(tmp_path / "test/0.tar", ["x", "y", "z"], ["{}"]).labels) == [2, 0, 1]


def test_own_data_by_name(tmp_path):
    shard(tmp_path / "0.tar", members([1, 0]))
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    class_folders(tmp_path / "mine", ["hot_dog", "ant"])
    bench = mp.benchmark("full")
    data = bench.dataset(f"wds:{tmp_path}", split="train")
    assert data.split == "train" and list(data.labels) == [1, 0] and right_pictures(data)
    data = bench.dataset(f"folder:{tmp_path / 'mine'}")
    assert data.class_names == ["ant", "hot dog"] and data.split == "test"


@pytest.mark.parametrize("content, told", [
    ([("1.jpg", picture(0))], "1 samples without a picture or without a label: '1'"),
    ([("1.cls", b"0"), ("2.cls", b"0"), ("2.jpg", picture(0))], "without a picture or without a label: '1'"),
    ([("1.cls", b"cat"), ("1.jpg", picture(0))], "'1.cls' in .* says b'cat'"),
    ([("1.cls", b"0"), ("1.jpg", picture(0)), ("1.png", picture(0))], "two pictures called '1'"),
    ([("1.cls", b"9"), ("1.jpg", picture(0))], "labels from 9 to 9"),
    ([("1.txt", b"0")], "hold no picture")])
def test_bad_samples(content, told, tmp_path):
    shard(tmp_path / "0.tar", content)
    with pytest.raises(ValueError, match=told):
        mp.webdataset(tmp_path, ["ant", "bee"])


def test_bad_shards(tmp_path):
    with pytest.raises(FileNotFoundError, match="no .tar files"):
        mp.webdataset(tmp_path)
    shard(tmp_path / "0.tar", members([0, 1]))
    with pytest.raises(ValueError, match="no class names.*classnames.txt"):
        mp.webdataset(tmp_path)
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(gzip.compress(whole))
    with pytest.raises(ValueError, match="0.tar' cannot be read.*not compressed"):
        mp.webdataset(tmp_path, ["ant", "bee"])
    (tmp_path / "0.tar").write_bytes(whole[:whole.index(picture(1)) + 10])
    with pytest.raises(ValueError, match="0.tar' cannot be read.*complete"):
        mp.webdataset(tmp_path, ["ant", "bee"])
