"""Reading a CLIP's weights in whatever form people have them: a file, several files with an index, a folder.

`Found` holds the tensors under OpenAI's names (layouts.py), and what the files tell of the architecture.
"""

import hashlib
import json
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from ..files.paths import expand, read_text
from ..files.tensors import check_file, first_line, is_safetensors, read_checkpoint, read_tensors, tensors_in
from .layouts import to_openai

MINI_FORMAT = "minipsync-clip-1"
# what weights in a folder may be called; the first that is there is taken
FILES = ("model.safetensors", "open_clip_model.safetensors", "model.safetensors.index.json",
         "pytorch_model.bin", "open_clip_pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass
class Found:
    """Weights that were read.

    state:      tensors by name; OpenAI's names, or those of a mini file if there is a `config`.
    origin:     "openai", a tag of open_clip, or a file's name.
    config:     what a mini file says of its architecture (`new_model`).
    quick_gelu: is the activation QuickGELU? None if neither the files nor a tag say so.
    heads:      attention heads of (image encoder, text encoder); None for heads of 64 channels.
    mean, std:  normalisation of the images; None for OpenAI's.
    """

    state: dict[str, Tensor]
    origin: str
    config: dict | None = None
    quick_gelu: bool | None = None
    heads: tuple[int, int] | None = None
    mean: list | None = None
    std: list | None = None


def read_weights(path: str | Path, name: str) -> Found:
    """Read the weights of the CLIP `name` from a file, an index of several files, or a folder.

    Raises FileNotFoundError if there are none, ValueError if they are damaged or of an unknown layout."""
    path = _file_in(expand(path))
    found = Found({}, path.name)
    if _is_published(path):
        found.origin, found.quick_gelu = "openai", True
    if path.name.endswith(".index.json"):
        state = _read_parts(path)
    elif is_safetensors(check_file(path, "weights of a CLIP")):
        state, metadata = read_tensors(path, "weights of a CLIP")
        if metadata.get("format") == MINI_FORMAT:
            return Found(state, path.name, json.loads(metadata["config"]))
    elif (scripted := _read_torchscript(path)) is not None:        # an archive in OpenAI's form
        state, found.quick_gelu = scripted, True
    else:
        state = tensors_in(read_checkpoint(path), path)
    found.state = to_openai(state, str(path))
    if found.quick_gelu is None:
        _read_config_beside(path, found)
    if found.quick_gelu is None:
        _look_for_tag(path, name, found)
    return found


def _file_in(path: Path) -> Path:
    """Return the path itself, or the file of weights in it if it is a folder."""
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    there = sorted(each.name for each in path.iterdir())[:8]
    raise FileNotFoundError(f"the folder {path} has no weights; expected one of {', '.join(FILES)}, and it "
                            f"has {', '.join(there) or 'nothing'}: name the file")


def _is_published(path: Path) -> bool:
    """Is this one of OpenAI's files (ViT-B-16.pt)? open_clip knows their addresses, which hold their sha256.

    Raises ValueError for another file that has the name of one."""
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


def _read_parts(index: Path) -> dict[str, Tensor]:
    """Return the tensors of all the files that an index of transformers names."""
    try:
        files = sorted(set(json.loads(read_text(index))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights ({error}); expected {{'weight_map': {{name: file}}"
                         "}") from None
    state: dict[str, Tensor] = {}
    for name in files:
        path = check_file(index.parent / name, f"a part of the weights that {index.name} names")
        state |= read_tensors(path)[0] if is_safetensors(path) else tensors_in(read_checkpoint(path), path)
    return state


def _read_torchscript(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors of a TorchScript archive, as OpenAI's files are; None for other files."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.load")     # its category differs by version
        try:
            return torch.jit.load(path, map_location="cpu").state_dict()
        except RuntimeError as error:
            raise ValueError(f"{path} is a damaged TorchScript archive ({first_line(error)}); fetch "
                             "it again") from None


def _read_config_beside(path: Path, found: Found) -> None:
    """Take over what the config of open_clip or transformers beside the weights says."""
    try:
        if (file := path.parent / "open_clip_config.json").is_file() and path.name.startswith("open_clip"):
            about = json.loads(read_text(file))
            found.quick_gelu = bool(about["model_cfg"].get("quick_gelu", False))
            pictures = about.get("preprocess_cfg", {})
            found.mean, found.std = pictures.get("mean"), pictures.get("std")
        elif ((file := path.parent / "config.json").is_file()
              and path.name.startswith(("model", "pytorch_model"))):
            about = json.loads(read_text(file))
            if about.get("model_type") == "clip":
                vision, text = about.get("vision_config") or {}, about.get("text_config") or {}
                found.quick_gelu = vision.get("hidden_act", "quick_gelu") == "quick_gelu"
                found.heads = vision.get("num_attention_heads", 12), text.get("num_attention_heads", 8)
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} beside the weights cannot be read ({error}); fetch it again, or move the "
                         "weights to a folder of their own and give quick_gelu=…") from None


def _look_for_tag(path: Path, name: str, found: Found) -> None:
    """Take over what open_clip knows of a tag of the model `name`, if the path has the tag in it."""
    def plain(text: str) -> str:
        return text.lower().replace("-", "_")

    words = plain(str(path.absolute()))
    tags = open_clip.list_pretrained_tags_by_model(name) if name != "mini" else []
    if fitting := [tag for tag in tags if plain(tag) in words]:
        tag = max(fitting, key=len)
        about = open_clip.get_pretrained_cfg(name, tag)
        found.origin, found.quick_gelu = tag, bool(about.get("quick_gelu", False))
        found.mean, found.std = about.get("mean"), about.get("std")
