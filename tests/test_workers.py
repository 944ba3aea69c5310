"""Processes that read pictures and are started afresh, as on macOS, Windows and from Python 3.14 on."""
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from lookalikes import class_folders, everything, shard
from test_shards import members
from test_training import FAST, Toy, toy_method

import minipsync as mp
from minipsync.data import splits
from minipsync.training import TrainConfig, TrainingImages


def mini(name, split="test"):
    return mp.benchmark("mini").dataset(name, split)


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """Every kind of data set, whose picture 0 is worth a look."""
    everything(tmp_path / "full")
    full = mp.benchmark("full", tmp_path / "full", partial=True)
    with pytest.warns(UserWarning):                                    # the look-alikes are no whole copies
        found = {name: full.dataset(name) for name in (*splits.SPLITS, "imagenet", "v2", "pug_worlds")}
    class_folders(tmp_path / "mine", ["hot_dog", "ant"], 2)
    shard(tmp_path / "test/0.tar", members([1, 0, 1]))
    monkeypatch.chdir(tmp_path)                                        # paths below the present folder
    return found | {
        "folder": mp.folder("mine"), "shards": mp.webdataset("test", ["ant", "bee"]),
        "subset": mp.folder("mine").subset([3, 1]).subset([1]),
        "classes of shards": mp.webdataset("test", ["ant", "bee"]).of_classes([1]),
        "half": mp.folder("mine").halves()[1], "own by name": full.dataset("folder:mine"),
        **{f"mini {name} {split}": mini(name, split) for name, split in (
            ("sketch", "test"), ("a", "test"), ("pug_camera_yaw", "test"), ("pug_worlds", "test"),
            ("imagenet", "train"), ("animals", "test"), ("animals", "val"), ("animals_novel", "train"))},
        "classes of mini": mini("animals", "train").of_classes([4, 1])}


def pixels(data):
    """Of the first and the last picture, and both labels."""
    rows = [data[i] for i in (0, len(data) - 1)]
    return [np.asarray(image) for image, _ in rows], [label for _, label in rows]


def pixels_of_all(sets):
    return {name: pixels(data) for name, data in sets.items()}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, (images, labels) in wanted.items():
        assert labels == found[name][1], name
        assert all(np.array_equal(a, b) for a, b in zip(images, found[name][0], strict=True)), name


def test_data_sets_can_be_pickled(sets):
    copies = {name: pickle.loads(pickle.dumps(data)) for name, data in sets.items()}
    assert_same(pixels_of_all(copies), pixels_of_all(sets))
    for name, data in sets.items():
        assert copies[name].class_names == data.class_names and len(copies[name]) == len(data)
        assert copies[name].image_id(0) == data.image_id(0) and copies[name].origin == data.origin
    images = TrainingImages(sets["shards"], 32, TrainConfig())
    copy = pickle.loads(pickle.dumps(images))
    assert copy[0, 1][0].equal(images[0, 1][0])


def test_a_new_process_reads_the_same_pictures(sets):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert_same(pool.submit(pixels_of_all, sets).result(), pixels_of_all(sets))


@pytest.fixture
def spawned():
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


def test_training_with_spawned_workers(spawned, tiny_clip):
    one, other = (toy_method(tiny_clip).fit(Toy(), workers=n, **FAST | {"epochs": 1}) for n in (0, 1))
    assert all(a.equal(b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


class Opened(Toy):
    """Keeps a file open, as many readers do."""

    def __init__(self):
        super().__init__()
        self.file = open(__file__, "rb")                               # noqa: SIM115


def local(read):
    toy = Toy()
    return mp.Dataset("own", toy.class_names, toy.labels, list(map(str, range(len(toy)))), read(toy))


UNPICKLABLE = {"lambda": lambda: local(lambda toy: lambda i: toy[i][0]), "open file": Opened}


@pytest.mark.parametrize("kind", UNPICKLABLE)
def test_reader_that_cannot_be_sent(kind, spawned, tiny_clip):
    method = toy_method(tiny_clip)
    with pytest.raises(TypeError, match=r"coop: the training set cannot be sent to 2 processes \(.*pickle.*"
                                        r"lambda.*workers=0"):
        method.fit(UNPICKLABLE[kind](), workers=2, **FAST)
    method.fit(UNPICKLABLE[kind](), **FAST | {"epochs": 1})             # in this process it reads well


class Vanishing(Toy):
    """Its reader ends the process."""

    def __getitem__(self, i):
        if multiprocessing.parent_process() is not None:
            import os
            os._exit(3)
        return super().__getitem__(i)


class Broken(Toy):
    def __getitem__(self, i):
        raise OSError("the picture is cut off")

    def image_id(self, i):
        return f"toy/{i}"


def test_worker_that_ends(tiny_clip):
    with pytest.raises(RuntimeError, match="coop: a process that reads .* ended.*__main__.*workers=0"):
        toy_method(tiny_clip).fit(Vanishing(), workers=1, **FAST)


def test_picture_that_a_worker_cannot_read(tiny_clip):
    with pytest.raises(ValueError, match=r"^image toy/\d+ of toy cannot be read \(the picture is cut off\)"):
        toy_method(tiny_clip).fit(Broken(), workers=1, **FAST)
