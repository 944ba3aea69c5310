"""From files, hub and tensors to an open_clip model in float32; and the file format of the mini CLIP."""

import hashlib
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .tensors import first_line, read_checkpoint, write_tensors

MINI_FORMAT = "minipsync-clip-1"
MINI_PATH = Path(__file__).parent / "assets" / "mini_clip.safetensors"
CONFIG_KEYS = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "image_mean", "image_std", "seed")
TABLE = "token_embedding.weight"
ROWS, VALUES = "token_embedding.rows", "token_embedding.values"  # what a mini file holds of the table
SIZES = ("input_resolution", "context_length", "vocab_size")  # entries of OpenAI's files that are no weights


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
               quick_gelu: bool | None) -> tuple[nn.Module, list | None, list | None, str]:
    """(model, image mean, image std, origin of the weights), mean and std None for CLIP's own; the origin is
    "openai", another tag of open_clip, a file's name or "". `clip.load_clip` tells the cases."""
    name, config, origin = name.replace("/", "-"), None, ""
    if name != "mini" and name not in open_clip.list_models():
        raise ValueError(f"unknown CLIP {name!r}, expected 'mini', 'ViT-B-32', 'ViT-B-16', 'ViT-L-14', "
                         "'ViT-L-14-336', 'RN50' or another of open_clip.list_models()")
    if state_dict is None and name == "mini":
        weights = Path(weights or MINI_PATH)
        if not weights.is_file():
            raise FileNotFoundError(f"there is no file {weights}: give weights=<a file of save_mini>, "
                                    "or make one with data_scripts/train_mini_clip.py")
    if state_dict is None and weights is not None and Path(weights).is_file():
        origin = "openai" if is_published(Path(weights)) else Path(weights).name
        state_dict, config = _read(Path(weights))
    if config is not None:
        model = _build(config)
        table = _initial_rows(config, model.token_embedding.weight.shape)
        rows, values = state_dict.pop(ROWS).long(), state_dict.pop(VALUES).float()
        _fill(model, state_dict | {TABLE: table.index_copy(0, rows, values)}, str(weights))
        return model, config["image_mean"], config["image_std"], origin
    if state_dict is None:
        return _from_hub(name, str(weights or "openai"), quick_gelu)
    state = {k: v for k, v in state_dict.items() if k not in SIZES}
    quick = quick_gelu is not False
    model = _build(_inferred_config(state, quick)) if name == "mini" else _architecture(name, None, quick)
    _fill(model, state, "the given state dict" if weights is None else str(weights))
    return model, None, None, origin


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


def is_published(path: Path) -> bool:
    """Is this one of OpenAI's files (ViT-B-16.pt)? Its sha256 is part of the address that open_clip knows.

    Raises ValueError for a file that only has the name of one."""
    for model, tag in open_clip.list_pretrained():
        address = open_clip.get_pretrained_cfg(model, tag).get("url") or ""
        if tag == "openai" and address.endswith(f"/{path.name}"):
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != (published := address.split("/")[-2]):
                raise ValueError(f"{path} is not OpenAI's {path.name}: its sha256 is {found[:16]}…, expected "
                                 f"{published[:16]}…; fetch it again, or give your own weights another name")
            return True
    return False


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


def _fill(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit the architecture, name the right one: "
                         f"{' '.join(str(error).split())[:500]}") from None


def _inferred_config(state: dict[str, Tensor], quick_gelu: bool) -> dict:
    """Sizes of a ViT CLIP from the shapes of its tensors, heads of 64 channels as OpenAI's."""
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
    vision = {"image_size": grid * patch, "patch_size": patch, "width": width, "head_width": 64,
              "layers": layers("visual.transformer.resblocks.")}
    text = {"context_length": len(state["positional_embedding"]), "vocab_size": len(state[TABLE]),
            "width": text_width, "heads": text_width // 64, "layers": layers("transformer.resblocks.")}
    return {"embed_dim": state["text_projection"].shape[1], "vision_cfg": vision, "text_cfg": text,
            "quick_gelu": quick_gelu, "image_mean": None, "image_std": None, "seed": 0}


def _read(path: Path) -> tuple[dict[str, Tensor], dict | None]:
    """Tensors of a file, and the config if it is a mini file. Pickled code is never run."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                state = {k: file.get_tensor(k) for k in file.keys()}
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file ({error}); fetch or save it again, and "
                             "call a pickled checkpoint .pt") from None
        return state, json.loads(metadata["config"]) if metadata.get("format") == MINI_FORMAT else None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.load")
            return torch.jit.load(path, map_location="cpu").state_dict(), None  # OpenAI's .pt files
    except RuntimeError:
        return {k.removeprefix("module."): v for k, v in read_checkpoint(path).items()}, None


def _architecture(name: str, tag: str | None, quick_gelu: bool) -> nn.Module:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)  # open_clip and the hub's client warn of what we do, or tell, ourselves
    try:
        with torch.random.fork_rng(devices=[]):
            return open_clip.create_model(name, pretrained=tag, precision="fp32", force_quick_gelu=quick_gelu)
    finally:
        logging.disable(before)


def _from_hub(name: str, tag: str, quick_gelu: bool | None):
    """As `load_model`."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise ValueError(f"weights={tag!r} is neither a file nor a tag of {name}, expected one of "
                         f"{', '.join(tags)}")
    source = open_clip.get_pretrained_cfg(name, tag)
    try:
        quick = source.get("quick_gelu", False) if quick_gelu is None else quick_gelu
        return _architecture(name, tag, quick), source.get("mean"), source.get("std"), tag
    except Exception as error:  # each hub client has its own errors for "no connection"
        own_file = " (or OpenAI's own .pt file)" if tag == "openai" else ""
        raise RuntimeError(
            f"the weights {tag!r} of {name} are neither in the hub's cache nor can they be fetched: {error}. "
            "Where there is a connection, the same call fetches them once; without one, bring "
            f"open_clip_model.safetensors of the repository {source.get('hf_hub', '').strip('/')}{own_file} "
            f"to this machine and call load_clip({name!r}, weights='path/to/the/file')") from error
