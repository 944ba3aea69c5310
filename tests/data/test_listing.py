"""Which files are pictures, what their pixels mean, and that nothing is left out without a word."""
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from lookalikes import class_folders, picture, right_pictures
from PIL import Image

import minipsync as mp
from minipsync.data.listing import NOT_READ, SUFFIXES, begins_as_picture, list_pictures
from minipsync.data.pictures import open_image
from minipsync.data.pixels import to_rgb

GOOD = picture(0)


def put(path, content=GOOD):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def told(call):
    """What `call` gives and everything that was warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", ResourceWarning)       # of whatever is cleared away at this moment
        value = call()
    return value, " | ".join(str(w.message) for w in said)


@pytest.fixture
def root(tmp_path):
    """Two classes with one picture each."""
    class_folders(tmp_path / "own", ["ant", "bee"])
    (tmp_path / "own/README.txt").unlink()
    return tmp_path / "own"


# ---- files -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".JPG", ".Jfif", ".JP2", ".TIFF"])
def test_pictures_by_name(suffix, root):
    put(root / f"ant/x{suffix}")
    data, said = told(lambda: mp.folder(root))
    assert len(data) == 3 and f"ant/x{suffix}" in {data.image_id(i) for i in range(3)} and not said


@pytest.mark.parametrize("suffix", [*NOT_READ, ".HEIC"])
def test_kinds_that_are_left_out_are_told(suffix, root, monkeypatch):
    monkeypatch.setattr("mimetypes.guess_type", lambda *_: (None, None))       # no machine's table counts
    put(root / f"ant/x{suffix}", b"")
    data, said = told(lambda: mp.folder(root))
    assert len(data) == 2 and f"'ant/x{suffix}'" in said and "convert" in said
    assert [tuple(each) for each in data.left_out] == [(f"ant/x{suffix}", "kind not read", 0, 1)]
    assert data.accounts == {"found": 3, "left_out": {"kind not read": 1}}
    assert "1 left out: kind not read" in repr(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000"])
@pytest.mark.parametrize("name", ["photo", "photo.jpg_large", "2021.05.03"])
def test_pictures_that_are_not_called_so_are_told(kind, name, root):
    Image.new("RGB", (9, 9), "red").save(root / "ant" / name, kind)
    data, said = told(lambda: mp.folder(root))
    assert len(data) == 2 and f"name not of a picture, first 'ant/{name}'" in said and "rename" in said


@pytest.mark.parametrize("head", [b"\0\0\0\x1cftypavif", b"\0\0\0\x18ftypheic", b"\xff\x0a\0\0",
                                  b"\0\0\0\x0cJXL \r\n"])
def test_first_bytes_of_kinds_that_are_not_written_here(head, tmp_path):
    put(tmp_path / "x", head + bytes(20))
    assert begins_as_picture(tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"BMW and other cars", b"\0\0\0\x18ftypmp42" + bytes(9), b"II",
                                     b"RIFF....WAVEfmt "])
def test_other_files_are_passed_over(content, root):
    for name in ("notes", "notes.txt", "x.xml", "Thumbs.db", "desktop.ini", "x.jpg.part"):
        put(root / "ant" / name, content)
    assert told(lambda: len(mp.folder(root))) == (2, "")


@pytest.mark.parametrize("place", [".ipynb_checkpoints", ".git", ".thumbnails", "@eaDir", "__MACOSX",
                                   ".cache/deep"])
def test_hidden_folders_are_no_part_of_a_set(place, root):
    put(root / "ant" / place / "0.jpg")
    put(root / "ant/deep" / place / "0.jpg")
    put(root / place / "0.jpg")
    put(root / "ant/._0.JPEG", b"a Mac wrote this")
    data, said = told(lambda: mp.folder(root))
    assert data.class_names == ["ant", "bee"] and len(data) == 2 and not said and not data.left_out


def test_pictures_beside_the_class_folders_are_told(root):
    put(root / "x.jpg")
    put(root / "logo.svg", b"<svg/>")
    data, said = told(lambda: mp.folder(root))
    assert len(data) == 2 and "2 (outside the class folders, first 'x.jpg')" in said


def test_links_to_nowhere_and_to_themselves_are_pictures_that_cannot_be_read(root, tiny_clip):
    (root / "ant/far.jpg").symlink_to("../../annex/x.jpg")
    (root / "bee/loop.png").symlink_to("loop.png")
    data, said = told(lambda: mp.folder(root))
    assert len(data) == 4 and not said
    method = mp.build("zero_shot", tiny_clip, data.class_names)
    with pytest.warns(UserWarning, match="2 of 4 images"):
        result = mp.evaluate(method, data, progress=False)
    assert result.n == 2 and sorted(image for image, _ in result.skipped) == ["ant/far.jpg", "bee/loop.png"]
    assert "n = 2 of 4 found (2 unreadable images skipped)" in repr(result)
    with pytest.raises(ValueError, match="image (ant/far.jpg|bee/loop.png) of own.* cannot be read"):
        mp.build("coop", tiny_clip, data.class_names).fit(data, progress=False)


def test_a_file_without_permission_is_skipped(root, tiny_clip, monkeypatch):
    put(root / "ant/mine.jpg")
    data, real = mp.folder(root), Image.open

    def refuse(path):                                      # root may read everything
        if str(path).endswith("mine.jpg"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.warns(UserWarning, match="1 of 3 images"):
        result = mp.evaluate(mp.build("zero_shot", tiny_clip, data.class_names), data, progress=False)
    assert [image for image, _ in result.skipped] == ["ant/mine.jpg"] and "denied" in result.skipped[0][1]


def test_a_folder_without_permission_is_told(root, monkeypatch):
    put(root / "ant/deep/x.jpg")
    real = os.scandir

    def refuse(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)
    monkeypatch.setattr(os, "scandir", refuse)
    data, said = told(lambda: mp.folder(root))
    assert len(data) == 2 and "folder cannot be read, first 'ant/deep'" in said
    assert data.accounts == {"found": 2, "left_out": {"folder cannot be read": 1}}


def test_links_to_folders_are_followed_once(root, tmp_path):
    put(tmp_path / "far/a.jpg")
    (root / "bee/link").symlink_to(tmp_path / "far")
    (root / "bee/again").symlink_to(tmp_path / "far")
    (root / "bee/back").symlink_to("..")
    (root / "cow").symlink_to(tmp_path / "far")                                     # a class may be a link
    data, said = told(lambda: mp.folder(root))
    ids = [data.image_id(i) for i in range(len(data))]
    assert [i for i in ids if i.startswith("bee/") and i.count("a.jpg")] == ["bee/again/a.jpg"]
    assert "cow/a.jpg" in ids and not any(i.startswith("bee/back") for i in ids)    # other classes' pictures
    assert {each.name for each in data.left_out} == {"bee/back", "bee/link"} and "folder seen before" in said


def test_a_class_folder_that_is_a_link_to_nowhere_is_told(root):
    (root / "cow").symlink_to("far")
    (root / "ant/more").symlink_to("far")
    data, said = told(lambda: mp.folder(root))
    assert data.class_names == ["ant", "bee"] and len(data) == 2
    assert "2 (link to nowhere, first 'cow')" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_picture(root):
    os.mkfifo(root / "ant/pipe.jpg")                       # reading it would wait for ever
    data, said = told(lambda: mp.folder(root))
    assert len(data) == 2 and "no regular file, first 'ant/pipe.jpg'" in said


def test_the_order_is_that_of_the_parts_of_a_path(tmp_path):
    for name in ("a/b.jpg", "a-b.jpg", "a.jpg", "a/B.jpg", "Z.jpg"):
        put(tmp_path / name)
    assert list_pictures(tmp_path, deep=True)[0] == ["Z.jpg", "a/B.jpg", "a/b.jpg", "a-b.jpg", "a.jpg"]
    assert list_pictures(tmp_path)[0] == ["Z.jpg", "a-b.jpg", "a.jpg"]


# ---- classes without pictures ------------------------------------------------------------------------
def test_a_class_without_pictures_stays_a_class(root, tiny_clip):
    put(root / "asp/notes.txt", b"none yet")
    data, said = told(lambda: mp.folder(root))
    assert data.class_names == ["ant", "asp", "bee"] and list(data.labels) == [0, 2]
    assert "1 of the 3 classes" in said and "'asp'" in said
    base, novel = data.halves()
    assert (base.class_names, list(base.labels)) == (["ant", "asp"], [0])
    assert (novel.class_names, list(novel.labels)) == (["bee"], [0])
    assert list(data.of_classes([2, 1]).labels) == [0]
    result = mp.evaluate(mp.build("zero_shot", tiny_clip, data.class_names), data, progress=False)
    assert result.n == 2
    with pytest.warns(UserWarning, match="no picture of 1 of its 3 classes .'asp'.; prompts learn nothing"):
        mp.build("coop", tiny_clip, data.class_names, n_ctx=2).fit(data, epochs=1, warmup_epochs=0,
                                                                   progress=False)


def test_what_is_left_out_follows_its_class(root):
    put(root / "bee/x.heic")
    put(root / "x.jpg")
    data, _ = told(lambda: mp.folder(root))
    base, novel = data.halves()
    assert base.accounts["left_out"] == {"outside the class folders": 1}
    assert novel.accounts["left_out"] == {"outside the class folders": 1, "kind not read": 1}
    assert novel.left_out[-1].label == 0 and data.subset([0]).left_out == data.left_out


# ---- pixels ------------------------------------------------------------------------------------------
def tiff(values, bits, form=1, photometric=1, order="<"):
    """A grey TIFF of one strip, written byte by byte; form: 1 unsigned, 2 signed, 3 floating point."""
    data = values if isinstance(values, bytes) else values.tobytes()
    tags = [(256, 3, 8), (257, 3, 8), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 134),
            (277, 3, 1), (278, 3, 8), (279, 4, len(data)), (339, 3, form)]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    entries = b"".join(struct.pack(f"{order}HHI", tag, kind, 1)
                       + struct.pack(f"{order}I" if kind == 4 else f"{order}HH", value, *[0] * (kind == 3))
                       for tag, kind, value in tags)
    return head + entries + bytes(4) + data


def png(values, colour, key=None):
    """A PNG of 16 bits a channel, [H, W, channels]; colour: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(b"tRNS", key) if key else b"")
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def full(value, kind):
    return np.full((8, 8), value, kind)


def deep(*values):
    return np.broadcast_to(np.array(values, ">u2"), (8, 8, len(values)))


# file: its bytes, and the colour that they mean
RIGHT = {
    "u16.tif": (tiff(full(200 * 256, "<u2"), 16), (200,) * 3),
    "u16-big-endian.tif": (tiff(full(200 * 256, ">u2"), 16, order=">"), (200,) * 3),
    "u16-white-is-0.tif": (tiff(full(55 * 256, "<u2"), 16, photometric=0), (200,) * 3),
    "u8-white-is-0.tif": (tiff(full(55, "u1"), 8, photometric=0), (200,) * 3),
    "u12.tif": (tiff(bytes([0xC8, 0x0C, 0x80]) * 32, 12), (200,) * 3),          # two values of 0xC80 of 0xFFF
    "grey.png": (png(deep(200 * 256 + 9), 0), (200,) * 3),
    "grey-key.png": (png(deep(77 * 256 + 9), 0, struct.pack(">H", 77 * 256 + 9)), (255,) * 3),
    "grey-other-key.png": (png(deep(77 * 256 + 9), 0, struct.pack(">H", 9)), (77,) * 3),
    "rgb.png": (png(deep(200 * 256, 100 * 256, 7), 2), (200, 100, 0)),
    "rgb-key.png": (png(deep(200 * 256, 25700, 7), 2, struct.pack(">HHH", 200 * 256, 25700, 7)), (255,) * 3),
    "rgb-low-key.png": (png(deep(200 * 256, 25700, 7), 2, struct.pack(">HHH", 200, 100, 7)), (200, 100, 0)),
    "grey-alpha.png": (png(deep(200 * 256, 0), 4), (255,) * 3),
    "rgba.png": (png(deep(200 * 256, 100 * 256, 0, 65535), 6), (200, 100, 0)),
    "grey.pgm": (b"P5 8 8 65535\n" + full(200 * 256, ">u2").tobytes(), (200,) * 3),
    "grey-12-bit.pgm": (b"P5 8 8 4095\n" + full(200 * 16, ">u2").tobytes(), (199,) * 3),
    "rgb.ppm": (b"P6 8 8 65535\n" + deep(200 * 256, 100 * 256, 0).tobytes(), (200, 100, 0)),
}
NO_RANGE = {
    "s8.tif": tiff(full(-100, "i1"), 8, 2), "s16.tif": tiff(full(-100, "<i2"), 16, 2),
    "s16-positive.tif": tiff(full(9000, "<i2"), 16, 2),
    "s16-big-endian.tif": tiff(full(-100, ">i2"), 16, 2, order=">"),
    "s32.tif": tiff(full(2 ** 30, "<i4"), 32, 2), "s32-small.tif": tiff(full(200, "<i4"), 32, 2),
    "u32.tif": tiff(full(2 ** 31, "<u4"), 32), "u32-small.tif": tiff(full(200, "<u4"), 32),
    "f32.tif": tiff(full(0.5, "<f4"), 32, 3), "f32-big-endian.tif": tiff(full(0.5, ">f4"), 32, 3, order=">"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_pixels_that_have_a_range(name, root):
    content, colour = RIGHT[name]
    put(root / "ant" / name, content)
    image, said = told(lambda: open_image(root / "ant" / name))
    assert image.mode == "RGB" and not said
    assert np.abs(np.subtract(image.getpixel((2, 2)), colour)).max() <= 1      # the low byte is dropped
    loaded = Image.open(root / "ant" / name)
    loaded.load()
    if name != "rgb-low-key.png":                          # decoded, PIL no longer tells its depth
        assert to_rgb(loaded).getpixel((2, 2)) == image.getpixel((2, 2))


@pytest.mark.parametrize("name", NO_RANGE)
def test_pixels_without_a_range_are_refused(name, root, tiny_clip):
    put(root / "ant" / name, NO_RANGE[name])
    data = mp.folder(root)
    with pytest.raises(OSError, match="no defined range; save it with 8 bits a channel"):
        open_image(root / "ant" / name)
    with pytest.warns(UserWarning, match="1 of 3 images"):
        result = mp.evaluate(mp.build("zero_shot", tiny_clip, data.class_names), data, progress=False)
    assert [image for image, _ in result.skipped] == [f"ant/{name}"]
    with pytest.raises(ValueError, match=f"image ant/{name} of own.* cannot be read .*no defined range"):
        mp.build("coop", tiny_clip, data.class_names).fit(data, progress=False)


@pytest.mark.parametrize("kind, right", [("i2", None), ("i4", None), ("u4", None), ("f4", None),
                                         ("u2", (200,) * 3)])
def test_arrays_as_pictures(kind, right):
    image = Image.fromarray(np.full((4, 4), 200 * 256 if kind == "u2" else 100, kind))
    if right is None:
        with pytest.raises(ValueError, match="no defined range"):
            to_rgb(image)
    else:
        assert to_rgb(image).getpixel((0, 0)) == right


@pytest.mark.parametrize("name, content", [("x.png", png(deep(180), 0)),
                                           ("x.tif", tiff(full(180, "<u2"), 16))])
def test_a_picture_of_16_bits_that_comes_out_black_is_told(name, content, tmp_path):
    put(tmp_path / name, content)
    image, said = told(lambda: open_image(tmp_path / name))
    assert image.getpixel((0, 0)) == (0, 0, 0) and "largest value is 180 of 65535" in said
    put(tmp_path / name, png(deep(0), 0))
    assert told(lambda: open_image(tmp_path / name))[1] == ""                          # black it is


@pytest.mark.parametrize("mode, colour, right", [
    ("1", 1, (255,) * 3), ("LAB", (255, 128, 128), (255,) * 3), ("HSV", (0, 255, 255), (255, 0, 0)),
    ("YCbCr", (76, 85, 255), (254, 0, 0)), ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ("RGBX", (9, 8, 7, 0), (9, 8, 7)),
    ("RGBa", (0, 0, 0, 0), (255,) * 3), ("La", (0, 0), (255,) * 3), ("PA", (0, 0), (255,) * 3),
    ("I;16B", 200 * 256, (200,) * 3), ("I;16L", 200 * 256, (200,) * 3)])
def test_every_mode_means_something(mode, colour, right):
    image = Image.new(mode, (4, 4), colour)
    assert np.abs(np.subtract(to_rgb(image).getpixel((1, 1)), right)).max() <= 2       # colour profiles round


def test_shown_pictures_are_those_of_their_labels(root):
    assert right_pictures(mp.folder(root))
