"""Source statistics and prototypes: against two passes and literal loops; files must not be mixed up."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from rounding import U, features, largest, relative
from safetensors.torch import save_file

from minipsync.clip.text import pack_context
from minipsync.data.dataset import Dataset
from minipsync.methods import build
from minipsync.methods.maple import CoupledPrompt
from minipsync.methods.promptsync import source_samples
from minipsync.source.domain import FORMAT, SourceDomain, prompts_fingerprint
from minipsync.source.moments import Moments, RunningMoments
from minipsync.source.one_pass import forget
from minipsync.source.prototypes import (
    PARTS,
    Prototypes,
    image_prototypes,
    text_prototypes,
    variant_prototypes,
)
from minipsync.source.sampler import SourceSampler
from minipsync.views.crops import ViewConfig, content_seed, make_views

NAMES = ["dog", "sunset", "turtle"]
LABELS = [0, 2, 1, 0, 2, 2, 1]


def picture(seed, size=(40, 36)):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def dataset():
    """Seven pictures of three classes."""
    return Dataset("toys", NAMES, LABELS, [f"toy/{i}" for i in range(len(LABELS))], picture)


@pytest.fixture(scope="module")
def learner(tiny_clip):
    return CoupledPrompt(tiny_clip, depth=3)


@pytest.fixture(scope="module")
def statistics(tiny_clip, learner, dataset):
    return Moments.collect(tiny_clip, learner, dataset, batch_size=3, progress=False)


@pytest.fixture(scope="module")
def prototypes(tiny_clip, learner, dataset):
    return Prototypes.collect(tiny_clip, learner, dataset, n_views=2, batch_size=6, progress=False)


def close(a, b, roundings):
    """float64 numbers that are apart by so many roundings of the largest of them."""
    assert largest(a, b) < roundings * 2**-53 * float(b.abs().max())


def close_moments(a, b, clip):
    """Means and variances of tokens that were computed in batches of another size, each off by `features`.

    A variance is the mean square less the square of the mean: off by twice that of the mean square."""
    error = 2 * features(clip)
    assert relative(a.means, b.means) < error
    square = (b.variances + b.means.square()).norm() / b.variances.norm()
    assert relative(a.variances, b.variances) < 2 * error * float(square)


# ---- moments ----
def test_running_moments_are_those_of_two_passes():
    x = torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 1000
    moments = RunningMoments()
    for part in x.split([1, 20, 7, 22]):
        moments.update(part)
    mean = sum(x) / len(x)
    close(moments.mean, mean, 100)                            # two sums of 50
    # 50 roundings of a mean of 1000 are 500 times as many of a deviation of 2, and twice that when squared
    close(moments.variance, sum((row - mean) ** 2 for row in x) / len(x), 2 * 50 * 1000 / 2)


def test_running_moments_do_not_cancel_in_float32():
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)) * 0.01 + 3000
    moments = RunningMoments()
    for part in x.split(8):
        moments.update(part)
    # as above with deviations of 0.01, in float64; float32 would be wrong in the first digit
    close(moments.variance, x.double().var(0, correction=0), 2 * 64 * 3000 / 0.01)


def test_statistics_are_mean_and_biased_variance_of_the_block_inputs(tiny_clip, learner, dataset, statistics):
    with torch.no_grad():
        x = tiny_clip.preprocess([dataset[i][0] for i in range(len(dataset))])
        _, inputs = tiny_clip.encode_image(x, learner().vision, trace=(0, 1, 2, 3))
    for layer in range(4):
        tokens = inputs[layer].double()                                                            # (N, T, W)
        mean = sum(tokens) / len(tokens)
        want = Moments(mean, sum((t - mean) ** 2 for t in tokens) / len(tokens))
        close_moments(Moments(statistics.means[layer], statistics.variances[layer]), want, tiny_clip)
    assert statistics.means.shape == (4, 19, 192) and statistics.means.dtype == torch.float32
    same, seeing = statistics.variances[:3, -2:], statistics.variances[3, -2:]
    # the prompts of the first layers have not seen an image yet: they vary by rounding alone
    assert same.max() < (features(tiny_clip) * statistics.means[:3, -2:].abs().max()) ** 2
    assert seeing.min() > 100 * same.max()


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_statistics_do_not_depend_on_the_batch_size(tiny_clip, learner, dataset, statistics, batch_size):
    again = Moments.collect(tiny_clip, learner, dataset, batch_size=batch_size, layers=2,
                                     progress=False)
    close_moments(again, Moments(statistics.means[:2], statistics.variances[:2]), tiny_clip)


def test_an_empty_source_set(tiny_clip, learner, dataset):
    with pytest.raises(ValueError, match="source set is empty"):
        Moments.collect(tiny_clip, learner, dataset.subset([]), progress=False)


# ---- files ----
@pytest.fixture(scope="module", params=["moments", "prototypes"])
def source(request, tiny_clip, learner, dataset):
    how = {"moments": {"batch_size": 3}, "prototypes": {"n_views": 2, "batch_size": 6}}[request.param]
    return SourceDomain.collect(tiny_clip, learner, dataset, progress=False, **{request.param: how})


def test_save_and_load(tmp_path, tiny_clip, learner, source):
    path = source.save(tmp_path / "new" / "source.safetensors")
    back = SourceDomain.load(path, tiny_clip, learner, NAMES)
    assert back.kind == source.kind and set(back.tensors()) == set(source.tensors())
    for name, value in source.tensors().items():
        assert torch.equal(back.tensors()[name], value)
    facts = ("class_names", "clip", "prompts", "source", "n_images")
    assert [getattr(back, f) for f in facts] == [NAMES, tiny_clip.fingerprint, prompts_fingerprint(learner),
                                                 "toys", 7]
    assert [f.name for f in path.parent.iterdir()] == ["source.safetensors"]            # no half-written file
    if source.prototypes is not None:
        assert back.prototypes.variants == source.prototypes.variants
        assert back.prototypes.recipe == source.prototypes.recipe


def test_both_parts_in_one_file(tmp_path, tiny_clip, learner, dataset, statistics, prototypes):
    both = SourceDomain.collect(tiny_clip, learner, dataset, moments={"batch_size": 3}, progress=False,
                                prototypes={"n_views": 2, "batch_size": 6}, checkpoint=tmp_path / "pass")
    forget(tmp_path / "pass")                                  # of each pass
    assert not list(tmp_path.iterdir())
    back = SourceDomain.load(both.save(tmp_path), tiny_clip, learner, NAMES)
    assert back.kind == "moments and prototypes"
    assert torch.equal(back.moments.means, statistics.means)
    assert torch.equal(back.prototypes.cls, prototypes.cls)


def test_a_folder_keeps_a_file_for_each_source(tmp_path, tiny_clip, learner, source, dataset):
    names = {source.save(tmp_path).name, source.save(tmp_path).name}
    assert len(names) == 1 and names.pop().startswith(f"{source.kind}_toys_")
    other = SourceDomain.collect(tiny_clip, learner, dataset.subset([0, 1, 2]), progress=False,
                                 **{source.kind: {}})
    other.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_for_others_is_refused(tmp_path, tiny_clip, learner, source):
    path, kind = source.save(tmp_path / "x.safetensors"), source.kind

    class Other:
        fingerprint, name, device = "0123456789abcdef", "other", "cpu"

    cases = [((Other(), learner, NAMES), f"{kind} of the backbone {tiny_clip.fingerprint}, this is 0123"),
             ((tiny_clip, CoupledPrompt(tiny_clip, depth=3, seed=1), NAMES), f"{kind} of the prompts"),
             ((tiny_clip, learner, NAMES[::-1]), "of other classes, 3: dog"),
             ((tiny_clip, learner, NAMES[:2]), "of other classes")]
    for arguments, message in cases:
        with pytest.raises(ValueError, match="x.safetensors: source .*; compute .* method.prepare") as error:
            SourceDomain.load(path, *arguments)
        assert message in str(error.value)
    assert SourceDomain.load(path).kind == kind                               # nothing asked, nothing refused


def test_a_method_refuses_the_other_kind(tiny_clip, learner, source):
    needs = {"moments": "promptsync", "prototypes": "promptalign"}[source.kind]
    method = build(needs, tiny_clip, NAMES)
    with pytest.raises(ValueError, match=f"this source has {source.kind}, expected {method.needs}"):
        method.source = source


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused(tmp_path, tiny_clip, learner, statistics, bad):
    means = statistics.means.clone()
    means[1, 2, 3] = bad
    path = SourceDomain(Moments(means, statistics.variances), class_names=NAMES, clip=tiny_clip.fingerprint,
                        prompts=prompts_fingerprint(learner)).save(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="NaN or infinity.*prepare"):
        SourceDomain.load(path, tiny_clip, learner)


def test_files_of_something_else(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match=r"x\.safetensors does not exist.*method\.prepare"):
        SourceDomain.load(path)
    path.write_bytes(b"not tensors at all")
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        SourceDomain.load(path)
    save_file({"means": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="holds something else, expected source moments"):
        SourceDomain.load(path)


def test_a_file_without_its_tensors_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"means": torch.zeros(2)}, path, {"format": FORMAT, "kind": "moments", "facts": json.dumps({})})
    with pytest.raises(ValueError, match="holds means, expected the moments means, variances"):
        SourceDomain.load(path)


def test_prompts_fingerprint(tiny_clip, learner):
    same, other = CoupledPrompt(tiny_clip, depth=3), CoupledPrompt(tiny_clip, depth=3)
    assert prompts_fingerprint(same) == prompts_fingerprint(learner) == prompts_fingerprint(same.double())
    other.ctx.data[0, 0] += 1e-3
    assert len({prompts_fingerprint(x) for x in (same, other, CoupledPrompt(tiny_clip, depth=2))}) == 3


# ---- prototypes ----
def test_prototypes_are_means_over_samples(tiny_clip, learner, dataset, prototypes):
    """p_c = mean of h_x over the images of c and their views, one image and one token at a time."""
    prompts, config = learner(), ViewConfig(background=0.5, corruption=0.5)
    rows = {part: [[] for _ in NAMES] for part in ("vision", "cls")}
    with torch.no_grad():
        for i, label in enumerate(LABELS):
            for view in make_views(picture(i), 3, tiny_clip, config, seed=content_seed(picture(i), 0)):
                feature, kept = tiny_clip.encode_image(view[None], prompts.vision, trace=("tokens",))
                tokens = kept["tokens"][0]                                          # (patches and prompts, D)
                assert tokens.shape == (16 + 2, 64)
                rows["vision"][label].append(F.normalize(sum(tokens) / len(tokens), dim=-1))
                rows["cls"][label].append(feature[0])
    for part, per_class in rows.items():
        assert [len(r) for r in per_class] == [6, 6, 9]
        want = torch.stack([sum(r) / len(r) for r in per_class])
        assert largest(getattr(prototypes, part), want) < 2 * features(tiny_clip)


def test_text_prototypes_are_means_over_variants_and_tokens(tiny_clip, learner, prototypes):
    """Tokens between SOS and EOT, one text at a time."""
    assert prototypes.variants == [["dog", "domestic dog", "dog with flag", "Canis familiaris"],
                                   ["sunset", "sundown", "sunset, not sunrise"],
                                   ["turtle", "turtle with carapace", "turtle with plastron"]]
    with torch.no_grad():
        for variants, ours in zip(prototypes.variants, prototypes.text, strict=True):
            h = []
            for text in variants:
                _, kept = tiny_clip.encode_text(learner.packing([text]), learner().text, trace=("tokens",))
                tokens = kept["tokens"][0][kept["mask"][0]]
                assert len(tokens) == len(tiny_clip.tokenizer.encode(f"a photo of a {text}."))
                h.append(F.normalize(sum(tokens) / len(tokens), dim=-1))
            assert largest(ours, sum(h) / len(h)) < 2 * features(tiny_clip)


def test_prototypes_do_not_depend_on_the_batch_size(tiny_clip, learner, dataset, prototypes):
    again = Prototypes.collect(tiny_clip, learner, dataset, n_views=2, batch_size=1, progress=False)
    for part in PARTS:
        assert largest(getattr(again, part), getattr(prototypes, part)) < 2 * features(tiny_clip)
        # means of vectors of length 1, to the rounding of 64 squares
        assert (getattr(again, part).norm(dim=-1) <= 1 + 8 * U).all()


def test_a_seed_changes_the_views_alone(tiny_clip, learner, dataset, prototypes):
    other = Prototypes.collect(tiny_clip, learner, dataset, n_views=2, seed=1, progress=False)
    assert largest(other.vision, prototypes.vision) > 100 * features(tiny_clip)
    assert torch.equal(other.text, prototypes.text)


def test_a_class_without_an_image(tiny_clip, learner, dataset):
    with pytest.raises(ValueError, match="no image of 'sunset'.*of_classes"):
        Prototypes.collect(tiny_clip, learner, dataset.subset([0, 1, 3, 4]), progress=False)


def test_variants_that_do_not_fit_are_dropped(tiny_clip, learner, dataset, monkeypatch):
    texts = [[n, n + " and so on" * 40, n + "s"] for n in NAMES]
    monkeypatch.setattr("minipsync.source.prototypes.text_variants", lambda *_: texts)
    made = Prototypes.collect(tiny_clip, learner, dataset, n_views=0, progress=False)
    assert made.variants == [[n, n + "s"] for n in NAMES]


def test_image_prototypes_without_prompts_have_patches_only(tiny_clip):
    x = tiny_clip.preprocess([picture(0), picture(1)])
    with torch.no_grad():
        features, h = image_prototypes(tiny_clip, x, None)
        _, kept = tiny_clip.encode_image(x, trace=("tokens",))
    assert kept["tokens"].shape == (2, 16, 64) and torch.equal(h["cls"], features)
    assert largest(h["vision"].norm(dim=-1), torch.ones(2)) < 8 * U


def test_variant_prototypes_use_each_episodes_prompts(tiny_clip, learner):
    """Two episodes with prompts and classes of their own, against a class at a time; padding has weight 0."""
    names = [[["dog", "dogs", "a big dog"], ["sunset"]], [["turtle"], ["sea turtle", "turtles"]]]
    noise = torch.randn(2, 3, 2, 128, generator=torch.Generator().manual_seed(0))
    prompts = learner().text.detach() + 0.1 * noise                                             # (B, L, n, W)
    with torch.no_grad():
        h, weights = variant_prototypes(tiny_clip, learner, prompts, names)
        assert h.shape == (2, 2, 3, 64)
        assert weights.tolist() == [[[pytest.approx(1 / 3)] * 3, [1, 0, 0]], [[1, 0, 0], [0.5, 0.5, 0]]]
        for b, classes in enumerate(names):
            for k, texts in enumerate(classes):
                packed = pack_context(texts, 2, tail="of a")
                _, want = text_prototypes(tiny_clip, packed, prompts[b])
                assert largest(h[b, k, :len(texts)], want) < 2 * features(tiny_clip)
                assert not h[b, k, len(texts):].any()


# ---- the source batch ----
def test_a_draw_depends_on_its_seed_alone(tiny_clip, dataset):
    sampler, fresh = SourceSampler(dataset, tiny_clip), SourceSampler(dataset, tiny_clip, cache_mb=0)
    a = sampler.draw([5, 6, 5], 2, 3)
    torch.rand(3)
    b = fresh.draw([6], 2, 3)
    assert a.labels.shape == (3, 2) and a.views.shape == (3, 2, 3, 3, 32, 32)
    assert torch.equal(a.labels[1], b.labels[0]) and torch.equal(a.views[1], b.views[0])
    assert torch.equal(a.labels[0], a.labels[2]) and torch.equal(a.views[0], a.views[2])
    assert not torch.equal(a.views[0], a.views[1])
    assert sampler.cache and not fresh.cache


def test_classes_are_distinct_and_all_have_their_turn(tiny_clip, dataset):
    sampler = SourceSampler(dataset, tiny_clip)
    batch = sampler.draw(range(40), 2, 1)
    assert all(len(set(row)) == 2 for row in batch.labels.tolist())
    assert torch.bincount(batch.labels.flatten()).min() > 15
    everything = sampler.draw([1], 0, 1)
    assert sorted(everything.labels[0].tolist()) == [0, 1, 2]


def test_views_are_of_the_drawn_class(tiny_clip):
    """Pictures of one plain colour per class: every view shows the colour of its label."""
    colours = [(250, 20, 20), (20, 250, 20), (20, 20, 250)]
    plain = Dataset("plain", NAMES, LABELS, [str(i) for i in range(len(LABELS))],
                    lambda i: Image.new("RGB", (40, 40), colours[LABELS[i]]))
    batch = SourceSampler(plain, tiny_clip, ViewConfig()).draw(range(5), 3, 2)
    seen = tiny_clip.denormalize(batch.views).mean((-2, -1)).argmax(-1)                           # (5, 3, 2)
    assert torch.equal(seen, batch.labels[..., None].expand_as(seen))


def test_every_image_of_a_class_is_drawn(tiny_clip, dataset):
    sampler = SourceSampler(dataset, tiny_clip)
    sampler.draw(range(30), 3, 1)
    assert sorted(sampler.cache) == list(range(len(LABELS)))


def test_source_samples_are_the_inputs_of_the_discrimination(tiny_clip, learner, dataset, prototypes):
    batch = SourceSampler(dataset, tiny_clip).draw([1, 2], 2, 3)
    params = learner.episodes(2)
    prompts = learner(params)
    samples, p, weights = source_samples(tiny_clip, learner, prompts, prototypes, batch, PARTS)
    assert set(samples) == set(p) == set(weights) == set(PARTS)
    for part in PARTS:
        assert samples[part].shape[:2] == (2, 2) and samples[part].shape[:3] == weights[part].shape
        assert largest(weights[part].sum(-1), torch.ones(2, 2)) < 4 * U
        assert torch.equal(p[part], getattr(prototypes, part)[batch.labels])
    _, h = image_prototypes(tiny_clip, batch.views[1, 0], learner().vision)
    text = (samples["text"] * weights["text"][..., None]).sum(2)
    for ours, want in ((samples["vision"][1, 0], h["vision"]), (samples["cls"][1, 0], h["cls"]),
                       (text, prototypes.text[batch.labels])):
        assert largest(ours, want) < 2 * features(tiny_clip)
    only = source_samples(tiny_clip, learner, prompts, prototypes, batch, ("cls",))
    assert all(set(x) == {"cls"} for x in only)
    (gradient,) = torch.autograd.grad(sum(x.sum() for x in samples.values()), params["ctx"])
    assert gradient.shape == (2, 2, 128) and gradient.isfinite().all() and gradient.any()


def test_what_is_of_another_source_or_other_pictures_is_not_found(tmp_path, tiny_clip, learner, source):
    source.save(tmp_path)
    mine = {"source": source.source, "content": source.content}

    def found(kind=source.kind, **wanted):
        return SourceDomain.find(tiny_clip, learner, kind, tmp_path, **wanted)

    assert found() and found(**mine) and found(**mine | {"content": ""})
    assert found(source="others") is None and found(**mine | {"content": "0123456789abcdef"}) is None
    assert found({"moments": "prototypes", "prototypes": "moments"}[source.kind]) is None
