"""Packed text against the literal 77-token forward."""

import open_clip
import pytest
import reference
import torch
from rounding import features, gradients, relative

from minipsync.clip.text import POSITIONS, pack_context, pack_texts, tokenize

NAMES = {
    "one": ["goldfish"],
    "ordinary": ["goldfish", "great_white_shark", "hot dog", "African hunting dog", "CD player"],
    "odd": ["jack-o'-lantern", "crêpe", "Boeing 737-800", "2012 Ferrari", "it's", "Xàçô ñ", "a.b", "Who?!"],
    "emoji": ["🦊", "👩‍🚀 astronaut", "fox 🦊", "日本", "&amp; sons", "  spaced   out  "],
    "duplicates": ["missile", "sunglasses", "missile", "sunglasses", "Missile"],
    "all equal": ["cat", "cat", "cat"],
    "prefix of another": ["cat", "cat food", "cat food bowl", "cat."],
    "one and many tokens": ["x", "very " * 60 + "long"],
}


def prompts_for(packed, clip, depth, seed=3, episodes=()):
    generator = torch.Generator().manual_seed(seed)
    shape = (*episodes, depth, packed.n_slots, clip.text_width)
    return (0.2 * torch.randn(shape, generator=generator)).requires_grad_()


@pytest.mark.parametrize("kind", NAMES)
def test_features_equal_the_77_token_forward(tiny_clip, kind):
    texts = [f"a photo of a {name}." for name in NAMES[kind]]
    want = reference.text_features(tiny_clip.model, open_clip.tokenize(texts))
    assert relative(tiny_clip.encode_text(pack_texts(texts)), want) < 2 * features(tiny_clip)
    packed = pack_context(NAMES[kind], 4)
    prompts = prompts_for(packed, tiny_clip, 2)
    want = reference.text_features(tiny_clip.model, *reference.layout(NAMES[kind], 4), prompts)
    assert relative(tiny_clip.encode_text(packed, prompts), want) < 2 * features(tiny_clip)


@pytest.mark.parametrize("texts", [[""], ["", "a"], ["<end_of_text> hidden", "seen"], ["a b", "a b c", "a"]])
def test_texts_that_are_short_or_end_early(tiny_clip, texts):
    want = reference.text_features(tiny_clip.model, open_clip.tokenize(texts))
    assert relative(tiny_clip.encode_text(pack_texts(texts)), want) < 2 * features(tiny_clip)


@pytest.mark.parametrize("class_specific", [False, True], ids=["unified", "class-specific"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("n_ctx,depth", [(1, 1), (5, 4), (2, 3)])
def test_every_layout_and_its_gradient(tiny_clip, position, class_specific, n_ctx, depth):
    names = NAMES["odd"] + NAMES["duplicates"]
    how = {"position": position, "class_specific": class_specific}
    packed = pack_context(names, n_ctx, **how)
    assert packed.n_slots == n_ctx * (len(names) if class_specific else 1)
    prompts = prompts_for(packed, tiny_clip, depth)
    weight = torch.randn(len(names), tiny_clip.embed_dim, generator=torch.Generator().manual_seed(0))
    got = tiny_clip.encode_text(packed, prompts)
    got_grad, = torch.autograd.grad((got * weight).sum(), prompts)
    want = reference.text_features(tiny_clip.model, *reference.layout(names, n_ctx, **how), prompts)
    want_grad, = torch.autograd.grad((want * weight).sum(), prompts)
    assert relative(got, want) < 2 * features(tiny_clip)
    assert relative(got_grad, want_grad) < 2 * gradients(tiny_clip)


def test_fixed_words_behind_the_slots(tiny_clip):
    packed = pack_context(NAMES["ordinary"], 2, tail="of a")
    prompts = prompts_for(packed, tiny_clip, 3)
    ids, slots = reference.layout(NAMES["ordinary"], 2, tail="of a")
    assert packed.n_prefix == 5  # SOS, two slots, "of", "a"
    assert relative(tiny_clip.encode_text(packed, prompts),
                    reference.text_features(tiny_clip.model, ids, slots, prompts)) < 2 * features(tiny_clip)


@pytest.mark.parametrize("class_specific", [False, True])
def test_episodes_equal_a_loop(tiny_clip, class_specific):
    packed = pack_context(NAMES["odd"], 3, class_specific=class_specific)
    prompts = prompts_for(packed, tiny_clip, 2, episodes=(3,))
    got, traced = tiny_clip.encode_text(packed, prompts, trace=("tokens",))
    loop = [tiny_clip.encode_text(packed, p, trace=("tokens",)) for p in prompts]
    assert got.shape == (3, len(NAMES["odd"]), 64)
    assert relative(got, torch.stack([f for f, _ in loop])) < 2 * features(tiny_clip)
    assert relative(traced["tokens"], torch.stack([t["tokens"] for _, t in loop])) < 2 * features(tiny_clip)
    assert tiny_clip.encode_text(packed, prompts[:1]).shape == (1, len(NAMES["odd"]), 64)


@pytest.mark.parametrize("kind", NAMES)
def test_traced_tokens(tiny_clip, kind):
    names = NAMES[kind]
    packed = pack_context(names, 2, tail="of a")
    prompts = prompts_for(packed, tiny_clip, 3)
    got, traced = tiny_clip.encode_text(packed, prompts, trace=("tokens",))
    ids, slots = reference.layout(names, 2, tail="of a")
    want = reference.text_tokens(tiny_clip.model, ids, slots, prompts)
    inner = ids.argmax(dim=1) - 1
    assert traced["mask"].sum(dim=1).tolist() == inner.tolist()
    assert traced["tokens"].shape == (len(names), int(inner.max()), 64)
    for c, n in enumerate(inner.tolist()):
        assert relative(traced["tokens"][c, :n], want[c, 1: n + 1]) < 2 * features(tiny_clip)
        assert not traced["tokens"][c, n:].any()
    assert relative(got, tiny_clip.encode_text(packed, prompts)) < 2 * features(tiny_clip)


def test_no_tokens_between_start_and_end(tiny_clip):
    _, traced = tiny_clip.encode_text(pack_texts([""]), trace=("tokens",))
    assert traced["tokens"].shape == (1, 0, 64) and traced["mask"].shape == (1, 0)


def test_equal_names_keep_their_rows_and_tie_exactly(tiny_clip):
    packed = pack_context(NAMES["duplicates"], 4)
    rows = tiny_clip.encode_text(packed, prompts_for(packed, tiny_clip, 1))
    assert packed.n_classes == 5 and len(packed.eot) == 2
    assert torch.equal(rows[0], rows[2]) and torch.equal(rows[1], rows[3])    # computed once


def test_prefix_is_computed_once():
    names = list(open_clip.IMAGENET_CLASSNAMES)
    packed = pack_context(names, 4)
    assert packed.n_prefix == 5 and packed.n_classes == 1000
    assert len(packed.ids) < 4.5 * 1000  # 77,000 otherwise
    assert pack_context(names, 4, position="middle").n_prefix == 3
    assert pack_context(names, 4, position="front").n_prefix == 1
    assert pack_context(["cat"], 4).pad.shape == (1, 1)  # a single text: all but its end is prefix


def test_packing_holds_the_tokens():
    names = sum(NAMES.values(), [])
    packed = pack_context(names, 3, position="middle")
    ids, _ = reference.layout(names, 3, position="middle")
    for c, u in enumerate(packed.row):
        row = torch.cat([torch.arange(packed.n_prefix), packed.pad[u]])[: packed.positions[packed.eot[u]] + 1]
        assert packed.ids[row].tolist() == ids[c][: ids[c].argmax() + 1].tolist()
        assert packed.positions[row].tolist() == list(range(len(row)))
    assert packed.class_names == tuple(names) and "_" not in "".join(packed.texts)
    assert packed.to("cpu") is packed


@pytest.mark.parametrize("text", sum(NAMES.values(), []))
def test_tokens_are_clips(text):
    ids = open_clip.tokenize(text)[0]
    assert tokenize(text) == ids[: ids.argmax() + 1].tolist()


def test_the_longest_name_that_fits(tiny_clip):
    room = 77 - 4 - 3  # context, then start, full stop and end
    packed = pack_context(["dog", " ".join(["cat"] * room)], 4)
    assert packed.length == 77
    prompts = prompts_for(packed, tiny_clip, 1)
    want = reference.layout(packed.class_names, 4)
    assert relative(tiny_clip.encode_text(packed, prompts),
                    reference.text_features(tiny_clip.model, *want, prompts)) < 2 * features(tiny_clip)
    with pytest.raises(ValueError, match=rf"class 1, 'cat cat.*has {room + 1} tokens, but only {room} of 77"):
        pack_context(["dog", " ".join(["cat"] * (room + 1))], 4)


@pytest.mark.parametrize("call,message", [
    (lambda: pack_context([], 4), "at least one class name"),
    (lambda: pack_context("cat", 4), "expected a list"),
    (lambda: pack_context(["cat", "_ "], 4), "class 1 has the name '_ '"),
    (lambda: pack_context(["cat", 3], 4), "class name 3 is int"),
    (lambda: pack_context(["cat"], 4, position="back"), "expected one of end, middle, front"),
    (lambda: pack_context(["cat"], 4, position="front", tail="of a"), "tail 'of a' goes with position='end'"),
    (lambda: pack_context(["cat"], -1), "n_ctx is -1"),
    (lambda: pack_texts(["so " * 90]), "has 92 tokens.*at most 77"),
    (lambda: pack_texts([]), "at least one text"),
])
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_prompts_and_packing_must_fit(tiny_clip):
    packed = pack_context(["cat", "dog"], 2)
    good = prompts_for(packed, tiny_clip, 1)
    for prompts, message in [(None, "2 slots and prompts are missing"), (good[:, :1], "2 tokens"),
                             (good.expand(5, -1, -1), "1 to 4 layers"), (good[..., 1:], "width 128"),
                             (good[0], "expected")]:
        with pytest.raises(ValueError, match=message):
            tiny_clip.encode_text(packed, prompts)
    with pytest.raises(ValueError, match="0 slots and prompts are given"):
        tiny_clip.encode_text(pack_texts(["a cat"]), good)
    with pytest.raises(ValueError, match="trace has"):
        tiny_clip.encode_text(packed, good, trace=(0,))
    with pytest.raises(ValueError, match="78 tokens, .* takes 77"):
        tiny_clip.encode_text(pack_texts(["so " * 76], context_length=100))
