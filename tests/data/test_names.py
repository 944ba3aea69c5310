"""Class names as CLIP reads them, and what folders that are no words are called."""
import warnings

import pytest
from lookalikes import class_folders

import minipsync as mp
from minipsync.data.imagenet_classes import imagenet_classes


def told(call):
    """What `call` gives and everything that was warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        value = call()
    return value, " | ".join(str(w.message) for w in said)


def folder(root, folders, **names):
    class_folders(root, folders)
    (root / "README.txt").unlink()
    return told(lambda: mp.folder(root, **names))


# ---- one text ----------------------------------------------------------------------------------------
ONE_TEXT = [("Turkey", "turkey"), ("T-Shirt", "t-shirt"), ("café", "cafe\u0301"), ("hot_dog", "hot dog"),
            ("hot  dog", "hot dog"), ("rock &amp; roll", "rock & roll"), ("ﬁsh", "fish"), ("it’s", "it's"),
            ("a\u2028b", "a b"), ("missile", "missile"), (" ant", "ant")]


@pytest.mark.parametrize("names", ONE_TEXT)
def test_names_that_are_one_text_to_clip(names, tmp_path, tiny_clip):
    data, said = folder(tmp_path, ["x", "y"], class_names=list(names))
    assert all(repr(name.strip()) in said for name in names) and "cannot tell some classes of" in said
    method, said = told(lambda: mp.build("zero_shot", tiny_clip, list(names)))
    assert repr(names[0]) in said and repr(names[1]) in said
    text = method.text_features()
    assert (text[0] == text[1]).all()                                          # it is so
    _, said = told(lambda: mp.build("coop", tiny_clip, ["cow", "elk"], n_ctx=2).set_class_names(names))
    assert repr(names[0]) in said and repr(names[1]) in said


@pytest.mark.parametrize("names", [("Turkey", "turkeys"), ("resume", "résumé"), ("t-shirt", "t shirt"),
                                   ("寿司", "司")])
def test_names_that_clip_can_tell_apart(names, tmp_path, tiny_clip):
    _, said = folder(tmp_path, ["x", "y"], class_names=list(names))
    assert said == ""
    assert told(lambda: mp.build("zero_shot", tiny_clip, names))[1] == ""


def test_folders_that_differ_in_case_only(tmp_path):
    assert "'Turkey' and 'turkey'" in folder(tmp_path, ["Turkey", "turkey"])[1]


def test_names_of_the_package_are_all_different():
    bench = mp.benchmark("mini")
    for name in bench.names:
        data = bench.dataset(name)
        with warnings.catch_warnings(action="error"):
            mp.data.names.warn_of_twins(data.class_names)


# ---- no words ----------------------------------------------------------------------------------------
NO_WORDS = {
    "numbers": ["0", "1", "10", "2"], "one number": ["7"], "padded": ["00", "01", "02"], "some": ["7", "ant"],
    "class_0": ["class_0", "class_1", "class_2"], "c1": ["c1", "c2"], "Class 1": ["Class 1", "class 2"],
    "gaps": ["id_13", "id_99"], "dates": ["2021-05-03", "2021-06-01"],
    "unknown ids": ["n00000001", "n00000002"], "an id among words": ["ant", "n01440764"],
}


@pytest.mark.parametrize("folders", NO_WORDS.values(), ids=NO_WORDS)
def test_folders_that_say_nothing(folders, tmp_path):
    data, said = folder(tmp_path, folders)
    bare = folders if folders[0] != "ant" else folders[1:]
    assert repr(bare[0]) in said and "numbers or identifiers" in said
    assert "class_names=" in said and "classnames.txt" in said
    assert data.class_names == [name.replace("_", " ") for name in folders]
    words = ["ant", "bee", "cat", "dog"][:len(folders)]
    given, said = told(lambda: mp.folder(tmp_path, class_names=words))
    assert len(given) == len(folders) and not said
    if not any(" " in name for name in folders):
        lines = [f"{name} {word}\n" for name, word in zip(folders, words, strict=True)]
        (tmp_path / "classnames.txt").write_text("".join(lines))
        assert told(lambda: mp.folder(tmp_path).class_names) == (words, "")


@pytest.mark.parametrize("folders", [["001.Black_footed_Albatross", "002.Laysan_Albatross"],
                                     ["0_ant", "1_bee"],
                                     ["n02085620-Chihuahua", "n02085782-Japanese_spaniel"]])
def test_folders_that_begin_with_a_number(folders, tmp_path):
    assert f"{folders[0]!r}, {folders[1]!r} begin with a number" in folder(tmp_path, folders)[1]


@pytest.mark.parametrize("folders", [["ant", "bee"], ["707-320", "Boeing 717"], ["7-up", "cola"], ["ant"],
                                     ["F-16A", "F-18"], ["boeing 737", "airbus 320"]])
def test_folders_that_are_words(folders, tmp_path):
    assert folder(tmp_path, folders)[1] == ""


def test_labels_of_numbers_follow_the_folders_sorted_as_text(tmp_path):
    data, said = folder(tmp_path, list(map(str, range(12))))
    assert "sorted as text: '0', '1', '10', '11' and 8 more" in said
    assert [data.image_id(i).split("/")[0] for i in range(3)] == ["0", "1", "10"]
    assert list(data.labels[:3]) == [0, 1, 2]
    letters = list("abcdefghijkl")
    data, said = told(lambda: mp.folder(tmp_path, letters))
    assert "'0' is 'a', '1' is 'b', '10' is 'c'" in said and "{folder: name}" in said
    data, said = told(lambda: mp.folder(tmp_path, {str(i): letters[i] for i in range(12)}))
    assert data.class_names[2] == "k" and not said


def test_wordnet_ids_get_the_names_of_imagenet(tmp_path):
    wnids, names, _ = imagenet_classes()
    data, said = folder(tmp_path, [wnids[0], wnids[1], wnids[999]])
    assert data.class_names == ["tench", "goldfish", "toilet paper"]
    assert "n01440764 is 'tench'" in said and "class_names" in said
    data, said = folder(tmp_path / "twins", [wnids[i] for i, name in enumerate(names) if name == "missile"])
    assert data.class_names == ["missile"] * 2 and "'missile' and 'missile'" in said


# ---- where names come from ---------------------------------------------------------------------------
def test_names_for_folders_that_are_not_there(tmp_path):
    data, said = folder(tmp_path, ["ant", "bee"], class_names={"ant": "a", "bee": "b", "cow": "c"})
    assert data.class_names == ["a", "b"] and "'cow'" in said and "empty folder keeps" in said
    (tmp_path / "cow").mkdir()
    data, said = told(lambda: mp.folder(tmp_path, {"ant": "a", "bee": "b", "cow": "c"}))
    assert data.class_names == ["a", "b", "c"] and "no picture: 'c'" in said


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_only_line_ends_end_a_line(end, tmp_path):
    """U+2028 and others, at which str.splitlines splits too, are part of a name."""
    names = ["big\u2028ant", "bee\x0btwo", "cow\u0085three", "doe\x1cfour"]
    lines = end.join(f"{folder} {name}" for folder, name in zip("abcd", names, strict=True)) + end * 3
    class_folders(tmp_path, "abcd")
    (tmp_path / "classnames.txt").write_bytes(lines.encode())
    assert mp.folder(tmp_path).class_names == names


def test_names_are_taken_without_the_spaces_around(tmp_path):
    assert folder(tmp_path, ["a", "b"], class_names=[" ant", "bee \n"])[0].class_names == ["ant", "bee"]
