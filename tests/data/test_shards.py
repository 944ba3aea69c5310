"""One's own data: webdataset's shards, and names like "wds:/path" and "folder:/path"."""
import gzip
import tarfile
import warnings

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


# ---- which shards ------------------------------------------------------------------------------------
def told(call):
    """What `call` gives and everything that was warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        value = call()
    return value, " | ".join(str(w.message) for w in said)


def shards(home, *names, number=None):
    """Shards of two pictures each, a class each, and nshards.txt."""
    for i, name in enumerate(names):
        shard(home / name, members([0, 1], 2 * i))
    (home / "classnames.txt").write_text("ant\nbee\n")
    if number is not None:
        (home / "nshards.txt").write_text(number)
    return told(lambda: mp.webdataset(home))


@pytest.mark.parametrize("names, number", [
    (["0.tar", "1.tar", "2.tar"], "3\n"), (["1.tar", "2.tar"], "2"), (["0.tar", "1.tar"], None),
    (["1.tar", "2.tar"], None), (["train-00000.tar", "train-00001.tar"], "2"), (["a.tar", "b.tar"], "2"),
    (["a.tar"], None), (["20240101.tar"], None), ([f"{i}.tar" for i in range(12)], "12"), (["0.TAR"], "1")])
def test_shards_that_are_all_there(names, number, tmp_path):
    data, said = shards(tmp_path, *names, number=number)
    assert len(data) == 2 * len(names) and right_pictures(data) and not said and not data.left_out


@pytest.mark.parametrize("names, number, missing", [
    (["0.tar", "2.tar"], "3", ["1.tar"]), (["0.tar", "1.tar"], "3", ["2.tar"]),
    (["1.tar", "2.tar"], "3", ["0.tar"]), (["1.tar", "3.tar"], "3", ["2.tar"]),
    (["0.tar", "2.tar"], None, ["1.tar"]), (["1.tar", "4.tar"], None, ["2.tar", "3.tar"]),
    (["00000.tar", "00002.tar"], "4", ["00001.tar", "00003.tar"]),
    (["x-07.tar", "x-09.tar"], None, [f"x-0{i}.tar" for i in (*range(7), 8)]),
    (["test-0.tar", "train-0.tar", "train-2.tar"], None, ["train-1.tar"]),
    ([f"{i}.tar" for i in range(12) if i != 10], "12", ["10.tar"])])
def test_shards_that_are_missing(names, number, missing, tmp_path):
    data, said = shards(tmp_path, *names, number=number)
    assert [each.name for each in data.left_out] == missing and f"shard missing, first '{missing[0]}'" in said
    assert len(data) == 2 * len(names) and data.accounts["left_out"] == {"shard missing": len(missing)}


def test_shards_beyond_the_number_are_those_of_another_export(tmp_path):
    data, said = shards(tmp_path, "0.tar", "1.tar", "2.tar", number="2")
    assert [data.image_id(i)[:5] for i in range(len(data))] == ["0.tar"] * 2 + ["1.tar"] * 2
    assert "shard beyond nshards.txt, first '2.tar'" in said


@pytest.mark.parametrize("names, number", [(["a.tar", "b.tar"], "3"), (["0.tar", "1.tar", "1 (1).tar"], "2")])
def test_numbers_of_shards_that_have_none(names, number, tmp_path):
    assert f"nshards.txt' says {number} shards, and there are {len(names)}" in shards(tmp_path, *names,
                                                                                      number=number)[1]


@pytest.mark.parametrize("number", ["", "many", "-1", "3.0"])
def test_a_number_of_shards_that_is_none(number, tmp_path):
    with pytest.raises(ValueError, match=f"nshards.txt' says '{number}'; expected the number of shards"):
        shards(tmp_path, "0.tar", number=number)


def test_a_number_of_shards_in_another_encoding(tmp_path):
    with pytest.raises(ValueError, match="nshards.txt' is not UTF-8 text"):
        (tmp_path / "nshards.txt").write_bytes("1".encode("utf-16"))
        shards(tmp_path, "0.tar")


def test_warnings_point_at_the_line_that_loads_the_pictures(tmp_path):
    """What is left out, a class without pictures, names that are one text: of shards and of folders."""
    shard(tmp_path / "shards/1.tar", [*members([0]), ("7.heic", b"x"), ("7.cls", b"0")])
    class_folders(tmp_path / "folders", ["a", "b"])
    (tmp_path / "folders/a/x.heic").touch()
    (tmp_path / "folders/c").mkdir()
    for load, path, names in ((mp.webdataset, "shards", ["ant", "Ant"]),
                              (mp.folder, "folders", ["ant", "Ant", "c"])):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            load(tmp_path / path, names)
        assert len(said) == 3 and {w.filename for w in said} == {__file__}, [str(w.message) for w in said]


def test_shards_that_cannot_be_read_in_the_folder(tmp_path):
    (tmp_path / "1.tar").symlink_to("nowhere.tar")
    (tmp_path / "._0.tar").write_bytes(b"a Mac wrote this")
    (tmp_path / "2.tar.gz").write_bytes(b"")
    (tmp_path / "3.tgz").write_bytes(b"")
    data, said = shards(tmp_path, "0.tar")
    assert len(data) == 2 and "shard missing, first '1.tar'" in said
    assert "2 (shard compressed, first '2.tar.gz')" in said and "unpack it to .tar" in said
    (tmp_path / "0.tar").unlink()
    with pytest.raises(FileNotFoundError, match="no .tar files.*'2.tar.gz', '3.tgz', '1.tar': unpack"):
        mp.webdataset(tmp_path)


def test_the_folder_above_the_shards_says_where_they_are(tmp_path):
    shard(tmp_path / "test/0.tar", members([0, 1]))
    with pytest.raises(FileNotFoundError, match="there are shards in 'test': name one of these"):
        mp.webdataset(tmp_path)


def test_names_above_the_folder_that_one_is_in(tmp_path, monkeypatch):
    shard(tmp_path / "test/0.tar", members([0, 1]))
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    monkeypatch.chdir(tmp_path / "test")
    assert mp.webdataset(".").class_names == ["ant", "bee"]


# ---- lists whose lines are labels --------------------------------------------------------------------
@pytest.mark.parametrize("text, line", [("ant\n\nbee\n", 2), ("\nant\nbee\n", 1), ("ant\r\n \t\r\nbee", 2),
                                        ("ant\n\u2028\nbee", 2)])
@pytest.mark.parametrize("file", ["classnames.txt", "zeroshot_classification_templates.txt"])
def test_a_blank_line_among_the_lines(file, text, line, tmp_path):
    shard(tmp_path / "0.tar", members([0, 1]))
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    (tmp_path / file).write_bytes(text.encode())
    with pytest.raises(ValueError, match=f"line {line} of .*{file}' is blank"):
        mp.webdataset(tmp_path)


@pytest.mark.parametrize("end", ["", "\n", "\n\n \n", "\r\n\r\n"])
def test_line_ends_and_blank_lines_at_the_end(end, tmp_path):
    shard(tmp_path / "0.tar", members([0, 1]))
    text = f"\ufeffant\u2028small\r\nbee\x85\x0cx{end}"                     # with a Windows editor's mark
    (tmp_path / "classnames.txt").write_bytes(text.encode())
    assert mp.webdataset(tmp_path).class_names == ["ant\u2028small", "bee\x85\x0cx"]


def test_labels_and_names_that_do_not_fit(tmp_path):
    shard(tmp_path / "0.tar", members([0, 2]))
    (tmp_path / "classnames.txt").write_text("ant\nbee\n")
    with pytest.raises(ValueError, match="labels from 0 to 2, but the 2 names of .*classnames.txt' are for "
                                         "0 … 1; the first without a name is 2, of '0.tar/0001'"):
        mp.webdataset(tmp_path)
    data, said = told(lambda: mp.webdataset(tmp_path, ["ant", "bee", "cow", "doe"]))
    assert len(data.class_names) == 4 and "2 of the 4 classes" in said and "'bee', 'doe'" in said
    assert "'Ant' and 'ant'" in told(lambda: mp.webdataset(tmp_path, ["Ant", "ant", "cow"]))[1]
    (tmp_path / "classnames.txt").write_text("n01440764\nn01443537\nn01484850\n")
    assert "'n01440764'" in told(lambda: mp.webdataset(tmp_path))[1]
    for names in ({0: "ant", 1: "bee"}, {"ant", "bee"}, "ant"):
        with pytest.raises(TypeError, match="expected a list of strings"):
            mp.webdataset(tmp_path, names)


# ---- what is in a shard ------------------------------------------------------------------------------
def test_members_that_are_no_samples(tmp_path):
    shard(tmp_path / "0.tar", [*members([0, 1]), ("__MACOSX/._0000.jpg", b"x"), ("._0000.cls", b"x"),
                               ("__MACOSX/0009.jpg", picture(0)), (".hidden/a.jpg", picture(0)),
                               ("README", b"hello")])
    assert told(lambda: len(mp.webdataset(tmp_path, ["ant", "bee"]))) == (2, "")


def test_names_longer_than_a_header_and_in_other_alphabets(tmp_path):
    name = "sehr/" * 60 + "größer-寿司"
    shard(tmp_path / "0.tar", [(f"{name}.JPEG", picture(1)), (f"{name}.CLS", b"1"), ("./a.webp", picture(0)),
                               ("./a.cls", b"0"), ("b..jpg", picture(0)), ("b.cls", b"0")])
    data = mp.webdataset(tmp_path, ["ant", "bee"])
    assert [data.image_id(i) for i in range(3)] == [f"0.tar/{name}", "0.tar/./a", "0.tar/b"]
    assert right_pictures(data)


def test_one_key_in_two_shards_is_two_samples(tmp_path):
    for i in range(2):
        shard(tmp_path / f"{i}.tar", members([i]))
    data, said = told(lambda: mp.webdataset(tmp_path, ["ant", "bee"]))
    assert [data.image_id(i) for i in range(2)] == ["0.tar/0000", "1.tar/0000"] and not said


@pytest.mark.parametrize("content, told", [
    ([("1.cls", b"0"), ("1.jpg", picture(0)), ("1.cls", b"1")], "two labels called '1.cls'"),
    ([("1.cls", b"0"), ("1.jpg", picture(0)), ("1.jpg", picture(1))], "two pictures called '1'"),
    ([("1.v2.cls", b"0"), ("1.v2.jpg", picture(0)), ("1.v3.jpg", picture(0)), ("1.v3.cls", b"0")],
     "'1.v2.cls' in .* has a dot in its name: webdataset takes what is before the first one, '1'"),
    ([("1.cls", b"0"), ("1.jpg", picture(0)), ("1.2.cls", b"0"), ("1.2.jpg", picture(0))], "'1.2.cls'.* dot"),
    ([("1.cls", b"0"), ("1.jpg", picture(0)), ("2.x.jpg", picture(0))], "without a label: '2'"),
    ([("1.label", b"0"), ("1.jpg", picture(0))], "without a label: '1'.*end in .jpg, .label"),
    ([("1.cls", b"0"), ("1.jpg.gz", gzip.compress(picture(0)))], "without a picture.*end in .cls, .jpg.gz"),
    ([("1.cls", b"1.0"), ("1.jpg", picture(0))], "says b'1.0', expected the number of a class")])
def test_samples_that_are_not_clear(content, told, tmp_path):
    shard(tmp_path / "0.tar", content)
    with pytest.raises(ValueError, match=told):
        mp.webdataset(tmp_path, ["ant", "bee"])


def test_kinds_that_are_left_out_of_a_shard(tmp_path):
    shard(tmp_path / "0.tar", [*members([0, 1]), ("x.heic", b""), ("x.cls", b"1"), ("0000.avif", b"")])
    data, said = told(lambda: mp.webdataset(tmp_path, ["ant", "bee"]))
    assert len(data) == 2 and "1 (kind not read, first '0.tar/x.heic')" in said
    assert data.left_out[0].label == 1 and data.accounts["found"] == 3


def test_links_in_a_shard(tmp_path):
    """Files that were one on the disk: tar keeps the second as a link to the first."""
    shard(tmp_path / "0.tar", members([1, 0]))
    with tarfile.open(tmp_path / "0.tar", "a") as tar:
        for name, kind in [("b.jpg", tarfile.LNKTYPE), ("b.cls", tarfile.LNKTYPE), ("c.jpg", tarfile.SYMTYPE),
                           ("c.cls", tarfile.SYMTYPE)]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, f"0000{name[1:]}"
            tar.addfile(member)
    data, said = told(lambda: mp.webdataset(tmp_path, ["ant", "bee"]))
    assert list(data.labels) == [1, 0, 1] and right_pictures(data)
    assert "1 (no regular file, first '0.tar/c')" in said


def test_shards_without_their_end(tmp_path):
    shard(tmp_path / "0.tar", members([0, 1]))
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole.rstrip(b"\0") + bytes(-len(whole.rstrip(b"\0")) % 512))
    data, said = told(lambda: mp.webdataset(tmp_path, ["ant", "bee"]))
    assert len(data) == 2 and "0.tar' has no end mark" in said
    (tmp_path / "0.tar").write_bytes(whole + whole)
    with pytest.raises(ValueError, match="0.tar' goes on behind its end mark"):
        mp.webdataset(tmp_path, ["ant", "bee"])
    (tmp_path / "0.tar").write_bytes(whole)
    (tmp_path / "1.tar").write_bytes(bytes(10240))
    assert "shard without samples, first '1.tar'" in told(lambda: mp.webdataset(tmp_path, ["ant", "bee"]))[1]
