"""Settings that follow from others: derived where they are not given, and anew in every copy."""
import copy
import dataclasses
import json
import pickle

import pytest

import minipsync as mp
from minipsync.evaluation.prompts import prompt_file
from minipsync.methods import REGISTRY, build, prompt_files
from minipsync.settings import replace_settings
from minipsync.training import TrainConfig

NAMES = ["cat", "sea horse"]
# method, settings of a first config, settings of the copy, what follows in the copy
FOLLOWS = [
    ("promptalign", {}, {"fine_grained": True}, {"lr": 5e-4}),
    ("promptalign", {"fine_grained": True}, {"fine_grained": False, "steps": 2}, {"lr": 4e-2}),
    ("maple_tpt", {}, {"variant": "A"}, {"lr": 5e-3, "augmix": False}),
    ("maple_tpt", {"variant": "A"}, {"fine_grained": True}, {"lr": 5e-3, "augmix": True}),
    ("maple_tpt", {"variant": "A", "fine_grained": True}, {"variant": "B"}, {"lr": 5e-4, "augmix": False}),
    ("coop", {}, {"init": "a photo of a"}, {"n_ctx": 4}),
    ("coop", {"init": "a photo of a"}, {"init": None}, {"n_ctx": 16}),
    ("cocoop", {}, {"init": "a sketch of"}, {"n_ctx": 3}),
    ("tpt", {"init": "a"}, {"template": "a big photo of the {}."}, {"n_ctx": 5}),
    ("promptalign", {"lr": None}, {"fine_grained": True}, {"lr": 5e-4}),
    ("promptalign", {"fine_grained": True, "lr": 0.3}, {"lr": None}, {"lr": 5e-4}),
]
# the same, and what was given stays, also where it is what would have followed
STAYS = [
    ("promptalign", {"lr": 4e-2}, {"fine_grained": True}, {"lr": 4e-2}),
    ("promptalign", {}, {"fine_grained": True, "lr": 4e-2}, {"lr": 4e-2}),
    ("promptalign", {"lr": 1e-3}, {"steps": 2}, {"lr": 1e-3}),
    ("maple_tpt", {"variant": "A", "augmix": False}, {"fine_grained": True}, {"augmix": False, "lr": 5e-3}),
    ("maple_tpt", {"lr": 7e-3}, {"variant": "A", "fine_grained": True}, {"lr": 7e-3, "augmix": True}),
    ("coop", {"n_ctx": 4}, {"init": "a photo of a"}, {"n_ctx": 4}),
    ("coop", {"n_ctx": 4, "init": "a photo of a"}, {"init": None}, {"n_ctx": 4}),
]


@pytest.mark.parametrize("name, first, changed, right", FOLLOWS + STAYS)
def test_copy_with_other_settings(tiny_clip, name, first, changed, right):
    start = build(name, tiny_clip, NAMES, **first).config
    for config in (start, pickle.loads(pickle.dumps(start)), copy.deepcopy(start),
                   replace_settings(start, {"seed": 3})):               # a copy of a copy
        found = build(name, tiny_clip, NAMES, config=config, **changed).config
        assert {k: getattr(found, k) for k in right} == right
        assert type(found) is type(start)
    assert build(name, tiny_clip, NAMES, config=start).config == start


@pytest.mark.parametrize("name, first, changed, right", [row for row in FOLLOWS + STAYS
                                                         if "template" not in row[2]])
def test_copy_by_dataclasses(name, first, changed, right):
    """Numbers follow; augmix, True or False, is handed over as if it were given."""
    found = dataclasses.replace(REGISTRY[name].Config(**first), **changed)
    assert all(getattr(found, k) == v for k, v in right.items() if k != "augmix")


def test_a_number_that_follows_elsewhere_is_given():
    """The rate of one method handed to another, or read and given again, is that rate."""
    rate = REGISTRY["promptalign"].Config().lr
    assert REGISTRY["maple_tpt"].Config(fine_grained=True, lr=rate).lr == rate == 4e-2
    assert REGISTRY["tpt"].Config(lr=rate).lr == rate
    assert replace_settings(REGISTRY["promptalign"].Config(), {"lr": rate, "fine_grained": True}).lr == rate


@pytest.mark.parametrize("name", REGISTRY)
def test_configs_compare_and_print_by_their_values(name):
    config = REGISTRY[name].Config()
    values = dataclasses.asdict(config)
    given = type(config)(**values)
    assert given == config and hash(given) == hash(config) and repr(given) == repr(config)
    assert vars(config) == values
    assert not any(v is None for k, v in values.items() if k in ("lr", "augmix", "n_ctx"))
    assert all(type(v) in (str, int, float, bool, tuple, type(None)) for v in values.values())
    assert json.loads(json.dumps(vars(config))) == json.loads(json.dumps(values))


def test_names_of_prompt_files_stay():
    """A shipped file is found by a hash of all settings, whether n_ctx was given or followed."""
    bench = mp.benchmark("mini")
    data, clip = bench.dataset("animals", "train"), bench.clip(device="cpu")
    own = bench.settings("coop.fit", "animals")
    names = {prompt_file(build("coop", clip, data.class_names, init="a photo of a", **more), data, **own)
             for more in ({}, {"n_ctx": 4}, {"config": REGISTRY["coop"].Config()})}
    assert len(names) == 1 and (prompt_files.SHIPPED / names.pop()).is_file()


@pytest.mark.parametrize("method, dataset, given, right", [
    ("promptalign", "dtd", {}, 5e-4), ("promptalign", "dtd", {"fine_grained": False}, 4e-2),
    ("promptalign", "sketch", {"fine_grained": True}, 5e-4), ("promptalign", "dtd", {"lr": 0.1}, 0.1),
    ("maple_tpt", "dtd", {"variant": "A"}, 5e-3), ("maple_tpt", "dtd", {}, 5e-4)])
def test_benchmarks_settings_and_ones_own(tiny_clip, method, dataset, given, right):
    settings = mp.benchmark("full").settings(method, dataset) | given
    config = REGISTRY[method].Config()
    assert build(method, tiny_clip, NAMES, **settings).config.lr == right
    assert build(method, tiny_clip, NAMES, config=config, **settings).config.lr == right


def test_settings_where_nothing_follows():
    assert replace_settings(TrainConfig(epochs=3), {"shots": 1}) == TrainConfig(epochs=3, shots=1)
    with pytest.raises(ValueError, match="coop: n_ctx='4' .str. does not fit; expected int or None, for "
                                         "example 16"):
        replace_settings(REGISTRY["coop"].Config(), {"n_ctx": "4"}, "coop")
