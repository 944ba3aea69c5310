"""Weights as people have them: every layout gives the features of the model that was saved."""

import collections
import json
import re
import warnings

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from rounding import features
from safetensors.torch import save_file

import minipsync as mp
from minipsync.clip.layouts import to_openai

VISION = {"image_size": 32, "patch_size": 16, "width": 128, "head_width": 64, "layers": 2}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3}


def model_of(kind=CLIP, quick_gelu=True, **vision):
    torch.manual_seed(1)
    model = kind(64, VISION | vision, TEXT, quick_gelu=quick_gelu).eval().requires_grad_(False)
    for p in model.parameters():                       # no bias is left zero, so that none can be forgotten
        p.add_(0.02 * torch.randn_like(p))
    return model


def as_transformers(state):
    """OpenAI's names -> those of transformers' CLIPModel, queries, keys and values apart."""
    norms = {"ln_final": "text_model.final_layer_norm", "visual.ln_pre": "vision_model.pre_layrnorm",
             "visual.ln_post": "vision_model.post_layernorm"}
    parts = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
             "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    outer = {"logit_scale": "logit_scale", "visual.proj": "visual_projection.weight",
             "text_projection": "text_projection.weight",
             "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
             "positional_embedding": "text_model.embeddings.position_embedding.weight",
             "visual.class_embedding": "vision_model.embeddings.class_embedding",
             "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
             "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight"}
    out = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    for key, value in state.items():
        stem, _, kind = key.rpartition(".")
        if key in outer:
            out[outer[key]] = value.T if key in ("visual.proj", "text_projection") else value
        elif stem in norms:
            out[f"{norms[stem]}.{kind}"] = value
        elif found := re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)", key):
            layer = f"{'vision' if found[1] else 'text'}_model.encoder.layers.{found[2]}"
            if (part := found[3]).startswith("attn.in_proj_"):
                for letter, piece in zip("qkv", value.chunk(3), strict=True):
                    out[f"{layer}.self_attn.{letter}_proj.{part.removeprefix('attn.in_proj_')}"] = piece
            else:
                stem, _, kind = part.rpartition(".")
                out[f"{layer}.{parts[stem]}.{kind}"] = value
    return {key: value.contiguous().clone() for key, value in out.items()}


def plain(model):
    return {k: v.clone() for k, v in model.state_dict().items() if k != "attn_mask"}


def prefixed(*prefixes):
    return lambda model: {"".join(prefixes) + k: v for k, v in plain(model).items()}


WRAPPED = {
    "plain": plain, "module": prefixed("module."), "compiled": prefixed("_orig_mod."),
    "both": prefixed("module.", "_orig_mod."), "lightning": lambda m: {"state_dict": prefixed("model.")(m)},
    "clip_model": lambda m: {"state_dict": prefixed("clip_model.")(m), "hyper_parameters": {"lr": 1e-3}},
    "open_clip": lambda m: {"epoch": np.int64(3), "name": "run", "state_dict": prefixed("module.")(m),
                            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "ema beside": lambda m: {"model": plain(m), "ema": prefixed("x.")(m), "best": np.float64(0.5)},
    "numbers beside": lambda m: plain(m) | {"steps": np.float32(3), "logit_scale": np.float32(m.logit_scale)},
    "student and teacher": lambda m: prefixed("student.")(m) | {f"teacher.model.{k}": v * 0
                                                               for k, v in plain(m).items()},
    "sizes": lambda m: plain(m) | {k: torch.tensor(n) for k, n in (("input_resolution", 32), (
        "context_length", 77), ("vocab_size", 49408))},
    "half": lambda m: {k: v.half() if v.ndim else v for k, v in plain(m).items()},
    "transformers": lambda m: as_transformers(m.state_dict()),
    "transformers in a wrapper": lambda m: {f"clip.{k}": v
                                            for k, v in as_transformers(m.state_dict()).items()},
}


def assert_same(clip, model, half=False):
    """Equal up to rounding: half precision rounds every weight by 2^-11, float32 the sums alone."""
    bound = 0.05 if half else features(clip)
    x = torch.randn(2, 3, clip.image_size, clip.image_size, generator=torch.Generator().manual_seed(0))
    ours, theirs = clip.encode_image(x, normalize=False), model.encode_image(x)
    assert (ours - theirs).norm() < bound * theirs.norm()
    text = mp.build("zero_shot", clip, ["cat", "kite"], template="a {}.").text_features()
    wanted = model.encode_text(open_clip.tokenize(["a cat.", "a kite."]), normalize=True)
    assert (text - wanted).norm() < bound * wanted.norm()


def quiet(**settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mp.load_clip("mini", device="cpu", **settings)


@pytest.mark.parametrize("kind", WRAPPED)
def test_every_layout_gives_the_same_features(kind, tmp_path):
    model = model_of()
    torch.save(WRAPPED[kind](model), tmp_path / "weights.pt")
    assert_same(quiet(weights=tmp_path / "weights.pt"), model, kind == "half")


def test_a_text_tower_of_its_own(tmp_path):
    model = model_of(CustomTextCLIP)
    torch.save(plain(model), tmp_path / "weights.pt")
    assert_same(quiet(weights=tmp_path / "weights.pt"), model)


@pytest.mark.parametrize("parts", ["model.safetensors", "pytorch_model.bin"])
def test_folder_of_transformers_in_several_files(parts, tmp_path):
    """The index as transformers writes it; its config tells the activation and the heads."""
    model = model_of(quick_gelu=False, head_width=32)
    state, (stem, end) = as_transformers(model.state_dict()), parts.rsplit(".", 1)
    halves = [dict(list(state.items())[i::2]) for i in (0, 1)]
    names = [f"{stem}-0000{i}-of-00002.{end}" for i in (1, 2)]
    for name, half in zip(names, halves, strict=True):
        if end == "safetensors":
            save_file(half, tmp_path / name, {"format": "pt"})
        else:
            torch.save(half, tmp_path / name)
    where = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (tmp_path / f"{parts}.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "clip", "vision_config": {"hidden_act": "gelu", "num_attention_heads": 4},
        "text_config": {"hidden_act": "gelu", "num_attention_heads": 2}}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")                 # all is known, so that nothing is warned of
        assert_same(mp.load_clip("mini", weights=tmp_path, device="cpu"), model)
    (tmp_path / names[1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"{names[1]} does not exist; expected a part of the weights"):
        mp.load_clip("mini", weights=tmp_path, device="cpu")


def test_what_is_not_known_shows_its_names(tmp_path):
    torch.save({"backbone.layer1.weight": torch.ones(2, 2), "head.bias": torch.ones(2)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="first backbone.layer1.weight, head.bias; known are the layouts of"):
        quiet(weights=tmp_path / "a.pt")
    state = as_transformers(model_of().state_dict())
    for tower, lacking in (("vis", "the text tower"), ("text", "the image tower")):
        with pytest.raises(ValueError, match=f"lacks {lacking} and its projection; expected a whole CLIP"):
            to_openai({k: v for k, v in state.items() if k.startswith(tower)}, "it")
    del state["text_model.encoder.layers.1.self_attn.k_proj.bias"]
    with pytest.raises(ValueError, match="only the part.s. q, v"):
        to_openai(state, "it")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no weights; expected one of model.safetensors"):
        quiet(weights=tmp_path / "empty")


def test_activation_is_known_by_tag_told_or_warned_of(tmp_path, monkeypatch):
    model = open_clip.create_model("ViT-B-32", force_quick_gelu=False)
    file = tmp_path / "CLIP-ViT-B-32-laion2B-s34B-b79K" / "open_clip_model.safetensors"
    file.parent.mkdir()
    save_file(plain(model), file)

    def activation(path, **settings):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            clip = mp.load_clip("ViT-B-32", weights=path, device="cpu", **settings)
        kind = type(clip.model.visual.transformer.resblocks[0].mlp.gelu).__name__
        return kind, clip.weights, any("quick_gelu=False" in str(w.message) for w in said)

    assert activation(file) == ("GELU", "laion2b_s34b_b79k", False)
    other = file.rename(tmp_path / "mine.safetensors")
    assert activation(other) == ("QuickGELU", "mine.safetensors", True)
    assert activation(other, quick_gelu=False) == ("GELU", "mine.safetensors", False)


def test_images_of_another_size(tmp_path):
    """Positions are open_clip's own interpolation where another size is asked for."""
    model, larger = model_of(), model_of(image_size=64)
    torch.save(plain(model), tmp_path / "a.pt")
    clip = quiet(weights=tmp_path / "a.pt", image_size=64)
    state = plain(model)
    open_clip.model.resize_pos_embed(state, larger)
    larger.load_state_dict(state, strict=False)
    assert clip.image_size == 64
    assert_same(clip, larger)
    with pytest.raises(ValueError, match="image_size=40: expected a multiple of 16"):
        quiet(weights=tmp_path / "a.pt", image_size=40)
    state = open_clip.create_model("ViT-B-32").state_dict()
    grid = state["visual.positional_embedding"]
    state["visual.positional_embedding"] = torch.cat([grid, grid])[:82]              # 9 x 9 patches: 288 px
    with pytest.raises(ValueError, match="of 288 px, this architecture for 224 px.*image_size=288"):
        mp.load_clip("ViT-B-32", state_dict=collections.OrderedDict(state), device="cpu")
