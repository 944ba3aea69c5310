"""The two encoders against open_clip's own forward, and the ways a CLIP is loaded."""

import json

import numpy as np
import open_clip
import pytest
import reference
import tiny_clip as tiny
import torch
from PIL import Image
from rounding import FEATURES, GRADIENTS, U, features, gradients, half, relative
from safetensors import safe_open
from safetensors.torch import save_file

from minipsync.clip.encoders import Clip
from minipsync.clip.text import pack_context, pack_texts
from minipsync.clip.weights import load_clip, new_model, save_mini

TEXTS = ["a photo of a cat.", "a sketch of a great white shark.", "crêpe", "a photo of a cat."]
VISION = {"image_size": 32, "patch_size": 8, "width": 64, "head_width": 32, "layers": 2}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
CONFIG = {"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": False,
          "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.3, 0.4], "seed": 5}
VARIANTS = {
    "plain": CONFIG,
    "deep, quick gelu": CONFIG | {"quick_gelu": True, "vision_cfg": VISION | {"layers": 5, "image_size": 48},
                                  "text_cfg": TEXT | {"layers": 4, "width": 96, "heads": 3}},
    "layer scale, no ln_pre": CONFIG | {"vision_cfg": VISION | {"ls_init_value": 0.3, "no_ln_pre": True,
                                                                "mlp_ratio": 3.0, "layers": 3},
                                        "text_cfg": TEXT | {"ls_init_value": 0.2, "context_length": 32}},
}


def random_clip(config, **settings) -> Clip:
    model = new_model(config)
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():  # biases and norms must count as well
        p.data += 0.05 * torch.randn(p.shape, generator=generator)
    return Clip(model, **settings)


def images(n, size, seed=2):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_without_prompts_equals_open_clip(config):
    clip = random_clip(config)
    x = images(3, clip.image_size)
    with torch.no_grad():
        tokens = open_clip.tokenize(TEXTS, clip.context_length)
        want_text, want_image = clip.model.encode_text(tokens), clip.model.encode_image(x)
    packed = pack_texts(TEXTS, clip.context_length)
    bound = 2 * features(clip)
    assert relative(clip.encode_text(packed, normalize=False), want_text) < bound
    assert relative(clip.encode_image(x, normalize=False), want_image) < bound
    assert relative(clip.encode_image(x), want_image / want_image.norm(dim=1, keepdim=True)) < bound


def test_without_prompts_equals_open_clip_for_vit_b_16():
    model = open_clip.create_model("ViT-B-16", pretrained=None, force_quick_gelu=True)
    clip = Clip(model)
    assert (clip.embed_dim, clip.text_width, clip.text_layers, clip.context_length) == (512, 512, 12, 77)
    assert (clip.image_size, clip.vision_width, clip.vision_layers) == (224, 768, 12)
    with torch.no_grad():
        want_text = model.encode_text(open_clip.tokenize(TEXTS))
        want_image = model.encode_image(images(1, 224))
    assert relative(clip.encode_text(pack_texts(TEXTS), normalize=False), want_text) < 2 * features(clip)
    assert relative(clip.encode_image(images(1, 224), normalize=False), want_image) < 2 * features(clip)


@pytest.mark.parametrize("depth,n", [(1, 1), (2, 3), (4, 2)])
def test_vision_prompts_and_their_gradient(tiny_clip, depth, n):
    prompts = (0.2 * torch.randn(depth, n, 192, generator=torch.Generator().manual_seed(0))).requires_grad_()
    x, weight = images(3, 32), images(1, 8)[0, :1].reshape(1, 64)
    got = tiny_clip.encode_image(x, prompts)
    want = reference.image_features(tiny_clip.model.visual, x, prompts)
    got_grad, = torch.autograd.grad((got * weight).sum(), prompts)
    want_grad, = torch.autograd.grad((want * weight).sum(), prompts)
    assert relative(got, want) < 2 * features(tiny_clip)
    assert relative(got_grad, want_grad) < 2 * gradients(tiny_clip)


def test_vision_trace(tiny_clip):
    prompts = 0.2 * torch.randn(3, 2, 192, generator=torch.Generator().manual_seed(0))
    x = images(3, 32)
    tokens, inputs = reference.image_tokens(tiny_clip.model.visual, x, prompts)
    got, traced = tiny_clip.encode_image(x, prompts, trace=(0, 1, 2, 3, "tokens"))
    assert set(traced) == {0, 1, 2, 3, "tokens", "cls"}
    bound = 2 * features(tiny_clip)
    for k in range(4):
        assert traced[k].shape == (3, 19, 192) and relative(traced[k], inputs[k]) < bound
    assert relative(traced["tokens"], tokens[:, 1:]) < bound and relative(traced["cls"], tokens[:, 0]) < bound
    assert relative(got, tiny_clip.encode_image(x, prompts)) < bound
    _, traced = tiny_clip.encode_image(x, trace=("cls",))
    assert list(traced) == ["cls"] and traced["cls"].shape == (3, 64)


def test_vision_episodes_equal_a_loop(tiny_clip):
    x = images(6, 32).reshape(2, 3, 3, 32, 32)  # B = 2, V = 3
    prompts = 0.2 * torch.randn(2, 3, 2, 192, generator=torch.Generator().manual_seed(0))
    got, traced = tiny_clip.encode_image(x, prompts, trace=(1, "tokens"))
    loop = [tiny_clip.encode_image(x[b], prompts[b], trace=(1, "tokens")) for b in range(2)]
    assert got.shape == (2, 3, 64) and traced[1].shape == (2, 3, 19, 192)
    bound = 2 * features(tiny_clip)
    assert relative(got, torch.stack([f for f, _ in loop])) < bound
    for key in (1, "tokens", "cls"):
        assert relative(traced[key], torch.stack([t[key] for _, t in loop])) < bound
    shared = torch.stack([tiny_clip.encode_image(views, prompts[0]) for views in x])
    assert relative(tiny_clip.encode_image(x, prompts[0]), shared) < bound
    flat = tiny_clip.encode_image(x.flatten(0, 1))
    assert relative(tiny_clip.encode_image(x).flatten(0, 1), flat) < bound


@pytest.mark.parametrize("precision,dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_is_close_and_gives_float32(tiny_clip, precision, dtype):
    clip = Clip(tiny_clip.model, precision=precision)
    packed, x = pack_context(["cat", "great white shark"], 2), images(2, 32)
    text = 0.2 * torch.randn(2, 2, 128, generator=torch.Generator().manual_seed(0))
    vision = 0.2 * torch.randn(2, 2, 192, generator=torch.Generator().manual_seed(1))
    text.requires_grad_(), vision.requires_grad_()
    results = []
    for c in (clip, tiny_clip):
        t, i = c.encode_text(packed, text), c.encode_image(x, vision)
        assert t.dtype == i.dtype == torch.float32
        grads = torch.autograd.grad((t[0] * i).sum(), (text, vision))
        results.append((t, i, *grads))
    for got, want in zip(*results, strict=True):
        assert relative(got, want) < half(dtype, FEATURES if got.ndim == 2 else GRADIENTS)
    traced = clip.encode_image(x, vision, trace=(1, "tokens"))[1]
    assert {t.dtype for t in traced.values()} == {torch.float32}


def test_weights_stay_frozen_and_in_evaluation(tiny_clip):
    prompts = torch.zeros(1, 2, 192, requires_grad=True)
    tiny_clip.encode_image(images(1, 32), prompts).sum().backward()
    assert prompts.grad is not None
    assert all(not p.requires_grad and p.grad is None for p in tiny_clip.parameters())
    assert not torch.nn.ModuleList([tiny_clip]).train()[0].model.training
    # log(100) = 4.6 is off by 4.6 U at most, which exp makes a share of 100; and exp itself by 2 U
    assert float(tiny_clip.logit_scale) == pytest.approx(100, rel=7 * U) and tiny_clip.logit_scale.shape == ()


@pytest.mark.parametrize("call,message", [
    (lambda c: c.encode_image(images(1, 40)), r"\(1, 3, 40, 40\), expected floats.*\(3, 32, 32\)"),
    (lambda c: c.encode_image(images(1, 32)[0]), "clip.preprocess makes them"),
    (lambda c: c.encode_image(images(1, 32).byte()), "torch.uint8"),
    (lambda c: c.encode_image(images(1, 32), trace=(4,)), r"trace has \[4\].*0 to 3"),
    (lambda c: c.encode_image(images(1, 32), torch.zeros(5, 2, 192)), "1 to 4 layers"),
    (lambda c: c.encode_image(images(1, 32), torch.zeros(1, 2, 128)), "width 192"),
    (lambda c: c.encode_image(images(2, 32), torch.zeros(2, 1, 2, 192)), r"images must be \[2, V"),
    (lambda c: c.encode_image(images(2, 32)[None], torch.zeros(3, 1, 2, 192)), "for 3 episodes"),
    (lambda c: Clip(c.model, precision="fp8"), "expected one of fp32, bf16, fp16"),
])
def test_bad_input_is_named(tiny_clip, call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_clip)


def test_resnet_runs_without_prompts_only():
    vision = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64}
    clip = Clip(new_model(CONFIG | {"vision_cfg": vision}), name="small ResNet")
    x = images(2, 64)
    assert clip.vision_layers == clip.vision_width == 0
    assert torch.equal(clip.encode_image(x, normalize=False), clip.model.visual(x))         # the same call
    assert clip.encode_image(x[None]).shape == (1, 2, 32)
    for more in ({"prompts": torch.zeros(1, 2, 16)}, {"trace": (0,)}):
        with pytest.raises(ValueError, match="small ResNet has a ResNet image encoder"):
            clip.encode_image(x, **more)


@pytest.mark.parametrize("change,message", [
    ({"vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2}}, "strange has an image"),
    ({"vision_cfg": VISION | {"pool_type": "avg"}}, "strange has an image encoder"),
    ({"vision_cfg": VISION | {"qk_norm": True}}, "strange has an image encoder"),
    ({"vision_cfg": {"timm_model_name": "vit_tiny_patch16_224", "image_size": 32}}, r"\(TimmModel\)"),
    ({"text_cfg": TEXT | {"no_causal_mask": True}}, "strange has a text encoder"),
    ({"text_cfg": TEXT | {"pool_type": "last"}}, "strange has a text encoder"),
])
def test_other_towers_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        Clip(new_model(CONFIG | change), name="strange")


# ---- images in ----
def test_preprocess(tiny_clip):
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 60, 3), dtype=np.uint8))
    x = tiny_clip.preprocess(picture)
    assert x.shape == (1, 3, 32, 32)
    want = picture.resize((48, 32), Image.BICUBIC).crop((8, 0, 40, 32))
    want = torch.from_numpy(np.array(want)).permute(2, 0, 1) / 255
    # (v - m) / s * s + m: four roundings of numbers no larger than 1
    assert (tiny_clip.denormalize(x)[0] - want).abs().max() < 4 * U
    assert torch.equal(x[0], tiny_clip.normalize(want))                         # the same three operations
    assert tiny_clip.preprocess([picture, picture.convert("L"), picture.convert("P")]).shape == (3, 3, 32, 32)
    for wrong in ([], np.zeros((4, 4, 3)), ["cat.png"]):
        with pytest.raises(TypeError, match="expected a PIL image"):
            tiny_clip.preprocess(wrong)


# ---- loading ----
def test_fingerprint_names_what_decides_the_features_beside_the_weights():
    """The same weights with another activation, heads or colours are another CLIP, with other features."""
    models = {name: new_model(CONFIG | changed) for name, changed in {
        "as it is": {}, "activation": {"quick_gelu": True},
        "image heads": {"vision_cfg": VISION | {"head_width": 64}},
        "text heads": {"text_cfg": CONFIG["text_cfg"] | {"heads": 4}}}.items()}
    first = models["as it is"].state_dict()
    assert all(torch.equal(first[k], v) for model in models.values() for k, v in model.state_dict().items())
    clips = {name: Clip(model) for name, model in models.items()}
    clips |= {name: Clip(new_model(CONFIG), **{name: (0.5, 0.5, 0.5)}) for name in ("mean", "std")}
    assert len({clip.fingerprint for clip in clips.values()}) == len(clips) == 6
    same = Clip(new_model(CONFIG), mean=open_clip.OPENAI_DATASET_MEAN)
    assert same.fingerprint == clips["as it is"].fingerprint


def test_fingerprint_names_the_weights():
    state = tiny.tiny_state_dict(3)
    clip = load_clip(state_dict=state, device="cpu")
    first = clip.fingerprint
    again = load_clip(state_dict=state, precision="bf16", device="cpu")
    assert len(first) == 16 and first == again.fingerprint
    with torch.no_grad():
        clip.model.visual.proj[0, 0] += 1e-3
    assert clip.fingerprint != first
    assert load_clip(state_dict=state | {"visual.proj": state["visual.proj"].half()}).fingerprint != first


def test_mini_file_round_trip(tmp_path):
    model, path = random_clip(CONFIG).model, tmp_path / "deep" / "mini.safetensors"
    used = {i for text in TEXTS for i in open_clip.tokenizer.SimpleTokenizer().encode(text)}
    save_mini(path, model, CONFIG, used)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["config"]) == CONFIG
        assert file.metadata()["format"] == "minipsync-clip-1"
        rows = file.get_tensor("token_embedding.rows")
    assert rows.tolist() == sorted({*used, 49406, 49407}) and path.stat().st_size < 500_000
    before = torch.get_rng_state()
    clip = load_clip("mini", weights=path, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random stream is left alone
    assert clip.mean == (0.5, 0.5, 0.5) and clip.std == (0.2, 0.3, 0.4) and clip.image_size == 32
    state, loaded = model.state_dict(), clip.model.state_dict()
    table = state.pop("token_embedding.weight")
    unit = 2**-11  # the file has half precision, which rounds each weight once
    assert all(relative(loaded[k], v) < unit for k, v in state.items()) and len(loaded) == len(state) + 1
    assert torch.equal(loaded["logit_scale"], state["logit_scale"])
    got, rows = loaded["token_embedding.weight"], rows.long()
    assert relative(got[rows], table[rows]) < unit
    unused = torch.ones(len(got), dtype=torch.bool).index_fill(0, rows, False)
    assert torch.equal(got[unused], new_model(CONFIG).token_embedding.weight[unused])
    save_mini(tmp_path / "again.safetensors", clip.model, CONFIG, used)  # no further loss
    assert load_clip(weights=tmp_path / "again.safetensors", device="cpu").fingerprint == clip.fingerprint


class Archive(torch.nn.Module):
    """The form of OpenAI's files: a scripted module with sizes beside the weights."""

    def forward(self, x):
        return x


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_state_dicts_in_files(tmp_path):
    state = tiny.tiny_state_dict(0)
    want = load_clip(state_dict=state, device="cpu").fingerprint

    archive = Archive()
    for name, value in (state | {"input_resolution": torch.tensor(32)}).items():
        *parts, leaf = name.split(".")
        module = archive
        for part in parts:
            if part not in module._modules:
                module.add_module(part, Archive())
            module = module._modules[part]
        module.register_buffer(leaf, value)
    torch.jit.save(torch.jit.script(archive), tmp_path / "openai.pt")
    save_file(state, tmp_path / "plain.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "trained.pt")
    for file in ("openai.pt", "plain.safetensors", "trained.pt"):
        assert load_clip(weights=tmp_path / file, device="cpu").fingerprint == want, file
    (tmp_path / "ViT-B-16.pt").write_bytes((tmp_path / "openai.pt").read_bytes())
    with pytest.raises(ValueError, match="is not OpenAI's ViT-B-16.pt: .*expected 5806e77cd80f8b59…"):
        load_clip("ViT-B-16", weights=tmp_path / "ViT-B-16.pt", device="cpu")
    torch.save({"code": Archive()}, tmp_path / "code.pt")
    with pytest.raises(ValueError, match="code.pt holds a dict of 'code', without tensors by name"):
        load_clip(weights=tmp_path / "code.pt")


def test_heads_activation_and_names_of_state_dicts():
    state = tiny.tiny_state_dict(0)
    clip = load_clip(state_dict={k: v.half() for k, v in state.items()}, device="cpu")
    assert {p.dtype for p in clip.parameters()} == {torch.float32} and clip.name == "custom"
    assert clip.model.transformer.resblocks[0].attn.num_heads == 2
    assert clip.model.visual.transformer.resblocks[0].attn.num_heads == 3
    other = load_clip(state_dict=state, quick_gelu=False, device="cpu")
    assert relative(other.encode_image(images(1, 32)), clip.encode_image(images(1, 32))) > 1e-3
    with pytest.raises(ValueError, match="lacks visual.proj.*RN50"):
        load_clip(state_dict={k: v for k, v in state.items() if k != "visual.proj"})
    with pytest.raises(ValueError, match="does not fit the architecture"):
        load_clip(state_dict=state | {"surplus": torch.zeros(1)})


def test_what_cannot_be_loaded_says_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no route")

    with pytest.raises(ValueError, match="unknown CLIP 'ViT-L-14-337'.*Did you mean 'ViT-L-14-336'?"):
        load_clip("ViT-L-14-337")
    with pytest.raises(ValueError, match="unknown CLIP 'ViT-B-17'.*'ViT-B-16'"):
        load_clip("ViT-B-17")
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.safetensors.*save_mini"):
        load_clip(weights=tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="neither a file nor a tag of ViT-B-16, expected one of openai"):
        load_clip("ViT-B/16", weights="laion5b")
    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(RuntimeError, match="'openai' of ViT.*vit_base_patch16_clip_224.openai.*weights="):
        load_clip("ViT-B-16")
    with pytest.raises(ValueError, match="the config lacks seed"):
        new_model({k: v for k, v in CONFIG.items() if k != "seed"})
