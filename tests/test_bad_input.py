"""Everything that can be wrong with what a user hands in, a line for each case.

A case ends in one of three ways: the input means something defined, and a test says what; or one exception
names the value, what was expected and the mend; or a picture is left out and `result.skipped` counts it.
Never does n change silently.
"""

import errno
import io
import pickle
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_clip as tiny
import torch
from PIL import Image
from rounding import U, largest, moves

import minipsync as mp
from minipsync.clip.text import pack_texts
from minipsync.clip.weights import MINI_PATH
from minipsync.data.pictures import open_image
from minipsync.evaluation import records
from minipsync.source.domain import SourceDomain
from minipsync.views.crops import PROMPTSYNC_VIEWS, make_views

NAMES = ["ant", "bee"]
METHODS = {"zero_shot": {}, "tpt": {"n_views": 4, "selection": 0.5}}           # a plain one, a test-time one
RED, GREY, WHITE = (255, 0, 0), (128, 128, 128), (255, 255, 255)
pytestmark = pytest.mark.filterwarnings("ignore:.*never trained")


# ---- pictures ----------------------------------------------------------------------------------------
def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(mode="RGB", colour="red", size=(40, 30)):
    return Image.new(mode, size, colour)


def noise(size=(40, 30)):
    return Image.fromarray(np.random.RandomState(0).randint(0, 255, (*size[::-1], 3)).astype(np.uint8))


def palette():
    """Index 0, red, is transparent; the rest is blue."""
    image = Image.new("P", (40, 30), 1)
    image.putpalette([255, 0, 0, 0, 0, 255] + [0] * 756)
    image.paste(0, (0, 0, 20, 30))
    return image


def animation(kind):
    return saved(plain(), kind, save_all=True, append_images=[plain(colour="blue")], duration=50, loop=0,
                 **({"lossless": True} if kind == "WEBP" else {}))


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6                                       # "turn me by 90 degrees"
    return saved(plain(), "JPEG", exif=exif)


def sixteen(value, kind):
    return saved(Image.fromarray(np.full((30, 40), value, np.uint16)), kind)


def cut(data, share=0.6):
    return data[:int(len(data) * share)]


# file: (its bytes, size as read, colour of its left as read within 3; or what `skipped` says)
ODD = {
    "cmyk.jpg": (lambda: saved(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=95), (40, 30), RED),
    "grey.jpg": (lambda: saved(plain("L", 128), "JPEG"), (40, 30), GREY),
    "one-bit.png": (lambda: saved(plain("1", 1), "PNG"), (40, 30), WHITE),
    "grey-16-bit.png": (lambda: sixteen(128 * 256 + 5, "PNG"), (40, 30), GREY),         # not clipped to white
    "grey-16-bit.tif": (lambda: sixteen(128 * 256 + 5, "TIFF"), (40, 30), GREY),
    "grey-alpha.png": (lambda: saved(plain("LA", (0, 0)), "PNG"), (40, 30), WHITE),
    "transparent.png": (lambda: saved(plain("RGBA", (255, 0, 0, 0)), "PNG"), (40, 30), WHITE),
    "half-transparent.png": (lambda: saved(plain("RGBA", (1, 1, 1, 128)), "PNG"), (40, 30), (127,) * 3),
    "palette.png": (lambda: saved(palette(), "PNG"), (40, 30), RED),
    "palette-transparent.png": (lambda: saved(palette(), "PNG", transparency=0), (40, 30), WHITE),
    "palette-alpha.png": (lambda: saved(palette(), "PNG", transparency=bytes([0, 255])), (40, 30), WHITE),
    "palette-transparent.gif": (lambda: saved(palette(), "GIF", transparency=0), (40, 30), WHITE),
    "colour-key.png": (lambda: saved(plain(), "PNG", transparency=RED), (40, 30), WHITE),
    "animated.gif": (lambda: animation("GIF"), (40, 30), RED),                           # its first frame
    "animated.webp": (lambda: animation("WEBP"), (40, 30), RED),
    "exif-rotated.jpg": (rotated, (40, 30), RED),          # not turned, as in the official codes
    "one-pixel.png": (lambda: saved(plain(size=(1, 1)), "PNG"), (1, 1), RED),
    "wide.png": (lambda: saved(plain(size=(20_000, 10)), "PNG"), (20_000, 10), RED),
    "high.png": (lambda: saved(plain(size=(1, 60_000)), "PNG"), (1, 60_000), RED),
    "png-called.jpg": (lambda: saved(plain(), "PNG"), (40, 30), RED),
    "damaged.jpg": (lambda: b"\xff\xd8" + saved(noise(), "JPEG")[200:], "cannot identify image file"),
    "damaged.png": (lambda: saved(noise(), "PNG").replace(b"IDAT", b"IDOT"), "broken PNG|cannot|truncated"),
    "header.ppm": (lambda: b"P6 4x 4 255 " + bytes(48), "ValueError: "),                # PIL: no OSError
    "truncated.jpg": (lambda: cut(saved(noise(), "JPEG")), "truncated"),
    "truncated.png": (lambda: cut(saved(noise(), "PNG")), "truncated|unrecognized data|cannot"),
    "truncated.webp": (lambda: cut(saved(noise(), "WEBP")), "WEBP|webp|decoder|truncated|cannot"),
    "truncated.gif": (lambda: cut(saved(noise(), "GIF")), "truncated|cannot"),
    "truncated.bmp": (lambda: cut(saved(noise(), "BMP")), "truncated"),
    "truncated.tif": (lambda: cut(saved(noise(), "TIFF")), "truncated|cannot"),
    "empty.jpg": (lambda: b"", "cannot identify image file"),
    "text.jpg": (lambda: b"dear diary, today I saw a bee\n", "cannot identify image file"),
    "floats.tif": (lambda: saved(plain("F", 0.5), "TIFF"), "floating point pixels have no defined range"),
    "whole-numbers.tif": (lambda: saved(plain("I", 32768), "TIFF"), "whole numbers have no defined range"),
    "bomb.ppm": (lambda: b"P4 20000 10000\n", "DecompressionBombError: .*200000000 pixels"),
}
READ = [name for name, case in ODD.items() if len(case) == 3]
SKIPPED = [name for name in ODD if name not in READ]


@pytest.fixture
def picture_folder(tmp_path):
    """Two classes with a good picture each; `name` is added to the first."""
    def make(name=None, more=()):
        good = saved(noise(), "PNG")
        odd = [(f"ant/{name}", ODD[name][0]())] if name else []
        for file, content in [("ant/good.png", good), ("bee/good.png", good), *odd, *more]:
            (tmp_path / "own" / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "own" / file).write_bytes(content)
        return tmp_path / "own"
    return make


@pytest.mark.parametrize("name", READ)
def test_odd_pictures_mean_something_defined(name, picture_folder, tiny_clip):
    path = picture_folder(name) / "ant" / name
    image = open_image(path)
    _, size, colour = ODD[name]
    assert image.mode == "RGB" and image.size == size
    assert np.abs(np.subtract(image.getpixel((0, 0)), colour)).max() <= 3
    views = make_views(image, 12, tiny_clip, PROMPTSYNC_VIEWS)             # crops, backgrounds, corruptions
    assert views.shape == (12, 3, 32, 32) and views.isfinite().all()
    for method, settings in METHODS.items():
        method = mp.build(method, tiny_clip, NAMES, **settings)
        result = mp.evaluate(method, mp.folder(path.parent.parent), progress=False)
        assert (result.n, result.skipped) == (3, [])
        assert torch.equal(method.predict([Image.open(path)]), method.predict(image))      # both ways alike


@pytest.mark.parametrize("name", SKIPPED)
def test_unreadable_pictures_are_counted(name, picture_folder, tiny_clip):
    data = mp.folder(picture_folder(name))
    for method, settings in METHODS.items():
        with pytest.warns(UserWarning, match=rf"1 of 3 images of own-\w{{6}} could not be read .*ant/{name}"):
            result = mp.evaluate(mp.build(method, tiny_clip, NAMES, **settings), data, progress=False)
        assert result.n == 2 and "1 unreadable image" in repr(result)
        assert [image for image, _ in result.skipped] == [f"ant/{name}"]
        assert re.search(ODD[name][1], result.skipped[0][1]), result.skipped


@pytest.mark.parametrize("name", ["truncated.jpg", "truncated.png", "truncated.gif", "truncated.bmp",
                                  "truncated.tif", "floats.tif"])
def test_pictures_that_open_but_cannot_be_decoded(name, picture_folder, tiny_clip):
    path = picture_folder(name) / "ant" / name
    good = Image.open(path.parent / "good.png")
    for method, settings in METHODS.items():
        method = mp.build(method, tiny_clip, NAMES, **settings)
        with Image.open(path) as bad, pytest.raises(ValueError, match=rf"images\[1\].*{name}.*cannot be"):
            method.predict([good, bad])
    with pytest.raises(ValueError, match=rf"image ant/{name} of own-\w{{6}} cannot be read .*leave it out"):
        mp.build("coop", tiny_clip, NAMES).fit(mp.folder(path.parent.parent), progress=False)


# ---- what is handed to `predict` ---------------------------------------------------------------------
def closed():
    image = Image.open(io.BytesIO(saved(plain(), "PNG")))
    image.close()
    return image


# what is wrong: (images, error, what it says)
IMAGES = {
    "nothing": ([], ValueError, "images is an empty list; expected at least one PIL image"),
    "path": ("cat.png", TypeError, r"images is a str; expected a PIL image.*Image.open"),
    "array": (np.zeros((3, 32, 32)), TypeError, "images is a ndarray.*Image.fromarray"),
    "list of tensors": ([torch.zeros(3, 32, 32)], TypeError, r"images\[0\] is a Tensor.*torch.stack"),
    "none among pictures": ([plain(), None], TypeError, r"images\[1\] is a NoneType"),
    "closed file": (closed(), ValueError, r"images\[0\] cannot be used.*opened and not closed"),
    "no pixels": (plain(size=(0, 5)), ValueError, r"images\[0\] cannot be used: it has no pixels.*\(0, 5\)"),
    "floating point": (plain("F", 0.5), ValueError, "floating point pixels.*8 bits a channel"),
    "no batch axis": (torch.zeros(3, 32, 32), ValueError,
                      r"shape \(3, 32, 32\); this CLIP wants \[B, 3, 32, 32\].*images\[None\] adds"),
    "empty batch": (torch.zeros(0, 3, 32, 32), ValueError, r"shape \(0, 3, 32, 32\)"),
    "channels last": (torch.zeros(1, 32, 32, 3), ValueError, r"shape \(1, 32, 32, 3\).*clip.preprocess"),
    "wrong size": (torch.zeros(1, 3, 64, 64), ValueError, r"shape \(1, 3, 64, 64\); this CLIP wants"),
    "bytes": (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), TypeError, "torch.uint8.*images / 255"),
    "NaN": (torch.full((1, 3, 32, 32), torch.nan), ValueError, "images contains NaN or infinity"),
    "infinity": (torch.full((1, 3, 32, 32), torch.inf), ValueError, "images contains NaN or infinity"),
    "no device": (torch.zeros(1, 3, 32, 32, device="meta"), ValueError, "device 'meta'.*expected 'cpu'"),
}


@pytest.mark.parametrize("what", IMAGES)
@pytest.mark.parametrize("method", METHODS)
def test_images(method, what, tiny_clip):
    images, error, words = IMAGES[what]
    with pytest.raises(error, match=words):
        mp.build(method, tiny_clip, NAMES, **METHODS[method]).predict(images)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_are_good(method, dtype, tiny_clip):
    images = tiny_clip.preprocess([noise()]).to(dtype)
    method = mp.build(method, tiny_clip, NAMES, **METHODS[method])
    assert torch.equal(method.predict(images), method.predict(images.float()))


def test_a_strip_gives_what_resizing_all_of_it_gives(tiny_clip):
    from torchvision.transforms import v2 as T
    strip = noise((150, 1)).resize((15_000, 100), Image.Resampling.BILINEAR)
    whole = T.Compose([T.Resize(32, T.InterpolationMode.BICUBIC), T.CenterCrop(32), T.ToImage(),
                       T.ToDtype(torch.float32, scale=True)])(strip)
    # PIL rounds to 8 bits; four float32 roundings come on top (see test_clip)
    assert largest(tiny_clip.denormalize(tiny_clip.preprocess(strip)[0]), whole) < 1 / 255 + 4 * U


# ---- data sets ---------------------------------------------------------------------------------------
def listed(text, encoding="utf-8"):
    """`mp.folder` on pictures of two classes with this classnames.txt."""
    return lambda x: mp.folder(x.pictures(more=[("classnames.txt", text.encode(encoding))]))


def build_of(names, method="zero_shot"):
    return lambda x: mp.build(method, x.clip, names).predict(plain())


def build(*names, method="zero_shot"):
    return build_of(list(names), method)


LONG = "very " * 200 + "long name"
# what is wrong: (call, error, what it says)
DATA = {
    "no folder": (lambda x: mp.folder(x.path / "nowhere"), FileNotFoundError, "there is no folder .*nowhere"),
    "a file": (lambda x: mp.folder(x.pictures() / "ant/good.png"), FileNotFoundError, "there is no folder"),
    "no classes": (lambda x: mp.folder(x.path), ValueError, "has no sub-folders; expected one for each"),
    "no picture": (lambda x: (x.path / "own/ant").mkdir(parents=True) or mp.folder(x.path / "own"),
                   ValueError, "none of the 1 class folders .*own' holds a picture"),
    "file name is no text": (lambda x: mp.folder(x.pictures(more=[("ant/a\nb.jpg", b"")])), ValueError,
                             r"file name 'ant/a\\nb.jpg'.*rename it"),
    "line missing": (listed("ant big ant\n"), ValueError, "no class name for the folder bee"),
    "line too many": (listed("ant a\nbee b\ncow c\n"), ValueError, "line 3 of .*'cow c'; expected.*2 f"),
    "line twice": (listed("ant a\nbee b\nant c\n"), ValueError, "line 3 of .*'ant c'; expected.*once"),
    "line without name": (listed("ant a\nbee\n"), ValueError, "line 2 of .*'bee'; expected 'folder name'"),
    "lines are not UTF-8": (listed("ant fourmi\nbee abeille à miel\n", "latin-1"), ValueError,
                            "classnames.txt' is not UTF-8 text"),
    "names have no order": (lambda x: mp.folder(x.pictures(), {"ant", "bee"}), TypeError,
                            "is a set; expected a list of strings, whose order says the labels"),
    "names are numbers": (lambda x: mp.folder(x.pictures(), [1, 2]), ValueError, r"class_names\[0\]=1; ex"),
    "names of a dict": (build_of({"ant": 0, "bee": 1}), TypeError, "is a dict; expected a list of strings"),
    "nothing but underscores": (build("ant", "__"), ValueError, r"class_names\[1\]='__'; expected a non-em"),
    "names too few": (lambda x: mp.folder(x.pictures(), ["ant"]), ValueError, "1 class names for 2 folders"),
    "names are a str": (lambda x: mp.folder(x.pictures(), "ab"), TypeError, "class_names='ab' is a str"),
    "name missing": (lambda x: mp.folder(x.pictures(), {"ant": "ant"}), ValueError, "no class name.*bee"),
    "no names": (build(), ValueError, "class_names is empty"),
    "empty name": (build("ant", ""), ValueError, r"class_names\[1\]=''; expected a non-empty string"),
    "blank name": (build("ant", " "), ValueError, r"class_names\[1\]=' '; expected a non-empty string"),
    "name is a number": (build("ant", 3), ValueError, r"class_names\[1\]=3; expected a non-empty string"),
    "long name": (build("ant", LONG), ValueError, "text 1, 'a photo of a very .* has 20. tokens.*at most 77"),
    "long name, context": (build("ant", LONG, method="coop"), ValueError,
                           "name of class 1, 'very .* has 202 tokens, but only .* shorten the name"),
    "label too high": (lambda x: mp.Dataset("own", NAMES, [0, 2], ["a", "b"], plain), ValueError,
                       "'own': labels from 0 to 2, expected 0 … 1 for 2 class names"),
    "label below 0": (lambda x: mp.Dataset("own", NAMES, [-1], ["a"], plain), ValueError, "from -1 to -1"),
    "label is no whole number": (lambda x: mp.Dataset("own", NAMES, [0.5], ["a"], plain), ValueError,
                                 "labels are float64, first .*0.5.*expected whole numbers"),
    "labels too few": (lambda x: mp.Dataset("own", NAMES, [0], ["a", "b"], plain), ValueError,
                       "1 labels but 2 images"),
    "other classes": (lambda x: mp.evaluate(mp.build("zero_shot", x.clip, ["bee", "ant"]),
                                            mp.folder(x.pictures()), progress=False), ValueError,
                      r"from class 0 on they differ \('bee' and 'ant'\).*set_class_names"),
    "not a data set": (lambda x: mp.evaluate(mp.build("zero_shot", x.clip, NAMES), [plain()]), TypeError,
                       r"data=list has no name.*folder\("),
    "unknown data set": (lambda x: mp.benchmark("mini").dataset("skech"), ValueError,
                         "'skech'.*expected one of: imagenet.*Did you mean 'sketch'"),
    "unknown data set, full": (lambda x: mp.benchmark("full", x.path).dataset("eurosad"), ValueError,
                               "'eurosad'; expected one of: imagenet.*Did you mean 'eurosat'"),
    "unknown split": (lambda x: mp.benchmark("mini").dataset("sketch", "training"), ValueError,
                      "'sketch' has no split 'training', expected 'test'"),
    "unknown benchmark": (lambda x: mp.benchmark("mimi"), ValueError, "'mimi'.*mini, full.*mean 'mini'"),
}


@pytest.fixture
def x(tmp_path, tiny_clip, picture_folder):
    """What the calls of a table work with."""
    return SimpleNamespace(path=tmp_path, clip=tiny_clip, pictures=picture_folder)


@pytest.mark.parametrize("what", DATA)
def test_data(what, x):
    call, error, words = DATA[what]
    with pytest.raises(error, match=words):
        call(x)


# names as given: the sentences that zero-shot CLIP reads
GOOD_NAMES = {
    "twice": (["missile", "missile"], ["a photo of a missile."] * 2),                    # as in ImageNet
    "underscores": (["hot_dog", "t-shirt"], ["a photo of a hot dog.", "a photo of a t-shirt."]),
    "non-ASCII": (["crème brûlée", "寿司"], ["a photo of a crème brûlée.", "a photo of a 寿司."]),
    "quotes and braces": (['it\'s "x"', "{}"], ['a photo of a it\'s "x".', "a photo of a {}."]),
}


@pytest.mark.parametrize("what", GOOD_NAMES)
def test_names_that_are_good(what, picture_folder, tiny_clip):
    names, sentences = GOOD_NAMES[what]
    data = mp.folder(picture_folder(), names)
    assert data.class_names == names
    method = mp.build("zero_shot", tiny_clip, data.class_names)
    assert torch.equal(method.text_features(), tiny_clip.encode_text(pack_texts(sentences)))
    assert mp.evaluate(method, data, progress=False).n == 2
    assert mp.build("maple", tiny_clip, names).predict(plain()).shape == (1, 2)


def test_files_beside_the_pictures(picture_folder):
    root = picture_folder(more=[("ant/._good.png", b"a Mac wrote this"), ("ant/notes.txt", b"mine"),
                                ("ant/Thumbs.db", b"Windows"), (".git/a.png", b""),
                                ("classnames.txt", b"\xef\xbb\xbfant big ant\n\nbee  honey bee \n")])
    with warnings.catch_warnings(action="error"):
        data = mp.folder(root, templates="a sketch of a {}.")
    assert len(data) == 2 and data.class_names == ["big ant", "honey bee"] and len(data.templates) == 1
    (root / "ant/phone.svg").write_bytes(b"")
    with pytest.warns(UserWarning, match="left out of .*: 1 .kind not read, first 'ant/phone.svg'.*convert"):
        assert len(mp.folder(root)) == 2


# ---- weights -----------------------------------------------------------------------------------------
def state(**changes):
    tensors = tiny.tiny_state_dict(0) | changes
    return {k: v for k, v in tensors.items() if v is not None}


def file(name, content):
    """A file in the test's folder: bytes as they are, anything else as torch.save writes it."""
    def write(x):
        if isinstance(content, bytes):
            (x.path / name).write_bytes(content)
        else:
            torch.save(content, x.path / name)
        return x.path / name
    return write


def clip_of(make, name="mini"):
    return lambda x: mp.load_clip(name, weights=make(x), device="cpu")


def load(make, method="maple", **more):
    return lambda x: mp.build(method, x.clip, NAMES).load(make(x), **{k: m(x) for k, m in more.items()})


def official(make):
    return lambda x: mp.build("coop", x.clip, NAMES).load_official(make(x))


def prompts(name="maple.safetensors", share=1.0, nan=False):
    """MaPLe's prompts, saved whole or in part."""
    def write(x):
        method = mp.build("maple", x.clip, NAMES)
        if nan:
            method.learner.ctx.data[0, 0] = torch.nan
        path = method.save(x.path / name)
        path.write_bytes(cut(path.read_bytes(), share))
        return path
    return write


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


PICKLE, BOMB = pickle.dumps({"ctx": 1}, 2), pickle.dumps(Bomb(), 2)
NORM = "visual.ln_post.weight"
WEIGHTS = {
    "unknown model": (lambda x: mp.load_clip("ViT-B-17"), ValueError, "unknown CLIP 'ViT-B-17'.*'ViT-B-16'"),
    "unknown tag": (lambda x: mp.load_clip("ViT-B-16", weights="laion9"), ValueError,
                    "'laion9' is neither a file nor a tag of ViT-B-16, expected one of openai"),
    "unknown precision": (lambda x: mp.load_clip(precision="fp8"), ValueError,
                          "precision is 'fp8', expected one of fp32, bf16, fp16"),
    "unknown device": (lambda x: mp.load_clip(device="tpu"), ValueError,
                       "device='tpu' cannot be used here .*expected 'cpu'"),
    "no such GPU": (lambda x: mp.load_clip(device="cuda:99"), ValueError, "device='cuda:99' cannot.*'cpu'"),
    "device without values": (lambda x: mp.load_clip(device="meta"), ValueError, "device='meta' cannot be"),
    "no file": (clip_of(lambda x: x.path / "mine.safetensors"), FileNotFoundError, "no file .*mine.safe"),
    "NaN": (lambda x: mp.load_clip(state_dict=state(**{NORM: torch.full((192,), torch.nan)}), device="cpu"),
            ValueError, f"1 of .* tensors of custom contain NaN or infinity, first {NORM}"),
    "NaN in a file": (clip_of(file("a.pt", state(**{NORM: torch.full((192,), torch.inf)}))), ValueError,
                      "contain NaN or infinity"),
    "no CLIP": (lambda x: mp.load_clip(state_dict={"fc.weight": torch.zeros(2, 2)}), ValueError,
                "the given state dict has names that are no CLIP's, first fc.weight; known are the"),
    "other architecture": (lambda x: mp.load_clip(state_dict=state(**{NORM: torch.zeros(64)})), ValueError,
                           f"does not fit the architecture.*{NORM}"),
    "tensor missing": (lambda x: mp.load_clip(state_dict=state(**{NORM: None})), ValueError,
                       f"does not fit the architecture.*{NORM}"),
    "pickle": (clip_of(file("a.safetensors", PICKLE)), ValueError, "a.safetensors is damaged, or no checkpo"),
    "truncated mini": (clip_of(file("a.safetensors", MINI_PATH.read_bytes()[:500_000])), ValueError,
                       "a.safetensors is not a whole safetensors file.*fetch or save it again"),
    "empty": (clip_of(file("a.safetensors", b"")), ValueError, "a.safetensors is empty; expected weights"),
    "empty .pt": (clip_of(file("a.pt", b"")), ValueError, "a.pt is empty; expected weights"),
    "text .pt": (clip_of(file("a.pt", b"not found")), ValueError, "a.pt is damaged, or no checkpoint"),
    "code": (clip_of(file("a.pt", BOMB)), ValueError, "a.pt is damaged, or no checkpoint"),
    "list .pt": (clip_of(file("a.pt", [1, 2])), ValueError, "a.pt holds a list, without tensors by name"),
    "prompts: no file": (load(lambda x: x.path / "none"), FileNotFoundError, "none does not exist"),
    "prompts: pickle": (load(file("a.safetensors", PICKLE)), ValueError, "pickles are refused.*load_off"),
    "prompts: truncated": (load(prompts(share=0.5)), ValueError, "is not a whole safetensors file"),
    "prompts: empty": (load(prompts(share=0)), ValueError, "maple.safetensors is empty"),
    "prompts: NaN": (load(prompts(nan=True)), ValueError, "contains NaN or infinity"),
    "prompts: other method": (load(prompts(), "coop"), ValueError, "holds prompts of 'maple'; coop"),
    "prompts: a CLIP": (load(lambda x: MINI_PATH), ValueError, "but not minipsync-prompts-1"),
    "official: code": (official(file("a.pt", BOMB)), ValueError, "a.pt is damaged, or no checkpoint"),
    "official: damaged": (official(file("a.pt", b"PK\3\4")), ValueError, "a.pt is damaged, or no checkpoint"),
    "source: pickle": (lambda x: SourceDomain.load(file("s.safetensors", PICKLE)(x)),
                       ValueError, "s.safetensors is not a whole safetensors file"),
    "source: prompts": (lambda x: SourceDomain.load(prompts("s.safetensors")(x)),
                        ValueError, "s.safetensors holds .*expected source moments"),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights(what, x):
    call, error, words = WEIGHTS[what]
    with pytest.raises(error, match=words) as caught:
        call(x)
    assert len(str(caught.value)) < 1500                                  # to be read, not scrolled


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu():
    with pytest.raises(ValueError, match="device='cuda' cannot be used here .*expected 'cpu'"):
        mp.load_clip(device="cuda")


# ---- settings ----------------------------------------------------------------------------------------
def setting(method="tpt", **settings):
    return lambda x: mp.build(method, x.clip, NAMES, **settings)


def run(**settings):
    return lambda x: mp.evaluate(mp.build("zero_shot", x.clip, NAMES), mp.folder(x.pictures()), **settings)


SETTINGS = {
    "unknown method": (setting("promtsync"), ValueError, "'promtsync'; the methods are .*'promptsync'"),
    "method is no name": (setting(["tpt"]), ValueError, r"unknown method \['tpt'\]; the methods are"),
    "unknown setting": (setting(n_view=4), ValueError, "tpt: unknown setting 'n_view'.*'n_views'.*Good"),
    "wrong type": (setting(n_views="64"), ValueError, r"tpt: n_views='64' \(str\) does not fit; expected"),
    "no whole number": (setting(n_views=4.5), ValueError, "n_views=4.5 .*.* a whole number, 1 .*example 64"),
    "yes for a number": (setting(steps=True), ValueError, "steps=True .*expected a whole number"),
    "NaN": (setting(lr=float("nan")), ValueError, "lr=nan .*expected a number"),
    "below its range": (setting(n_views=0), ValueError, "n_views=0 does not fit; .* number, 1 or more"),
    "no such choice": (setting(start="word"), ValueError, "start='word'.*one of 'words', 'coop', 'cocoop'"),
    "no place for the name": (setting("zero_shot", template="a photo"), ValueError, "template='a photo'.*{}"),
    "no CLIP": (lambda x: mp.build("tpt", "ViT-B-16", NAMES), TypeError, "clip is a str; expected load_clip"),
    "limit": (run(limit=0), ValueError, "limit=0: expected a whole number of images, 1 or more, or None"),
    "batch size": (run(batch_size="16"), ValueError, "batch_size='16': expected a whole number"),
    "seed": (run(sample_seed=None), ValueError, "sample_seed=None: expected a whole number"),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_settings(what, x):
    call, error, words = SETTINGS[what]
    with pytest.raises(error, match=words):
        call(x)


# ---- records -----------------------------------------------------------------------------------------
class FullDisk(io.FileIO):
    """A file with room for its header alone."""

    def write(self, content):
        if self.tell():
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(content)


def refuse(path, mode, buffering=-1):
    raise PermissionError(errno.EACCES, "Permission denied")


def no_lock(path, mode, buffering=-1):
    raise OSError(errno.EROFS, "Read-only file system")


# what is wrong: (what `open` does in evaluation/records.py, content of the file before, error, what it says)
RECORDS = {
    "disk full": (lambda path, mode, buffering: FullDisk(path, "a+"), None, OSError,
                  r"records cannot be written \(No space left on device\).*records=None.*own.csv"),
    "folder is read-only": (refuse, None, PermissionError, r"records cannot be .*Permission denied\)"),
    "disk is read-only": (no_lock, None, OSError, r"records cannot be written \(Read-only file system\)"),
    "a text": (open, "dear diary,\n", ValueError, "own.csv is not a file of records"),
    "another table": (open, "image,label\na,0\n", ValueError, "is not a file of records.*another file name"),
}


@pytest.mark.parametrize("what", RECORDS)
def test_records(what, picture_folder, tiny_clip, tmp_path, monkeypatch):
    opened, content, error, words = RECORDS[what]
    path, data = tmp_path / "own.csv", mp.folder(picture_folder())
    if content is not None:
        path.write_text(content)
    with monkeypatch.context() as patched:
        patched.setattr(records, "open", opened, raising=False)
        with pytest.raises(error, match=words):
            mp.evaluate(mp.build("zero_shot", tiny_clip, NAMES), data, records=path, progress=False)
    if content is not None:
        assert path.read_text() == content                                  # nobody's file was touched
    else:                                                    # what is written goes on once there is room
        assert mp.evaluate(mp.build("zero_shot", tiny_clip, NAMES), data, records=path, progress=False).n == 2


# ---- memory ------------------------------------------------------------------------------------------
SHORT = {
    "CUDA": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "CUDA, as older versions say it": RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
    "CPU": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000 bytes."),
    "Python": MemoryError(),
}


def memory_for(clip, images, error, monkeypatch):
    """Let the image encoder fail for more than so many images; returns the list of sizes that were tried."""
    encode, tried = clip.encode_image, []

    def limited(x, *args, **kwargs):
        tried.append(x.shape[:-3].numel())
        if tried[-1] > images:
            raise error
        return encode(x, *args, **kwargs)

    monkeypatch.setattr(clip, "encode_image", limited)
    return tried


@pytest.mark.parametrize("error", SHORT)
@pytest.mark.parametrize("name", METHODS)
def test_out_of_memory_halves_the_batch(name, error, tiny_clip, monkeypatch, gradient_descent):
    method = mp.build(name, tiny_clip, NAMES, **METHODS[name])
    pictures = [plain(colour=(40 * i, 90, 255 - 40 * i)) for i in range(7)]

    def predict(clip):
        return mp.build(name, clip, NAMES, **METHODS[name]).predict(pictures)

    expected, bound = method.predict(pictures), 2 * moves(predict, tiny_clip)             # other batches
    views = METHODS[name].get("n_views", 1)
    tried = memory_for(tiny_clip, 2 * views, SHORT[error], monkeypatch)
    with pytest.warns() as told:
        assert largest(method.predict(pictures), expected) < bound
    assert [str(w.message) for w in told] == [
        f"{name}: memory ran out with {m} images at a time; going on with {n}" for m, n in [(7, 3), (3, 1)]]
    assert told[0].filename == __file__ and max(tried) == 7 * views
    tried.clear()
    assert largest(method.predict(pictures), expected) < bound
    assert max(tried) == views                                              # the size is remembered,
    assert mp.build(name, tiny_clip, NAMES, **METHODS[name]).max_batch is None          # by this method alone


@pytest.mark.parametrize("name, mend", [("zero_shot", "method.image_batch=128 or the number of classes .2."),
                                        ("tpt", "lower n_views=4, method.image_batch=128.*precision='bf16'")])
def test_out_of_memory_with_one_image_says_what_to_lower(name, mend, tiny_clip, monkeypatch):
    method = mp.build(name, tiny_clip, NAMES, **METHODS[name])
    memory_for(tiny_clip, 0, SHORT["CUDA"], monkeypatch)
    with pytest.raises(torch.cuda.OutOfMemoryError, match=f"one image at a time.*{mend}"):
        method.predict(plain())


def test_other_errors_pass(tiny_clip, monkeypatch):
    tried = memory_for(tiny_clip, 0, RuntimeError("device-side assert triggered"), monkeypatch)
    with pytest.raises(RuntimeError, match="^device-side assert"):
        mp.build("zero_shot", tiny_clip, NAMES).predict([plain()] * 4)
    assert tried == [4]                                                     # and nothing is tried again
