"""Loading a CLIP from a file, from the hub or from tensors, and the file format of the mini CLIP."""

import json
import logging
import math
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP, resize_pos_embed
from torch import Tensor, nn

from ..files.paths import expand
from ..files.tensors import first_line, write_tensors
from ..settings import did_you_mean
from .encoders import Clip
from .layouts import TEXT, to_openai
from .weight_files import MINI_FORMAT, Found, read_weights

MINI_PATH = Path(__file__).resolve().parent.parent / "assets" / "mini_clip.safetensors"
CONFIG_KEYS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "image_mean", "image_std", "seed")
TABLE = "token_embedding.weight"
ROWS, VALUES = "token_embedding.rows", "token_embedding.values"  # what a mini file holds of the table


def load_clip(name: str = "mini", *, weights: str | Path | None = None,
              state_dict: dict[str, Tensor] | None = None, precision: str = "fp32",
              device: str | torch.device | None = None, quick_gelu: bool | None = None,
              image_size: int | None = None) -> Clip:
    """Load a frozen `Clip`.

    name:       "mini" for the CLIP in this package, or an architecture of open_clip such as "ViT-B-16".
    weights:    for "mini", a file to take instead of the package's own, from `save_mini` or of any layout
                below. For an architecture, a tag of open_clip ("laion2b_s34b_b88k"; by default "openai"),
                which is read from the hub's cache or fetched once; or a file, an index of several files, or a
                folder. Files may hold OpenAI's archive, a state dict with OpenAI's or open_clip's names under
                any prefix and in any dict, or transformers' CLIPModel. A pickle runs nothing (tensors.py).
    state_dict: tensors in one of these layouts instead of a file, of any float type. With name="mini" the
                sizes follow from the shapes, with heads of 64 channels, and the CLIP is called "custom".
    precision:  "fp32", or "bf16" / "fp16" for the encoders (see `Clip`).
    device:     where to compute; by default a GPU if there is one.
    quick_gelu: the activation x * sigmoid(1.702 x) in place of GELU. By default what the mini file, the tag
                of open_clip (also if it is part of the file's path) or a config beside the file says; if
                nothing does, True as for OpenAI's weights, with a warning for a file.
    image_size: side of the images in pixels, where it is not the architecture's. The position embeddings
                are then interpolated (bicubic).

    Raises ValueError for unknown names and devices, for tensors that do not fit or are not finite, and for
    damaged files; FileNotFoundError and RuntimeError, with what to do, for weights that are not there.
    """
    device = check_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = name.replace("/", "-")
    if name != "mini" and name not in (good := open_clip.list_models()):
        raise ValueError(f"unknown CLIP {name!r}, expected 'mini', 'ViT-B-32', 'ViT-B-16', 'ViT-L-14', "
                         "'ViT-L-14-336', 'RN50' or another of open_clip.list_models()."
                         f"{did_you_mean(name, good)}")
    if state_dict is not None:
        source = "the given state dict"
        found = Found(to_openai(dict(state_dict), source), "")
        model = _model_of(found, source, name, quick_gelu, image_size)
    elif name == "mini" or (weights is not None and expand(weights).exists()):
        path = expand(weights or MINI_PATH)
        found = _read(path, name, quick_gelu)
        model = _model_of(found, str(path), name, quick_gelu, image_size)
    else:
        model, found = _from_hub(name, str(weights or "openai"), quick_gelu, image_size)
    name = "custom" if state_dict is not None and name == "mini" else name
    return Clip(model, precision=precision, mean=found.mean, std=found.std, name=name,
                weights=found.origin).to(device)


def check_device(device: str | int | torch.device) -> torch.device:
    """Return the device. Raises ValueError, with those that are there, if nothing can be computed on it."""
    try:
        torch.zeros(1, device=device).item()
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        good = ["'cpu'", *(f"'cuda:{i}'" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"device={str(device)!r} cannot be used here ({first_line(error)}); expected "
                         f"{' or '.join(good)}") from error


# ---- from files, tensors and the hub to a model ----
def _read(path: Path, name: str, quick_gelu: bool | None) -> Found:
    """Read weights from a file or folder, and warn if nothing says which activation they need."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}: give weights=<a file of save_mini>, "
                                "or make one with data_scripts/train_mini_clip.py")
    found = read_weights(path, name)
    if found.quick_gelu is None and found.config is None and quick_gelu is None:
        warnings.warn(f"{path} does not say which activation its CLIP has: QuickGELU, as OpenAI's, is "
                      "taken. Most others (LAION's, DataComp's, …) need load_clip(…, quick_gelu=False); "
                      "say quick_gelu=True or False", stacklevel=3)
    return found


def _model_of(found: Found, source: str, name: str, quick_gelu: bool | None, image_size: int | None) -> CLIP:
    """Build the architecture for weights that were read, and fill it with them."""
    quick = quick_gelu if quick_gelu is not None else found.quick_gelu is not False
    if found.config is not None:                       # a mini file
        model = _build(_at_size(found.config, image_size))
        table = _initial_rows(found.config, model.token_embedding.weight.shape)
        rows, values = found.state.pop(ROWS).long(), found.state.pop(VALUES).float()
        found.state[TABLE] = table.index_copy(0, rows, values)
        found.mean, found.std = found.config["image_mean"], found.config["image_std"]
    elif name == "mini":
        model = _build(_at_size(_inferred_config(found.state, quick, found.heads), image_size))
    else:
        model = _architecture(name, None, quick, image_size)
    state = _at_grid(model, found.state, image_size, source)
    if any(k.startswith("text.") for k in model.state_dict()):             # a text tower of its own
        state = {f"text.{k}" if k.startswith(TEXT) else k: v for k, v in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit the architecture, name the right one: "
                         f"{' '.join(str(error).split())[:500]}") from None
    return model


def _from_hub(name: str, tag: str, quick_gelu: bool | None, image_size: int | None) -> tuple[CLIP, Found]:
    """Return open_clip's model with the weights of a tag, and what open_clip knows of these."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise ValueError(f"weights={tag!r} is neither a file nor a tag of {name}, expected one of "
                         f"{', '.join(tags)}")
    about = open_clip.get_pretrained_cfg(name, tag)
    quick = bool(about.get("quick_gelu", False)) if quick_gelu is None else quick_gelu
    try:
        model = _architecture(name, tag, quick, image_size)
    except Exception as error:  # each hub client has its own errors for "no connection"
        own_file = " (or OpenAI's own .pt file)" if tag == "openai" else ""
        raise RuntimeError(
            f"the weights {tag!r} of {name} are neither in the hub's cache nor can they be fetched: {error}. "
            "Where there is a connection, the same call fetches them once; without one, bring "
            f"open_clip_model.safetensors of the repository {about.get('hf_hub', '').strip('/')}{own_file} "
            f"to this machine and call load_clip({name!r}, weights='path/to/the/file'"
            f"{'' if quick else ', quick_gelu=False'})") from error
    return model, Found({}, tag, quick_gelu=quick, mean=about.get("mean"), std=about.get("std"))


def _architecture(name: str, tag: str | None, quick_gelu: bool, image_size: int | None) -> CLIP:
    """Return open_clip's model `name`, untrained or with the weights of a tag, without open_clip's log."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # what open_clip and the hub's client warn of is intended, or told above
    try:
        with torch.random.fork_rng(devices=[]):
            return open_clip.create_model(name, pretrained=tag, precision="fp32", force_quick_gelu=quick_gelu,
                                          force_image_size=image_size)
    finally:
        logging.disable(before)


def _inferred_config(state: dict[str, Tensor], quick_gelu: bool, heads: tuple[int, int] | None) -> dict:
    """Return the config, as `new_model` takes it, of a ViT CLIP from the shapes of its tensors.

    heads: (of the image encoder, of the text encoder); None for heads of 64 channels."""
    needed = ("visual.proj", "visual.conv1.weight", "visual.positional_embedding", "positional_embedding",
              "ln_final.weight", "text_projection", TABLE)
    if missing := [k for k in needed if k not in state]:
        raise ValueError(f"the state dict lacks {', '.join(missing)}, expected a CLIP with a ViT in OpenAI's "
                         "layout; other image encoders go by name, as in load_clip('RN50', state_dict=...)")

    def layers(prefix: str) -> int:
        return 1 + max(int(k.removeprefix(prefix).split(".")[0]) for k in state if k.startswith(prefix))

    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = math.isqrt(len(state["visual.positional_embedding"]) - 1)
    text_width = len(state["ln_final.weight"])
    vision = {"image_size": grid * patch, "patch_size": patch, "width": width,
              "head_width": width // heads[0] if heads else 64,
              "layers": layers("visual.transformer.resblocks.")}
    text = {"context_length": len(state["positional_embedding"]), "vocab_size": len(state[TABLE]),
            "width": text_width, "heads": heads[1] if heads else text_width // 64,
            "layers": layers("transformer.resblocks.")}
    return {"embed_dim": state["text_projection"].shape[1], "vision_cfg": vision, "text_cfg": text,
            "quick_gelu": quick_gelu, "image_mean": None, "image_std": None, "seed": 0}


def _at_size(config: dict, image_size: int | None) -> dict:
    """Return the config for images of another size. Raises ValueError unless whole patches fill it."""
    if image_size is None:
        return config
    patch = config["vision_cfg"]["patch_size"]
    if not isinstance(image_size, int) or image_size < patch or image_size % patch:
        raise ValueError(f"image_size={image_size!r}: expected a multiple of {patch}, the side of a patch")
    return config | {"vision_cfg": config["vision_cfg"] | {"image_size": image_size}}


def _at_grid(model: CLIP, state: dict[str, Tensor], image_size: int | None, source: str) -> dict[str, Tensor]:
    """Return the tensors with the position embeddings of the image interpolated to the model's grid.

    Raises ValueError, with both sizes, if the grids differ and no `image_size` was asked for."""
    name, visual = "visual.positional_embedding", model.visual
    own = getattr(visual, "positional_embedding", None)
    if own is None or name not in state or state[name].shape == own.shape or state[name].ndim != 2:
        return state
    side = math.isqrt(len(state[name]) - 1)
    if state[name].shape[1] != own.shape[1] or side * side != len(state[name]) - 1:
        return state                                   # another width: loading says what does not fit
    theirs, ours = side * visual.conv1.kernel_size[0], visual.image_size
    ours = ours if isinstance(ours, int) else ours[0]
    if image_size is None:
        raise ValueError(f"{source} has positions for images of {theirs} px, this architecture for {ours} "
                         f"px: say image_size={theirs} to use the weights as they are, or image_size={ours} "
                         "to interpolate their positions")
    state = {k: v.float() if k == name else v for k, v in state.items()}
    resize_pos_embed(state, model)
    return state


# ---- the mini CLIP ----
def new_model(config: dict) -> CLIP:
    """Return an untrained open_clip model; the same config gives the same weights.

    config: embed_dim, vision_cfg and text_cfg (open_clip's), quick_gelu, image_mean, image_std and seed. The
    rows of the token table are 0.02 * RandomState(seed).standard_normal, so that `save_mini` can leave out
    those that were never trained. The global random state stays as it is.
    Raises ValueError for a config that lacks a key.
    """
    model = _build(config)
    with torch.no_grad():
        model.token_embedding.weight.copy_(_initial_rows(config, model.token_embedding.weight.shape))
    return model


def save_mini(path: str | Path, model: nn.Module, config: dict, used_token_ids: Iterable[int]) -> None:
    """Write a small CLIP that `load_clip(weights=path)` reads, in float16 and without unused tokens.

    config:         what `new_model` made the model from; the other rows follow from its seed.
    used_token_ids: the tokens whose rows were trained; those of start and end of a text are always kept.
    Raises ValueError for a config that lacks a key.
    """
    _check_config(config)
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    table = state.pop(TABLE)
    start = len(table) - 2
    rows = torch.tensor(sorted({*map(int, used_token_ids), start, start + 1}), dtype=torch.int32)
    state = {k: v.half() if v.ndim else v.float() for k, v in state.items()}
    state |= {ROWS: rows, VALUES: table[rows.long()].half()}
    write_tensors(path, state, {"format": MINI_FORMAT, "config": json.dumps(config)})


def _check_config(config: dict) -> None:
    """Raise ValueError if a key of a mini CLIP's config is missing."""
    if missing := [k for k in CONFIG_KEYS if k not in config]:
        raise ValueError(f"the config lacks {', '.join(missing)}, expected the keys {', '.join(CONFIG_KEYS)}")


def _build(config: dict) -> CLIP:
    """Return open_clip's model of a config, with random weights that follow from its seed."""
    _check_config(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        return CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], config["quick_gelu"])


def _initial_rows(config: dict, shape: tuple[int, ...]) -> Tensor:
    """Return the token table [49408, W] as it is before training."""
    rows = 0.02 * np.random.RandomState(config["seed"]).standard_normal(tuple(shape))
    return torch.from_numpy(rows.astype(np.float32))
