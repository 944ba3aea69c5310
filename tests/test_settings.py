"""Settings: described, checked in one line, and those that follow from others followed anew in every copy."""
import copy
import dataclasses
import json
import pickle
from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from pydantic import Field, NonNegativeInt, PositiveInt

import minipsync as mp
from minipsync.evaluation.prompts import prompt_file
from minipsync.evaluation.source_code import _in_words as _plain
from minipsync.methods import REGISTRY, build, prompt_files
from minipsync.settings import Probability, Settings, describe, did_you_mean, from_text, in_order, items_of
from minipsync.training import TrainConfig
from minipsync.views.crops import ViewConfig

NAMES = ["cat", "sea horse"]
CONFIGS = [*(method.Config for method in REGISTRY.values()), TrainConfig, ViewConfig]
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
    *((name, {}, {"seed": 7}, {"view_seed": 7}) for name in
      ("tpt", "maple_tpt", "promptalign", "promptsync", "promptsync_star")),
    ("promptalign", {"view_seed": 3}, {"view_seed": None, "seed": 2}, {"view_seed": 2}),
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
    ("promptsync", {"view_seed": 1}, {"seed": 7}, {"view_seed": 1, "seed": 7}),
    ("coop", {"n_ctx": 4}, {"init": "a photo of a"}, {"n_ctx": 4}),
    ("coop", {"n_ctx": 4, "init": "a photo of a"}, {"init": None}, {"n_ctx": 4}),
]


# ---- what follows -------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, first, changed, right", FOLLOWS + STAYS)
def test_copy_with_other_settings(tiny_clip, name, first, changed, right):
    start = build(name, tiny_clip, NAMES, **first).config
    for config in (start, pickle.loads(pickle.dumps(start)), copy.deepcopy(start), copy.copy(start),
                   start.replace(seed=3), start.model_copy(update={"seed": 3})):        # a copy of a copy
        found = build(name, tiny_clip, NAMES, config=config, **changed).config
        assert {k: getattr(found, k) for k in right} == right
        assert type(found) is type(start)
    assert build(name, tiny_clip, NAMES, config=start).config == start


@pytest.mark.parametrize("name, first, changed, right", [row for row in FOLLOWS + STAYS
                                                         if "template" not in row[2]])
def test_every_way_to_replace(name, first, changed, right):
    """dataclasses.replace refuses, pydantic's own copy and Python's copy.replace let values follow, too."""
    start = REGISTRY[name].Config(**first)
    ways = [start.replace(**changed), start.model_copy(update=changed)]
    ways += [copy.replace(start, **changed)] if hasattr(copy, "replace") else []
    for found in ways:
        assert {k: getattr(found, k) for k in right} == right
    with pytest.raises(TypeError):
        dataclasses.replace(start, **changed)
    with pytest.raises(AttributeError, match=r"cannot be changed; config.replace\(seed=3\) makes another"):
        start.seed = 3


def test_a_number_that_follows_elsewhere_is_given():
    """The rate of one method handed to another, or read and given again, is that rate."""
    rate = REGISTRY["promptalign"].Config().lr
    assert REGISTRY["maple_tpt"].Config(fine_grained=True, lr=rate).lr == rate == 4e-2
    assert REGISTRY["tpt"].Config(lr=rate).lr == rate
    assert REGISTRY["promptalign"].Config().replace(lr=rate, fine_grained=True).lr == rate


@pytest.mark.parametrize("cls", CONFIGS)
def test_configs_compare_and_print_by_their_values(cls):
    config = cls()
    values = config.model_dump()
    given = cls(**values)
    assert given == config and hash(given) == hash(config) and repr(given) == repr(config)
    assert vars(config) == values
    assert not any(v is None for k, v in values.items() if k in ("lr", "augmix", "n_ctx"))
    assert all(type(v) in (str, int, float, bool, tuple, type(None)) for v in values.values())
    assert cls(**json.loads(json.dumps(values))) == config           # lists become tuples


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


# ---- what is wrong ------------------------------------------------------------------------------------
class Own(Settings, title="mine"):
    """A config as a student writes it."""

    size: Annotated[int, Field(ge=2, le=5)] = 3
    """rows of the grid"""
    share: Probability | None = None
    """share of the grid that is kept; None: what size says"""
    box: Annotated[tuple[float, float], in_order(1)] = (0.5, 1)
    """where it lies"""
    kind: Literal["round", "square"] = "round"
    cells: NonNegativeInt = Field(default_factory=lambda given: given["size"] ** 2)
    """number of cells; None: size by size"""

    def check(self):
        self.require(self.cells >= self.size, "cells", "size or more")


@pytest.mark.parametrize("given, told", [
    ({"siez": 3}, "mine: unknown setting 'siez'. Did you mean 'size'? Good settings: size, share, box, "),
    ({"siez": 3, "size": "x"}, "mine: unknown setting 'siez'"),
    ({"size": 6}, "mine: size=6 does not fit; expected a whole number from 2 to 5, for example 3. (size: "
                  "rows of the grid)"),
    ({"size": "3"}, "mine: size='3' (str) does not fit; expected a whole number from 2 to 5, for example 3."),
    ({"size": True}, "mine: size=True (bool) does not fit; expected a whole number"),
    ({"size": 3.0}, "mine: size=3.0 (float) does not fit; expected a whole number"),
    ({"size": None}, "mine: size=None (NoneType) does not fit; expected a whole number from 2 to 5, for"),
    ({"share": -1}, "mine: share=-1 does not fit; expected a number from 0 to 1 or None, for example None"),
    ({"share": float("inf")}, "mine: share=inf (float) does not fit; expected a number"),
    ({"share": np.float32("nan")}, "mine: share="), ({"share": "half"}, "mine: share='half' (str) does not"),
    ({"box": (1, 0.5)}, "mine: box=(1, 0.5) does not fit; expected two numbers, 0 < low <= high <= 1, for"),
    ({"box": [0.1, 0.2, 0.3]}, "mine: box=[0.1, 0.2, 0.3] (list) does not fit; expected 2 values, each a"),
    ({"kind": "sqare"}, "expected one of 'round', 'square', for example 'round'. Did you mean 'square'?"),
    ({"cells": 1.5}, "mine: cells=1.5 (float) does not fit; expected a whole number, 0 or more, or None, for "
                     "example 9. (cells: number of cells; None: size by size)"),
    ({"size": "x", "cells": None}, "mine: size='x' (str)"),
    ({"cells": 1}, "mine: cells=1 does not fit; expected size or more")])
def test_one_line_says_what_is_wrong(given, told):
    for make in (Own, Own().replace):
        with pytest.raises(ValueError) as error:
            make(**given)
        text = str(error.value)
        assert told in text and "\n" not in text and "pydantic" not in text


def test_what_fits():
    config = Own(size=np.int64(4), share=np.float32(0.5), box=[1, 1])
    assert config == Own(size=4, share=0.5, box=(1.0, 1.0)) and config.cells == 16
    assert [type(v) for v in config.model_dump().values()] == [int, float, tuple, str, int]
    assert Own(share=1).model_dump()["share"] is not True and type(Own(share=1).share) is float


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_setting_has_a_description(cls):
    assert all(field.description for field in cls.model_fields.values())


@pytest.mark.parametrize("kind, words", [
    (PositiveInt, "a whole number, 1 or more"), (PositiveInt | None, "a whole number, 1 or more, or None"),
    (int | None, "a whole number or None"), (Probability, "a number from 0 to 1"), (bool, "True or False"),
    (Annotated[float, Field(lt=2)], "a number, less than 2"), (tuple[str, ...], "a list, each a text"),
    (list[PositiveInt], "a list, each a whole number, 1 or more"), (Literal["7", 7], "one of '7', 7"),
    (str | tuple[str, ...], "a text, or a list, each a text"), (dict, "dict")])
def test_types_as_words(kind, words):
    assert describe(kind) == words


@pytest.mark.parametrize("text, kind, value", [
    ("3", PositiveInt, 3), ("3", float, 3.0), (" 1e-3 ", float, 1e-3), ("none", int | None, None),
    ("None", PositiveInt | None, None), ("7", PositiveInt | None, 7), ("none", str | None, None),
    ("none", Literal["none", "7"], "none"), ("7", Literal["none", "7"], "7"), ("8", Literal[4, 8], 8),
    ("0.08,1", tuple[float, float], [0.08, 1.0]), ("[a, b]", tuple[str, ...], ["a", "b"]),
    ("a, b", str | tuple[str, ...], "a, b"), ("a photo of a", str | None, "a photo of a"),
    ("off", bool, False), ("many", int, "many"), ("a,1", list[int], ["a", 1]), ("nine", Literal[4], "nine")])
def test_texts_of_the_command_line(text, kind, value):
    found = from_text(text, kind)
    assert found == value and type(found) is type(value)


def test_lists_in_texts():
    for text in ("[1,2]", "(1, 2)", "1,2,", "['1', \"2\"]"):
        assert items_of(text) == ["1", "2"]
    assert items_of("['a, b', \"it's\"]") == ["a, b", "it's"]
    assert items_of("[]") == items_of("") == []


def test_did_you_mean():
    assert did_you_mean("Sketch", ["sketch", "r"]) == " Did you mean 'sketch'?"
    assert did_you_mean("a", ["A", "B"]) == " Did you mean 'A'?"
    assert did_you_mean("skech", ["Sketch"], str) == " Did you mean Sketch?"
    assert did_you_mean("zzz", ["sketch"]) == did_you_mean(3, []) == ""


def test_a_description_is_no_code():
    """Stored predictions stay valid when only the text below a setting changes, not when its default does."""
    import ast
    tree = "class C(Settings):\n    x: int = {}\n    {}\n\ndef f():\n    '''Doc.'''\n    return {}"
    plain = [_plain(ast.parse(tree.format(*parts))) for parts in
             ((1, "'''old'''", "'a'"), (1, "'''new'''", "'a'"), (1, "pass", "'a'"), (2, "'''old'''", "'a'"),
              (1, "'''old'''", "'b'"))]
    assert plain[0] == plain[1] and len({plain[0], *plain[2:]}) == 4


# ---- seeds --------------------------------------------------------------------------------------------
TUNED = {"tpt": {"n_views": 4, "selection": 0.5}, "maple_tpt": {"n_views": 4, "selection": 0.5}}


@pytest.mark.filterwarnings("ignore:.*never trained")
@pytest.mark.parametrize("name", TUNED)
def test_view_seed_is_of_the_views_alone(tiny_clip, name):
    """`seed` moves a random start and, without view_seed, the views; view_seed moves the views alone."""
    from PIL import Image
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 255, (40, 50, 3)).astype(np.uint8))

    def made(**seeds):
        method = build(name, tiny_clip, NAMES, init=None, **TUNED[name], **seeds)
        return method.make_views(picture), torch.cat([p.detach().flatten() for p in method.parameters()])

    views, start = made(seed=1)
    same, other = made(seed=2, view_seed=1)
    assert torch.equal(views, same) and not torch.equal(start, other)
    other, same = made(seed=1, view_seed=2)
    assert not torch.equal(views, other) and torch.equal(start, same)
    assert torch.equal(made(seed=2)[0], other)


def test_the_source_keeps_its_seed(tiny_clip):
    """view_seed leaves the source's few shots and views as they are, so that its file still fits."""
    first, second = (build("promptsync", tiny_clip, NAMES, **seeds) for seeds in ({}, {"view_seed": 9}))
    assert first.source_settings() == second.source_settings() and first.config.seed == second.config.seed
    assert second.config.view_seed == 9


def test_sample_seed_says_which_images(tiny_clip):
    data = mp.benchmark("mini").dataset("animals")
    method = build("zero_shot", mp.load_clip("mini", device="cpu"), data.class_names)
    first, again, other = (mp.evaluate(method, data, limit=20, sample_seed=s, progress=False)
                           for s in (1, 1, 2))
    assert first.records.image.tolist() == again.records.image.tolist() != other.records.image.tolist()
    assert (first.seed, other.seed, set(other.records.seed)) == (1, 2, {2})
    with pytest.raises(TypeError, match="unexpected keyword argument 'seed'"):
        mp.evaluate(method, data, limit=20, seed=1)
