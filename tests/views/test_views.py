"""Views of an image: crops, flips, backgrounds, AugMix, corruptions. Text views: WordNet variants of a name.

Where PIL or torchvision has the operation, it is the reference.
"""

import io
import json
import math
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps
from rounding import U, largest, resampling, sums
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as TV
from torchvision.transforms.functional import pil_to_tensor

from minipsync.views import augment, wordnet
from minipsync.views.crops import (
    PROMPTSYNC_VIEWS,
    ViewConfig,
    content_seed,
    crop_boxes,
    make_views,
    resize_crops,
    working_copy,
)
from minipsync.views.wordnet import text_variants

WHOLE = dict(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))    # the only crop of a square image is all of it


def photo(width=48, height=40, seed=0):
    """A picture with edges, slopes and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([127 + 90 * np.sin(x / 7 + seed), 255 * y / height, 255 * x / width], -1)
    image = Image.fromarray((rgb + rng.normal(0, 4, rgb.shape)).clip(0, 255).astype(np.uint8))
    ImageDraw.Draw(image).ellipse((width // 3, height // 4, width // 2, height // 2), "yellow", "black")
    return image


def floats(image):
    return pil_to_tensor(image).float() / 255                                                      # (3, H, W)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- view sets ----
@pytest.mark.parametrize("settings", [{}, {"augmix": True}, {"background": 0.5, "corruption": 0.5}])
def test_view_0_is_the_image(tiny_clip, settings):
    image = photo(90, 70)
    x = make_views(image, 6, tiny_clip, **settings)
    assert x.shape == (6, 3, 32, 32) and x.dtype == torch.float32
    assert torch.equal(x[0], tiny_clip.preprocess(image)[0])
    assert all(not torch.equal(a, b) for i, a in enumerate(x) for b in x[:i])
    low, high = (tiny_clip.normalize(torch.full((1, 3, 1, 1), v)) for v in (0.0, 1.0))
    assert (x >= low).all() and (x <= high).all()         # rounding keeps the order of numbers
    assert torch.equal(make_views(image, 1, tiny_clip, **settings), x[:1])


def test_model_input_is_view_0_and_the_source_of_the_others(tiny_clip):
    image = photo(32, 32)
    x = tiny_clip.preprocess(image)[0]
    ours = make_views(x, 5, tiny_clip, seed=3)
    assert torch.equal(ours[0], x)
    # normalised and back: four roundings of pixels up to 1 (see test_clip), averages of 32 of them, twice,
    # and normalised again
    bound = (4 * U + 2 * sums(32)) / min(tiny_clip.std)
    assert largest(ours, make_views(image, 5, tiny_clip, seed=3)) < bound


def test_a_seed_means_the_same_views(tiny_clip):
    a, b = photo(seed=1), photo(seed=2)
    first = {name: make_views(image, 8, tiny_clip, PROMPTSYNC_VIEWS, seed=content_seed(image))
             for name, image in (("a", a), ("b", b))}
    torch.rand(5)                                             # another state of the global generator
    for name, image in (("b", b), ("a", a.copy())):           # and another order
        again = make_views(image, 8, tiny_clip, PROMPTSYNC_VIEWS, seed=content_seed(image))
        assert torch.equal(again, first[name])
    other = make_views(a, 8, tiny_clip, PROMPTSYNC_VIEWS, seed=content_seed(a, seed=1))
    assert torch.equal(other[0], first["a"][0]) and not torch.equal(other[1:], first["a"][1:])


def test_views_leave_the_global_generators_alone(tiny_clip):
    before = torch.get_rng_state()
    make_views(photo(), 6, tiny_clip, PROMPTSYNC_VIEWS, augmix=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_content_seed():
    image = photo()
    changed, turned = image.copy(), Image.frombytes("RGB", image.size[::-1], image.tobytes())
    changed.putpixel((3, 3), (0, 0, 0))
    seeds = [content_seed(x, s) for x in (image, changed, turned) for s in (0, 1)]
    assert len(set(seeds)) == 6 and all(0 <= s < 2**63 for s in seeds)
    assert content_seed(image.convert("RGBA")) == content_seed(image.copy()) == seeds[0]
    assert content_seed(Image.new("RGB", (2, 1), (1, 2, 3))) == 229310736816160847         # on every machine


def test_content_seed_of_tensors_forgives_rounding_noise():
    x = torch.randint(-100, 100, (3, 8, 8), generator=generator()) / 64
    assert content_seed(x) == content_seed(x + 2e-3) == content_seed(x.double())
    assert content_seed(x) != content_seed(x + 1 / 64)
    assert content_seed(x) != content_seed(x.view(3, 4, 16))


def test_a_wrong_image_or_number_of_views(tiny_clip):
    with pytest.raises(ValueError, match=r"\(3, 40, 32\).*\(3, 32, 32\).*preprocess"):
        make_views(torch.zeros(3, 40, 32), 4, tiny_clip)
    with pytest.raises(ValueError, match="n=0.*at least 1"):
        make_views(photo(), 0, tiny_clip)
    with pytest.raises(ValueError, match="'flop'.*Did you mean 'flip'"):
        make_views(photo(), 2, tiny_clip, flop=1.0)


@pytest.mark.parametrize("name, value", [
    ("crop_scale", (0.0, 1.0)), ("crop_scale", (0.5, 0.2)), ("crop_scale", (0.5, 1.5)),
    ("crop_ratio", (0.0, 1.0)), ("crop_ratio", (2.0, 1.0)), ("flip", 1.5), ("background", -0.1),
    ("corruption", 2.0),
    ("interpolation", "nearest"), ("augmix_severity", 0.0), ("augmix_severity", 11.0), ("corruptions", ()),
    ("corruptions", ("rain",)), ("corruption_severity", 0), ("corruption_severity", 6)])
def test_bad_settings_name_the_value(name, value):
    with pytest.raises(ValueError) as error:
        ViewConfig(**{name: value})
    assert f"{name}={value!r}" in str(error.value) and "expected" in str(error.value)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_kind_of_image(tiny_clip, mode):
    assert make_views(photo().convert(mode), 3, tiny_clip, augmix=True).isfinite().all()


# ---- crops ----
def test_boxes_are_inside_and_in_range():
    config = ViewConfig()
    for height, width in ((64, 64), (50, 90), (224, 100)):
        top, left, h, w = crop_boxes(2000, height, width, config, generator()).T
        assert (top >= 0).all() and (top + h <= height).all()
        assert (left >= 0).all() and (left + w <= width).all()
        low, high = config.crop_scale
        assert ((h + 0.5) * (w + 0.5) >= low * height * width).all()                 # sides are whole pixels
        assert ((h - 0.5) * (w - 0.5) <= high * height * width).all()
        assert ((w + 0.5) / (h - 0.5) >= config.crop_ratio[0]).all()
        assert ((w - 0.5) / (h + 0.5) <= config.crop_ratio[1]).all()
        assert top.min() == 0 and (top + h).max() == height and left.min() == 0 and (left + w).max() == width


@pytest.mark.parametrize("height, width", [(64, 64), (60, 100)])
def test_boxes_are_drawn_as_torchvision_draws_them(height, width):
    """Same means and spreads of place, area and ratio over 3,000 boxes."""
    ours = crop_boxes(3000, height, width, ViewConfig(), generator()).double()
    image = torch.empty(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.tensor([RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
                               for _ in range(3000)]).double()

    def facts(box):
        top, left, h, w = box.T
        return torch.stack([top / height, left / width, h * w / (height * width), (w / h).log()])

    a, b = facts(ours), facts(theirs)
    assert ((a.mean(1) - b.mean(1)).abs() < 4 * b.std(1) * math.sqrt(2 / 3000)).all()
    torch.testing.assert_close(a.std(1), b.std(1), rtol=0.06, atol=0)


@pytest.mark.parametrize("height, width, box", [(30, 300, (0, 130, 30, 40)), (300, 30, (130, 0, 40, 30)),
                                                (60, 60, (0, 0, 60, 60))])
def test_the_central_box_where_none_fits(height, width, box):
    config = ViewConfig(crop_scale=(1.0, 1.0), crop_ratio=(3 / 4, 4 / 3))
    boxes = crop_boxes(200, height, width, config, generator())
    central = (boxes == torch.tensor(box)).all(1)
    assert central.all() if height != width else central.any()


BOXES = torch.tensor([[0, 0, 80, 100], [10, 20, 50, 60], [33, 47, 9, 7], [0, 60, 80, 40], [70, 0, 10, 100],
                      [5, 5, 32, 32], [79, 99, 1, 1]])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("enlarged", [1, 3])
def test_resized_crops_are_those_of_pil(interpolation, enlarged):
    """Small images take the matrix path, large ones the other; PIL rounds to 8 bits, twice."""
    image, boxes = photo(100 * enlarged, 80 * enlarged), BOXES * enlarged
    ours = resize_crops(floats(image), boxes, 32, interpolation)
    assert ours.shape == (len(boxes), 3, 32, 32)
    for x, box in zip(ours, boxes.tolist(), strict=True):
        want = TV.resized_crop(image, *box, [32, 32], InterpolationMode(interpolation), antialias=True)
        error = (x - floats(want)).abs() * 255
        assert error.mean() < 0.6, box
        assert error.max() < 1.6 or interpolation == "bicubic", box         # PIL clips between its two passes


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_small_and_large_images_agree(interpolation):
    small = floats(photo(100, 80))
    large = torch.zeros(3, 200, 200)
    large[:, 50:130, 70:170] = small
    shifted = BOXES + torch.tensor([50, 70, 0, 0])
    assert largest(resize_crops(small, BOXES, 24, interpolation),
                   resize_crops(large, shifted, 24, interpolation)) < resampling(200)


def test_the_working_copy_keeps_what_the_smallest_crop_needs():
    config = ViewConfig()
    small = photo(150, 100)
    assert torch.equal(working_copy(small, 32, config), pil_to_tensor(small))
    copy = working_copy(photo(900, 600), 32, config)
    height, width = copy.shape[1:]
    assert copy.dtype == torch.uint8 and (height, width) == (131, 196)     # ceil(32 sqrt(4 / 3 / 0.08))
    assert min(math.sqrt(0.08 * height * width * r) for r in (3 / 4, 4 / 3)) >= 31.9
    want = floats(photo(900, 600).resize((196, 131), Image.Resampling.BICUBIC))
    assert (copy.float() / 255 - want).abs().mean() < 0.01


def test_crops_of_a_shrunk_photo_look_the_same(tiny_clip):
    """The same boxes on the full photo and on the working copy."""
    image, config = photo(840, 560), ViewConfig(crop_scale=(0.3, 1.0))
    copy = working_copy(image, 32, config).float() / 255
    height, width = copy.shape[1:]
    assert height < 100
    boxes = crop_boxes(5, height, width, config, generator())
    scale = torch.tensor([560 / height, 840 / width] * 2)
    full = resize_crops(floats(image), (boxes * scale).round().long(), 32)
    assert (resize_crops(copy, boxes, 32) - full).abs().mean() < 0.02


# ---- flips ----
def test_flips(tiny_clip):
    image = photo(32, 32)
    want = tiny_clip.normalize(floats(image)[None])
    kept = make_views(image, 4, tiny_clip, flip=0.0, **WHOLE)
    turned = make_views(image, 4, tiny_clip, flip=1.0, **WHOLE)
    bound = resampling(32) / min(tiny_clip.std)
    assert largest(kept, want.expand(4, -1, -1, -1)) < bound
    assert largest(turned[1:], want.flip(-1).expand(3, -1, -1, -1)) < bound
    assert largest(turned[0], want[0]) < bound                                        # the image itself never
    some = make_views(image, 301, tiny_clip, flip=0.5, **WHOLE)[1:]
    share = ((some - want.flip(-1)).abs().amax((1, 2, 3)) < bound).float().mean()
    assert 0.4 < share < 0.6


# ---- backgrounds ----
def object_on_paper(size=32):
    """A red box on the left of light grey paper. Returns (image, where the box surely is, where paper is)."""
    image = Image.new("RGB", (size, size), (225, 225, 230))
    s = size // 32
    ImageDraw.Draw(image).rectangle((6 * s, 10 * s, 17 * s - 1, 24 * s - 1), (200, 30, 20))
    box, paper = torch.zeros(2, 32, 32, dtype=torch.bool)
    box[12:22, 8:15] = True
    paper[:, 21:] = True
    paper[:7] = True
    return image, box, paper


@pytest.mark.parametrize("size", [32, 128])
def test_a_replaced_background_keeps_the_foreground(tiny_clip, size):
    image, box, paper = object_on_paper(size)
    scene = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None].expand(1, 3, 8, 8)
    for flip in (0.0, 1.0):
        x = make_views(image, 4, tiny_clip, flip=flip, background=1.0, backgrounds=scene, **WHOLE)[1:]
        x = tiny_clip.denormalize(x).flip(-1) if flip else tiny_clip.denormalize(x)
        red = torch.tensor([200, 30, 20])[:, None] / 255
        assert (x[:, :, box] - red).abs().max() < 0.03
        assert (x[:, :, paper] - scene[0, :, 0, :1]).abs().max() < 0.1


def test_generated_backgrounds_differ(tiny_clip):
    image, box, paper = object_on_paper()
    x = tiny_clip.denormalize(make_views(image, 13, tiny_clip, flip=0.0, background=1.0, **WHOLE))
    assert ((x[1:, :, paper] - x[0, :, paper]).abs().mean((1, 2)) > 0.05).sum() >= 11
    assert (x[1:, :, box] - x[0, :, box]).abs().max() < 0.03
    assert len({tuple(v.mean((-2, -1)).tolist()) for v in x}) == 13


def test_backgrounds_with_a_probability(tiny_clip):
    image, _, paper = object_on_paper()
    x = make_views(image, 201, tiny_clip, flip=0.0, background=0.3,
                   backgrounds=torch.zeros(2, 3, 32, 32), **WHOLE)
    changed = ((x[1:, :, paper] - x[0, :, paper]).abs().mean((1, 2)) > 0.1).float().mean()
    assert 0.2 < changed < 0.4


def test_the_foreground_mask():
    image, box, paper = object_on_paper()
    mask = augment.foreground(floats(image))
    assert mask.shape == (1, 32, 32) and mask.min() >= 0 and mask.max() <= 1
    assert mask[0, box].min() > 0.95 and mask[0, paper].max() < 0.1
    pale = torch.full((3, 32, 32), 0.9).masked_fill(box, 0.82)                  # faint, but unlike the border
    faint = augment.foreground(pale)[0]
    assert faint[box].mean() > 0.8 and faint[paper].max() < 0.1
    assert torch.equal(augment.foreground(torch.full((3, 20, 30), 0.4)), torch.ones(1, 20, 30))   # no object


@pytest.mark.parametrize("size", [24, 64])
def test_backgrounds_are_images(size):
    x = augment.backgrounds(60, size, generator())
    assert x.shape == (60, 3, size, size) and x.min() >= 0 and x.max() <= 1
    plain = (x.std((-2, -1)).amax(1) < sums(size * size)).sum()                   # 0 but for rounding
    assert 10 <= plain <= 30                                                      # a third is of one colour


# ---- AugMix ----
@pytest.mark.parametrize("severity", [1.0, 5.0])
def test_augmix_mixes(severity):
    x = torch.stack([floats(photo(40, 40, s)) for s in range(12)])
    y = augment.augmix(x, generator(), severity)
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    assert ((y - x).abs().mean((1, 2, 3)) > 1e-3).sum() >= 10
    assert torch.equal(y, augment.augmix(x, generator(), severity))
    assert not torch.equal(y, augment.augmix(x, generator(1), severity))


def test_augmix_weights_add_up_to_one():
    """Every operation keeps the middle of a plain grey image of 128, so any mix of the chains does."""
    x = torch.full((60, 3, 9, 9), 128 / 255)
    mixed = augment.augmix(x, generator())[..., 4, 4]
    assert largest(mixed, torch.full_like(mixed, 128 / 255)) < resampling(9)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.99, 3.3, 8.0])
@pytest.mark.parametrize("name", ["autocontrast", "equalize", "posterize", "solarize"])
def test_augmix_tones_are_those_of_pil(name, level):
    image = ImageOps.autocontrast(photo(40, 40)).point(lambda v: 20 + v * 200 // 255)
    reference = {"autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize,
                 "posterize": lambda x: ImageOps.posterize(x, 4 - int(level * 4 / 10)),
                 "solarize": lambda x: ImageOps.solarize(x, 256 - int(level * 256 / 10))}[name]
    ours = augment.augmix_tone(pil_to_tensor(image)[None].float(), name, torch.tensor([level]))[0]
    error = (ours - pil_to_tensor(reference(image)).float()).abs()
    assert error.max() <= (name == "autocontrast") and error.mean() < 0.05


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("level", [0.35, 0.99, 4.0])
@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_augmix_moves_are_those_of_pil(name, level, sign):
    size, image = 60, photo(60, 60)
    shear, shift = sign * level * 0.3 / 10, sign * int(level * (size / 3) / 10)
    affine = {"shear_x": (1, shear, 0, 0, 1, 0), "shear_y": (1, 0, 0, shear, 1, 0),
              "translate_x": (1, 0, shift, 0, 1, 0), "translate_y": (1, 0, 0, 0, 1, shift)}
    if name == "rotate":
        want = image.rotate(-sign * int(level * 30 / 10), resample=Image.Resampling.BILINEAR)
    else:
        want = image.transform((size, size), Image.Transform.AFFINE, affine[name],
                               resample=Image.Resampling.BILINEAR)
    ops = torch.tensor([augment.AUGMIX_OPS.index(name)])
    theta = augment.augmix_affine(ops, torch.tensor([level]), torch.tensor([float(sign)]), size)
    ours = augment.warp(pil_to_tensor(image)[None].float(), theta)[0].round()
    error = (ours - pil_to_tensor(want).float()).abs()
    assert error.mean() < 0.6 and (error > 1).float().mean() < 0.001       # a few on the edge


# ---- corruptions ----
@pytest.mark.parametrize("name", augment.CORRUPTIONS)
def test_corruptions_grow_with_severity(name):
    x = torch.stack([floats(photo(64, 64, s)) for s in range(3)])
    distance = []
    for strength in augment.STRENGTH[name]:
        y = augment.corrupt_with(name, x, torch.full((3, 1, 1, 1), strength), generator())
        assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1 and y.isfinite().all()
        distance.append((y - x).abs().mean((1, 2, 3)))
    assert len(distance) == 5 and (distance[0] > 0.002).all()
    assert all((b > a).all() for a, b in zip(distance, distance[1:], strict=False))


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", augment.CORRUPTIONS)
def test_corrupt_draws_severities_up_to_the_given(name, severity):
    """Each image is corrupted as one of the severities 1 … severity would corrupt it alone."""
    x = floats(photo(40, 40))[None].expand(20, -1, -1, -1)
    y = augment.corrupt(x, generator(), (name,), severity)
    assert torch.equal(x[0], floats(photo(40, 40))) and y.min() >= 0 and y.max() <= 1
    assert ((y - x).abs().mean((1, 2, 3)) > 0.001).all()
    if name in ("blur", "contrast", "pixelate", "jpeg"):                                      # without chance
        alone = [augment.corrupt_with(name, x[:1], torch.full((1, 1, 1, 1), s), None)[0]
                 for s in augment.STRENGTH[name][:severity]]
        # A coefficient on a tie of JPEG's rounding may move one block of 25: nearly all pixels are the same.
        found = [[((v - w).abs() < resampling(40)).float().mean() > 0.9 for w in alone] for v in y]
        assert all(map(any, found)) and all(map(any, zip(*found, strict=True)))


def test_corruptions_hit_their_share(tiny_clip):
    x = make_views(photo(32, 32), 201, tiny_clip, flip=0.0, corruption=0.4, corruptions=("contrast",),
                   **WHOLE)
    assert 0.3 < ((x - x[0]).abs().mean((1, 2, 3)) > 0.01).float().mean() < 0.5


@pytest.mark.parametrize("quality", [7, 25, 60])
@pytest.mark.parametrize("size", [64, 44])
def test_jpeg_is_that_of_libjpeg(quality, size):
    image, file = photo(size, size).convert("L"), io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    want = floats(Image.open(file).convert("RGB"))
    ours = augment.corrupt_with("jpeg", floats(image.convert("RGB"))[None],
                                torch.full((1, 1, 1, 1), float(quality)), None)[0]
    core = slice(0, size // 8 * 8)                         # an incomplete block is padded differently
    assert (ours - want)[:, core, core].abs().mean() < 0.6 / 255


def test_blur_pixelate_and_contrast_are_what_they_say():
    x = floats(photo(48, 48))[None]

    def corrupted(name, strength):
        return augment.corrupt_with(name, x, torch.full((1, 1, 1, 1), strength), None)

    blurred = TV.gaussian_blur(x, 31, 4.0 * math.sqrt(48 / 224))
    core = (..., slice(10, -10), slice(10, -10))
    # Ours are two sums of 31 products with pixels up to 1, theirs is one of 31 * 31. Weights are exponentials
    # over their sum, off by some 16 U on either side.
    assert largest(corrupted("blur", 4.0)[core], blurred[core]) < 2 * sums(31) + sums(31 * 31) + 32 * U
    cells = x.unflatten(-1, (12, 4)).unflatten(-3, (12, 4)).mean((-3, -1))                    # (1, 3, 12, 12)
    want = cells.repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert largest(corrupted("pixelate", 0.25), want) < resampling(48)
    flat, mean = corrupted("contrast", 0.1), x.mean((-2, -1), keepdim=True)
    assert largest(flat, 0.9 * mean + 0.1 * x) < 2 * sums(48 * 48)                            # two means


# ---- text views: the shipped words ----
@pytest.fixture
def no_nltk(monkeypatch):
    """`import nltk` fails, and nothing looked up before is remembered."""
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    wordnet.wordnet_words.cache_clear()
    yield
    wordnet.wordnet_words.cache_clear()


def test_the_shipped_words_need_no_nltk(no_nltk):
    index = wordnet.resources.files("minipsync") / "assets" / "mini" / "index.json"
    names = [c["name"] for c in json.loads(index.read_text("utf-8"))["classes"]]
    with warnings.catch_warnings(action="error"):
        variants = text_variants(names)
    assert [v[0] for v in variants] == names and max(map(len, variants)) == 4
    assert sum(len(v) > 1 for v in variants) == 200
    assert all(len(set(v)) == len(v) for v in variants)


def test_relations_take_turns(no_nltk):
    both = text_variants(["dog", "sunset", "turtle", "flexed biceps"])
    assert both == [["dog", "domestic dog", "dog with flag", "Canis familiaris"],
                    ["sunset", "sundown", "sunset, not sunrise"],
                    ["turtle", "turtle with carapace", "turtle with plastron"], ["flexed biceps"]]
    assert text_variants(["dog"], relations=("meronym", "synonym"))[0][1] == "dog with flag"
    assert text_variants(["sunset"], relations=("antonym",)) == [["sunset", "sunset, not sunrise"]]
    assert text_variants(["dog"], relations=()) == [["dog"]]
    twice = text_variants(["dog"], relations=("synonym", "synonym"))
    assert twice == [["dog", "domestic dog", "Canis familiaris"]]                          # each text once


def test_the_limit_counts_the_name(no_nltk):
    for limit in (1, 2, 3, 9):
        (variants,) = text_variants(["bus"], limit=limit)
        assert variants == text_variants(["bus"], limit=50)[0][:limit] and len(variants) == limit


def test_names_keep_their_spelling(no_nltk):
    assert text_variants(["fire_engine"]) == [["fire engine", "fire truck"]]
    assert text_variants(["Statue of Liberty"]) == [["Statue of Liberty"]]
    assert text_variants(["TAURUS"])[0][:2] == ["TAURUS", "Taurus the Bull"]


def test_senses_are_those_of_the_drawings(no_nltk):
    """Where WordNet's first sense is another thing: RAM, a terrorist, a slur, a card sharper, a pelt."""
    names = ["ram", "Taurus", "taco", "joker", "leopard", "alien"]
    words = {w for variants in text_variants(names, limit=50) for w in variants}
    assert {"tup", "Panthera pardus", "extraterrestrial"} <= words
    assert not {"random-access memory", "Carlos the Jackal", "wetback", "jokester", "foreigner"} & words


def test_a_name_that_nobody_knows_stands_alone(no_nltk):
    with pytest.warns(UserWarning, match="nltk.downloader wordnet"):
        assert text_variants(["gizmo of the north"]) == [["gizmo of the north"]]


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"relations=\('synonym', 'hypernym'\).*synonym, meronym, antonym"):
        text_variants(["dog"], relations=("synonym", "hypernym"))
    with pytest.raises(ValueError, match="limit=0.*at least 1"):
        text_variants(["dog"], limit=0)


# ---- text views: NLTK ----
SENSES = {  # words, gloss, part / substance / member pointers, antonym
    "slur": (["taco"], "(ethnic slur) offensive term for a person", {}),
    "food": (["taco"], "a tortilla rolled around a filling", {"%p": ["filling", "tortilla", "crust"]}),
    "filling": (["filling"], "what is inside", {}),
    "tortilla": (["tortilla"], "a flat bread", {}),
    "crust": (["crust"], "what is outside", {}),
    "man": (["man", "adult_male"], "an adult person who is male",
            {"!": ["woman"], "%s": ["flesh"], "%p": ["arm"]}),
    "woman": (["woman"], "an adult female person", {}),
    "flesh": (["flesh"], "soft tissue", {}),
    "arm": (["arm"], "a limb", {}),
}


def write_wordnet(folder):
    """A database of SENSES in WordNet's file format; returns {key: wnid}."""
    folder.mkdir(parents=True)
    offsets = dict.fromkeys(SENSES, 0)
    for _ in range(2):                                      # the second time the offsets are known
        text = "  1 WordNet 3.0 Copyright 2006 by Princeton University.\n"
        for key, (words, gloss, pointers) in SENSES.items():
            offsets[key] = len(text)
            links = [f"{kind} {offsets[to]:08d} n {'0101' if kind == '!' else '0000'}"
                     for kind, many in pointers.items() for to in many]
            lemmas = " ".join(f"{w} 0" for w in words)
            text += f"{offsets[key]:08d} 13 n {len(words):02d} {lemmas} {len(links):03d} "
            text += "".join(f"{link} " for link in links) + f"| {gloss}  \n"
    (folder / "data.noun").write_text(text)
    senses = {}
    for key, (words, *_) in SENSES.items():
        for word in words:
            senses.setdefault(word, []).append(f"{offsets[key]:08d}")
    (folder / "index.noun").write_text("".join(
        f"{word} n {len(at)} 0 {len(at)} 0 {' '.join(at)}  \n" for word, at in sorted(senses.items())))
    for kind in ("adj", "adv", "verb"):
        (folder / f"data.{kind}").write_text("  1 WordNet 3.0 Copyright 2006 by Princeton University.\n")
        (folder / f"index.{kind}").write_text("")
    for name in ("adj.exc", "adv.exc", "noun.exc", "verb.exc", "index.sense"):
        (folder / name).write_text("")
    (folder / "lexnames").write_text("".join(f"{i:02d}\tnoun.{i}\t1\n" for i in range(45)))
    (folder / "cntlist.rev").write_text("crust%1:13:00:: 1 2\ntortilla%1:13:00:: 1 7\n")
    return {key: f"n{offset:08d}" for key, offset in offsets.items()}


@pytest.fixture
def wnids(tmp_path, monkeypatch):
    """NLTK reads a WordNet of nine senses, and minipsync ships no words."""
    nltk = pytest.importorskip("nltk")
    from nltk.corpus.reader import WordNetCorpusReader

    ids = write_wordnet(tmp_path / "corpora" / "wordnet")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with warnings.catch_warnings(action="ignore"):                        # that it is in English only
        reader = WordNetCorpusReader(nltk.data.find("corpora/wordnet"), None)
    monkeypatch.setattr("nltk.corpus.wordnet", reader)
    monkeypatch.setattr(wordnet, "_shipped_words", dict)
    wordnet.wordnet_words.cache_clear()
    yield ids
    wordnet.wordnet_words.cache_clear()


def test_words_of_nltk(wnids):
    assert text_variants(["man", "woman"], limit=9) == [
        ["man", "adult male", "man with arm", "man, not woman", "man with flesh"], ["woman"]]
    assert text_variants(["unicorn"]) == [["unicorn"]]
    assert text_variants(["adult_male"], limit=3) == [["adult male", "man", "adult male with arm"]]


def test_parts_come_by_frequency_and_no_term_of_abuse_is_a_sense(wnids):
    parts = ["taco with tortilla", "taco with crust", "taco with filling"]
    assert text_variants(["taco"], limit=9) == [["taco", *parts]]
    assert text_variants(["tacos"], ("synonym",)) == [["tacos", "taco"]]


def test_a_wnid_fixes_the_sense(wnids):
    assert text_variants(["El Taco", "arm"], wnids=[wnids["food"], wnids["man"]], limit=3) == [
        ["El Taco", "taco", "El Taco with tortilla"], ["arm", "man", "arm with flesh"]]


@pytest.mark.parametrize("wrong", ["n00000007", "dog", "n123"])
@pytest.mark.filterwarnings("ignore:No WordNet synset")
def test_a_wrong_wnid(wnids, wrong):
    with pytest.raises(ValueError, match=f"'{wrong}'.*n02084071"):
        text_variants(["dog"], wnids=[wrong])
