"""The fingerprint of a data set follows what is in its files, however alike names, sizes and times are."""

import io
import os
import shutil
import time

import numpy as np
import pytest
from lookalikes import shard
from PIL import Image

import minipsync as mp
from minipsync.data import content
from minipsync.data.dataset import Dataset


def noise(seed, size=(8, 8)):
    return Image.fromarray(np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype("uint8"))


@pytest.fixture
def pictures(tmp_path):
    for k, name in enumerate(("ant", "bee")):
        (tmp_path / "test" / name).mkdir(parents=True)
        for i in range(3):
            noise(10 * k + i).save(tmp_path / "test" / name / f"{i}.bmp")
    return tmp_path / "test"


def edit(path, at=-1):
    """Change one byte and leave name, size and the time of the last change as they were."""
    stat, whole = path.stat(), bytearray(path.read_bytes())
    whole[at] ^= 1
    path.write_bytes(whole)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def old(folder):
    """As if nothing below `folder` had been changed for a day; the time of the inodes stays as it is."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 86_400,) * 2)


def test_one_byte_of_one_picture_counts(pictures):
    old(pictures)
    data = mp.folder(pictures)
    before, name = data.fingerprint, data.name
    assert before == mp.folder(pictures).fingerprint and name == f"test-{before[:6]}"
    edit(pictures / "bee" / "1.bmp")
    assert data.fingerprint != before and data.subset([0, 1, 2]).fingerprint == mp.folder(pictures).subset(
        [0, 1, 2]).fingerprint
    assert mp.folder(pictures).name != name


def test_place_and_order_do_not_count(pictures, tmp_path):
    copy = shutil.copytree(pictures, tmp_path / "elsewhere" / "test")
    one, two = mp.folder(pictures), mp.folder(copy)
    assert one.fingerprint == two.fingerprint and one.name == two.name
    assert one.subset([5, 0, 3]).fingerprint == one.subset([0, 3, 5]).fingerprint != one.fingerprint


def test_labels_count(pictures):
    data = mp.folder(pictures)
    assert data.of_classes([0, 1]).fingerprint == data.fingerprint != data.of_classes([1, 0]).fingerprint


@pytest.mark.parametrize("at", [0, content.WHOLE // 2, -1])
def test_large_pictures_are_sampled_unless_pixels_lie_open(at, tmp_path):
    """Both ends and the middle of a compressed file count, and every byte of one that is not compressed."""
    size = 2 * content.WHOLE
    for suffix, places in ((".jpg", {0, size // 2, size - 1}), (".bmp", {0, size // 2, size - 1, size // 4})):
        for k in places:
            path = tmp_path / f"{k}{suffix}"
            path.write_bytes(bytes(size))
            before = content.of_files(["a"], [0], [content.Place(path)])
            edit(path, k)
            assert content.of_files(["a"], [0], [content.Place(path)]) != before, (suffix, k)


def test_of_many_pictures_those_that_are_read_are_chosen_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(content, "MOST", 5)
    ids = [f"{i}.png" for i in range(20)]
    places = [content.Place(tmp_path / i) for i in ids]
    for place in places:
        place.path.write_bytes(b"same size")

    def now():
        return content.of_files(ids, [0] * 20, places)

    start, changed = now(), set()
    for place in places:
        edit(place.path, 0)
        changed |= {place.path.name} if now() != start else set()
        edit(place.path, 0)
        assert now() == start
    assert changed == {ids[i] for i in content._chosen(ids, 5)} and len(changed) == 5
    (tmp_path / "0.png").write_bytes(b"another size")          # sizes count of all
    (tmp_path / "1.png").write_bytes(b"another size")
    assert now() != start


def test_what_is_kept_is_found_again_and_never_stale(pictures, tmp_path, monkeypatch):
    read = []
    real = content._content
    monkeypatch.setattr(content, "_content", lambda *args: (read.append(args), real(*args))[1])
    monkeypatch.setattr(content, "_known", {})
    data, cache = mp.folder(pictures), tmp_path / "records"
    slow = iter(range(100, 10**6, 10))
    monkeypatch.setattr(content.time, "time", lambda: real_time() + next(slow))    # ten seconds at each look

    def known():
        before = len(read)
        found = content.of_files(data._ids, data.labels, data.places, cache)
        return found, len(read) - before

    first, reads = known()
    assert reads == 6 and (cache / content.CACHE).is_file()
    assert known() == (first, 0)                               # of this process
    content._known.clear()
    assert known() == (first, 0)                               # from the file
    edit(pictures / "ant" / "0.bmp")
    assert known()[0] != first and len(read) == 18             # 6 at first by `folder`


real_time = time.time


def test_a_file_that_was_just_written_is_not_taken_from_memory(pictures, monkeypatch):
    """It can be written again within the same tick of a coarse clock: such a clock is put in place here."""
    stats = {}
    real = os.stat
    monkeypatch.setattr(content.os, "stat", lambda path, *a, **k: stats.setdefault(path, real(path, *a, **k)))
    data = mp.folder(pictures)
    before = data.fingerprint
    edit(pictures / "ant" / "0.bmp")
    assert data.fingerprint != before


def test_members_of_shards_count(tmp_path):
    for folder, last in (("a", 5), ("b", 6)):
        shard(tmp_path / folder / "0.tar", [(f"{min(i, 5)}.{suffix}", content) for i in (1, 2, 3, last)
                                            for suffix, content in (("bmp", bytes_of(i)), ("cls", b"0"))])
    one, two = (mp.webdataset(tmp_path / folder, ["ant"]) for folder in "ab")
    assert [one.image_id(i) for i in range(4)] == [two.image_id(i) for i in range(4)]
    assert one.fingerprint != two.fingerprint
    assert one.subset([0, 1, 2]).fingerprint == two.subset([0, 1, 2]).fingerprint


def bytes_of(seed):
    file = io.BytesIO()
    noise(seed).save(file, "BMP")
    return file.getvalue()


def test_pictures_that_are_made_of_no_files():
    one, two = (Dataset("toy", ["a"], [0] * 4, list("wxyz"), lambda i, s=s: noise(s if i == 2 else i))
                for s in (2, 9))
    assert content.of_dataset(one) != content.of_dataset(two)
    assert content.of_dataset(one) == content.of_dataset(one.subset([3, 2, 1, 0]))


def test_what_cannot_be_read_is_no_error(pictures):
    data = mp.folder(pictures)
    before = data.fingerprint
    (pictures / "ant" / "0.bmp").unlink()
    assert data.fingerprint not in ("", before)


def test_name_of_ones_own(pictures, tmp_path):
    assert mp.folder(pictures, name="my pictures").name == "my pictures"
    bench = mp.benchmark("mini")
    assert bench.dataset(f"folder:my pictures={pictures}").name == "my pictures"
    assert bench.dataset(f"folder:{pictures}").name == mp.folder(pictures).name
    odd = pictures.rename(tmp_path / "a=b")
    assert bench.dataset(f"folder:{odd}").name.startswith("a=b-")
    with pytest.raises(ValueError, match="name='': expected a word"):
        mp.folder(odd, name="")
