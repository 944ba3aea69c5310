"""From files, hub and tensors to an open_clip model in float32; and the file format of the mini CLIP."""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

MINI_FORMAT = "minipsync-clip-1"
MINI_PATH = Path(__file__).parent / "assets" / "mini_clip.safetensors"
TOKENS = "token_embedding.weight"


def new_model(config: dict) -> CLIP:
    """An untrained open_clip CLIP in training mode; the same for the same config, global random state untouched.

    `config`: embed_dim, vision_cfg, text_cfg (open_clip's), quick_gelu, image_mean, image_std, seed. Token rows are
    0.02 * RandomState(seed).standard_normal, so that `save_mini` may leave out those that training never touched.
    """
    model = _build(config)
    with torch.no_grad():
        model.token_embedding.weight.copy_(_initial_rows(config, model.token_embedding.weight.shape))
    return model


def save_mini(path: str | Path, model: nn.Module, config: dict, used_token_ids) -> None:
    """Write `model` as float16 safetensors: all tensors, but of the token table only the rows `used_token_ids`.

    The other rows are back at their initial value (see `new_model`) when the file is loaded. SOS and EOT count as used.
    Raises ValueError for a config that lacks a key.
    """
    keys = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "image_mean", "image_std", "seed")
    if missing := [k for k in keys if k not in config]:
        raise ValueError(f"the config lacks {', '.join(missing)}, expected the keys {', '.join(keys)}")
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    table = state.pop(TOKENS)
    sos = len(table) - 2
    rows = torch.tensor(sorted({*map(int, used_token_ids), sos, sos + 1}), dtype=torch.int32)
    state = {k: v.half().contiguous() if v.ndim else v.float() for k, v in state.items()}  # scalars stay exact
    state |= {"token_embedding.rows": rows, "token_embedding.values": table[rows.long()].half()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, {"format": MINI_FORMAT, "config": json.dumps(config)})


def load_model(name: str, weights: str | Path | None, state_dict: dict[str, Tensor] | None,
               quick_gelu: bool | None) -> tuple[nn.Module, list | None, list | None]:
    """(model, image mean, image std); the last two are None for CLIP's own. See `clip.load_clip` for the cases."""
    name = name.replace("/", "-")
    if name != "mini" and name not in open_clip.list_models():
        near = [m for m in open_clip.list_models() if m.startswith(("ViT-B", "ViT-L", "RN"))]
        raise ValueError(f"unknown CLIP {name!r}, expected 'mini' or an architecture of open_clip such as {', '.join(near)}")
    if state_dict is None and name == "mini":
        weights = Path(weights or MINI_PATH)
        if not weights.is_file():
            raise FileNotFoundError(f"there is no file {weights}: give weights=<a file written by save_mini>, "
                                    "or make one with data_scripts/train_mini_clip.py")
    if state_dict is None and weights is not None and Path(weights).is_file():
        state_dict, config = _read(Path(weights))
        if config is not None:
            model = _build(config)
            rows, values = state_dict.pop("token_embedding.rows").long(), state_dict.pop("token_embedding.values")
            table = _initial_rows(config, model.token_embedding.weight.shape)
            state_dict[TOKENS] = table.index_copy(0, rows, values.float())
            return _filled(model, state_dict, str(weights)), config["image_mean"], config["image_std"]
    if state_dict is None:
        return _from_hub(name, str(weights or "openai"), quick_gelu), None, None
    state = {k: v for k, v in state_dict.items() if k not in ("input_resolution", "context_length", "vocab_size")}
    quick = quick_gelu is not False
    model = _build(_inferred_config(state, quick)) if name == "mini" else _architecture(name, None, quick)
    return _filled(model, state, f"the state dict for {name}"), None, None


def _build(config: dict) -> CLIP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.get("seed", 0))
        return CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], quick_gelu=config["quick_gelu"])


def _initial_rows(config: dict, shape: tuple) -> Tensor:
    rows = 0.02 * np.random.RandomState(config["seed"]).standard_normal(tuple(shape))
    return torch.from_numpy(rows.astype(np.float32))


def _filled(model: nn.Module, state: dict[str, Tensor], source: str) -> nn.Module:
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit the architecture; give the matching name. {error}") from error
    return model


def _inferred_config(state: dict[str, Tensor], quick_gelu: bool) -> dict:
    """Sizes of a ViT CLIP from the shapes of its tensors, heads of 64 channels as OpenAI's."""
    if missing := {"visual.proj", "visual.conv1.weight", "ln_final.weight", "text_projection", TOKENS} - set(state):
        raise ValueError(f"the state dict lacks {', '.join(sorted(missing))}, expected a CLIP with a ViT in OpenAI's "
                         "layout; for other image encoders name the architecture, e.g. load_clip('RN50', state_dict=...)")

    def layers(prefix: str) -> int:
        return 1 + max(int(k.removeprefix(prefix).split(".")[0]) for k in state if k.startswith(prefix))

    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    text_width = len(state["ln_final.weight"])
    return {
        "embed_dim": state["text_projection"].shape[1], "quick_gelu": quick_gelu,
        "vision_cfg": {"image_size": grid * patch, "patch_size": patch, "width": width, "head_width": 64,
                       "layers": layers("visual.transformer.resblocks.")},
        "text_cfg": {"context_length": len(state["positional_embedding"]), "vocab_size": len(state[TOKENS]),
                     "width": text_width, "heads": text_width // 64, "layers": layers("transformer.resblocks.")},
    }


def _read(path: Path) -> tuple[dict[str, Tensor], dict | None]:
    """Tensors of a file, and the config if it is a mini file. Pickled code is never run."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
        return state, json.loads(metadata["config"]) if metadata.get("format") == MINI_FORMAT else None
    try:
        return torch.jit.load(path, map_location="cpu").state_dict(), None  # OpenAI's .pt files
    except RuntimeError:
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    return {k.removeprefix("module."): v for k, v in state.items()}, None


def _architecture(name: str, tag: str | None, quick_gelu: bool) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return open_clip.create_model(name, pretrained=tag, precision="fp32", force_quick_gelu=quick_gelu)


def _from_hub(name: str, tag: str, quick_gelu: bool | None) -> nn.Module:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag not in tags:
        raise ValueError(f"weights={tag!r} is neither a file nor a tag of {name}, expected one of {', '.join(tags)}")
    source = open_clip.get_pretrained_cfg(name, tag)
    if quick_gelu is None:
        quick_gelu = bool(source.get("quick_gelu", False))
    try:
        return _architecture(name, tag, quick_gelu)
    except Exception as error:  # each hub client has its own errors for "no connection"
        repository = source.get("hf_hub", "").strip("/")
        raise RuntimeError(
            f"the weights {tag!r} of {name} are not in the cache and could not be fetched ({type(error).__name__}). "
            f"With a connection, run load_clip({name!r}) once; without one, bring open_clip_model.safetensors of the "
            f"hub repository {repository} (or OpenAI's own .pt file) to this machine and call "
            f"load_clip({name!r}, weights='path/to/the/file')") from error
