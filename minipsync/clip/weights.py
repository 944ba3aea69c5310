"""From files, hub and tensors to an open_clip model in float32; and the file format of the mini CLIP."""

import json
import logging
import math
import warnings
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP, resize_pos_embed
from torch import Tensor, nn

from ..files.paths import expand
from ..files.tensors import first_line, write_tensors
from .layouts import TEXT, to_openai
from .weight_files import MINI_FORMAT, Found, read_weights

MINI_PATH = Path(__file__).resolve().parent.parent / "assets" / "mini_clip.safetensors"
CONFIG_KEYS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "image_mean", "image_std", "seed")
TABLE = "token_embedding.weight"
ROWS, VALUES = "token_embedding.rows", "token_embedding.values"  # what a mini file holds of the table


def new_model(config: dict) -> CLIP:
    """An untrained open_clip CLIP, the same for the same config; the global random state is left alone.

    `config`: embed_dim, vision_cfg, text_cfg (open_clip's), quick_gelu, image_mean, image_std, seed. Token
    rows are 0.02 * RandomState(seed).standard_normal, so `save_mini` may leave out those never trained.
    Raises ValueError for a config that lacks a key.
    """
    model = _build(config)
    with torch.no_grad():
        model.token_embedding.weight.copy_(_initial_rows(config, model.token_embedding.weight.shape))
    return model


def save_mini(path: str | Path, model: nn.Module, config: dict, used_token_ids) -> None:
    """Write `model` as float16 safetensors: all tensors, but of the token table only rows `used_token_ids`.

    The other rows are back at their initial value (see `new_model`) when the file is loaded. SOS and EOT are
    always kept. Raises ValueError for a config that lacks a key.
    """
    _check_config(config)
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    table = state.pop(TABLE)
    sos = len(table) - 2
    rows = torch.tensor(sorted({*map(int, used_token_ids), sos, sos + 1}), dtype=torch.int32)
    state = {k: v.half().contiguous() if v.ndim else v.float() for k, v in state.items()}
    state |= {ROWS: rows, VALUES: table[rows.long()].half()}
    write_tensors(path, state, {"format": MINI_FORMAT, "config": json.dumps(config)})


def load_model(name: str, weights: str | Path | None, state_dict: dict[str, Tensor] | None,
               quick_gelu: bool | None, image_size: int | None = None
               ) -> tuple[nn.Module, list | None, list | None, str]:
    """(model, image mean, image std, origin of the weights), mean and std None for CLIP's own; the origin is
    "openai", another tag of open_clip, a file's name or "". `clip.load_clip` tells the cases."""
    name = name.replace("/", "-")
    if name != "mini" and name not in open_clip.list_models():
        raise ValueError(f"unknown CLIP {name!r}, expected 'mini', 'ViT-B-32', 'ViT-B-16', 'ViT-L-14', "
                         "'ViT-L-14-336', 'RN50' or another of open_clip.list_models()")
    if state_dict is not None:
        found, source = Found(to_openai(dict(state_dict), "the given state dict"), ""), "the given state dict"
    elif name == "mini" or (weights is not None and expand(weights).exists()):
        path = expand(weights or MINI_PATH)
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}: give weights=<a file of save_mini>, "
                                    "or make one with data_scripts/train_mini_clip.py")
        found, source = read_weights(path, name), str(path)
        if found.quick_gelu is None and found.config is None and quick_gelu is None:
            warnings.warn(f"{path} does not say which activation its CLIP has: QuickGELU, as OpenAI's, is "
                          "taken. Most others (LAION's, DataComp's, …) need load_clip(…, quick_gelu=False); "
                          "say quick_gelu=True or False", stacklevel=3)
    else:
        return _from_hub(name, str(weights or "openai"), quick_gelu, image_size)
    quick = quick_gelu if quick_gelu is not None else found.quick_gelu is not False
    if found.config is not None:
        model = _build(_at_size(found.config, image_size))
        table = _initial_rows(found.config, model.token_embedding.weight.shape)
        rows, values = found.state.pop(ROWS).long(), found.state.pop(VALUES).float()
        found.state[TABLE] = table.index_copy(0, rows, values)
        found.mean, found.std = found.config["image_mean"], found.config["image_std"]
    elif name == "mini":
        model = _build(_at_size(_inferred_config(found.state, quick, found.heads), image_size))
    else:
        model = _architecture(name, None, quick, image_size)
    _fill(model, _at_grid(model, found.state, image_size, source), source)
    return model, found.mean, found.std, found.origin


def check_towers(model: nn.Module, name: str) -> None:
    """Raise ValueError unless `Clip` computes the towers to the letter: CLIP's text, plain ViT or ResNet."""
    visual, text = model.visual, getattr(model, "text", model)
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    causal = getattr(text, "attn_mask", None) is not None and getattr(text, "cls_emb", None) is None
    if not causal or pool != "argmax" or text.token_embedding.num_embeddings != 49408:
        raise ValueError(f"{name} has a text encoder that is not CLIP's (causal, CLIP's tokens, read at the "
                         "end token): use a CLIP model such as 'ViT-B-16'")
    if hasattr(visual, "transformer"):
        plain = getattr(visual, "attn_pool", None) is None and getattr(visual, "pool_type", "tok") == "tok"
    else:
        plain = hasattr(visual, "attnpool")  # open_clip's ModifiedResNet
    blocks = [*text.transformer.resblocks, *getattr(getattr(visual, "transformer", None), "resblocks", ())]
    if not plain or not all(isinstance(block.attn, nn.MultiheadAttention) for block in blocks):
        raise ValueError(f"{name} has an image encoder ({type(visual).__name__}) with pooling or attention "
                         "that is not CLIP's: use a plain ViT such as 'ViT-B-16'")


def check_finite(model: nn.Module, name: str) -> None:
    """Raise ValueError that names the weights with NaN or infinity, whose every prediction would be NaN."""
    state = {k: t for k, t in model.state_dict().items() if t.is_floating_point() and not t.is_meta}
    if bad := [k for k, t in state.items() if not t.isfinite().all()]:
        raise ValueError(f"{len(bad)} of {len(state)} tensors of {name} contain NaN or infinity, first "
                         f"{bad[0]}; expected finite weights: fetch them again, or train with a lower rate")


def check_device(device: str | int | torch.device) -> torch.device:
    """The device, or ValueError if nothing can be computed on it here."""
    try:
        torch.zeros(1, device=device).item()
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        good = ["'cpu'", *(f"'cuda:{i}'" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"device={str(device)!r} cannot be used here ({first_line(error)}); expected "
                         f"{' or '.join(good)}") from error


def _check_config(config: dict) -> None:
    if missing := [k for k in CONFIG_KEYS if k not in config]:
        raise ValueError(f"the config lacks {', '.join(missing)}, expected the keys {', '.join(CONFIG_KEYS)}")


def _build(config: dict) -> CLIP:
    _check_config(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        return CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], config["quick_gelu"])


def _initial_rows(config: dict, shape: tuple) -> Tensor:
    rows = 0.02 * np.random.RandomState(config["seed"]).standard_normal(tuple(shape))
    return torch.from_numpy(rows.astype(np.float32))


def _at_size(config: dict, image_size: int | None) -> dict:
    """The config for images of another size; raises ValueError for one that patches do not fill."""
    if image_size is None:
        return config
    patch = config["vision_cfg"]["patch_size"]
    if not isinstance(image_size, int) or image_size < patch or image_size % patch:
        raise ValueError(f"image_size={image_size!r}: expected a multiple of {patch}, the side of a patch")
    return config | {"vision_cfg": config["vision_cfg"] | {"image_size": image_size}}


def _at_grid(model: nn.Module, state: dict[str, Tensor], image_size: int | None,
             source: str) -> dict[str, Tensor]:
    """The tensors with the image positions interpolated to the model's grid, where another size was asked
    for; ValueError that names both sizes where none was."""
    name, visual = "visual.positional_embedding", model.visual
    own = getattr(visual, "positional_embedding", None)
    if own is None or name not in state or state[name].shape == own.shape or state[name].ndim != 2:
        return state
    side = math.isqrt(len(state[name]) - 1)
    if state[name].shape[1] != own.shape[1] or side * side != len(state[name]) - 1:
        return state                                   # another width: `_fill` says what does not fit
    theirs, ours = side * visual.conv1.kernel_size[0], visual.image_size
    ours = ours if isinstance(ours, int) else ours[0]
    if image_size is None:
        raise ValueError(f"{source} has positions for images of {theirs} px, this architecture for {ours} "
                         f"px: say image_size={theirs} to use the weights as they are, or image_size={ours} "
                         "to interpolate their positions")
    state = {k: v.float() if k == name else v for k, v in state.items()}
    resize_pos_embed(state, model)                     # bicubic, as open_clip does
    return state


def _fill(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    if any(k.startswith("text.") for k in model.state_dict()):             # a text tower of its own
        state = {f"text.{k}" if k.startswith(TEXT) else k: v for k, v in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit the architecture, name the right one: "
                         f"{' '.join(str(error).split())[:500]}") from None


def _inferred_config(state: dict[str, Tensor], quick_gelu: bool, heads: tuple[int, int] | None) -> dict:
    """Sizes of a ViT CLIP from the shapes of its tensors; heads (image, text), by default of 64 channels."""
    needed = ("visual.proj", "visual.conv1.weight", "visual.positional_embedding", "positional_embedding",
              "ln_final.weight", "text_projection", TABLE)
    if missing := [k for k in needed if k not in state]:
        raise ValueError(f"the state dict lacks {', '.join(missing)}, expected a CLIP with a ViT in OpenAI's "
                         "layout; other image encoders go by name, as in load_clip('RN50', state_dict=...)")

    def layers(prefix: str) -> int:
        return 1 + max(int(k.removeprefix(prefix).split(".")[0]) for k in state if k.startswith(prefix))

    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    text_width = len(state["ln_final.weight"])
    vision = {"image_size": grid * patch, "patch_size": patch, "width": width,
              "head_width": width // heads[0] if heads else 64,
              "layers": layers("visual.transformer.resblocks.")}
    text = {"context_length": len(state["positional_embedding"]), "vocab_size": len(state[TABLE]),
            "width": text_width, "heads": heads[1] if heads else text_width // 64,
            "layers": layers("transformer.resblocks.")}
    return {"embed_dim": state["text_projection"].shape[1], "vision_cfg": vision, "text_cfg": text,
            "quick_gelu": quick_gelu, "image_mean": None, "image_std": None, "seed": 0}


def _architecture(name: str, tag: str | None, quick_gelu: bool, image_size: int | None) -> nn.Module:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # open_clip and the hub's client warn of what we do, or tell, ourselves
    try:
        with torch.random.fork_rng(devices=[]):
            return open_clip.create_model(name, pretrained=tag, precision="fp32", force_quick_gelu=quick_gelu,
                                          force_image_size=image_size)
    finally:
        logging.disable(before)


def _from_hub(name: str, tag: str, quick_gelu: bool | None, image_size: int | None):
    """As `load_model`."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise ValueError(f"weights={tag!r} is neither a file nor a tag of {name}, expected one of "
                         f"{', '.join(tags)}")
    source = open_clip.get_pretrained_cfg(name, tag)
    quick = bool(source.get("quick_gelu", False)) if quick_gelu is None else quick_gelu
    try:
        return _architecture(name, tag, quick, image_size), source.get("mean"), source.get("std"), tag
    except Exception as error:  # each hub client has its own errors for "no connection"
        own_file = " (or OpenAI's own .pt file)" if tag == "openai" else ""
        raise RuntimeError(
            f"the weights {tag!r} of {name} are neither in the hub's cache nor can they be fetched: {error}. "
            "Where there is a connection, the same call fetches them once; without one, bring "
            f"open_clip_model.safetensors of the repository {source.get('hf_hub', '').strip('/')}{own_file} "
            f"to this machine and call load_clip({name!r}, weights='path/to/the/file'"
            f"{'' if quick else ', quick_gelu=False'})") from error
