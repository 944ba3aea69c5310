"""A CLIP's weights from whatever people have: one file, several, a folder; and what lies beside them.

`Found` says what was read: tensors under OpenAI's names, and what the files tell of the architecture.
"""

import hashlib
import json
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from ..files.paths import expand, read_text
from ..files.tensors import check_file, is_safetensors, read_checkpoint, read_tensors, tensors_in
from .layouts import to_openai

MINI_FORMAT = "minipsync-clip-1"
# in a folder, the first of these that is there
FILES = ("model.safetensors", "open_clip_model.safetensors", "model.safetensors.index.json",
         "pytorch_model.bin", "open_clip_pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass
class Found:
    """Weights that were read.

    state:      tensors by name: OpenAI's names, or, with a `config`, those of a mini file.
    origin:     "openai", a tag of open_clip, or a file's name.
    quick_gelu: the activation, where the files or the tag tell it, else None.
    heads:      (of the image tower, of the text tower), None for OpenAI's 64 channels each.
    """

    state: dict[str, Tensor]
    origin: str
    config: dict | None = None
    quick_gelu: bool | None = None
    heads: tuple[int, int] | None = None
    mean: list | None = field(default=None)
    std: list | None = field(default=None)


def read_weights(path: str | Path, name: str) -> Found:
    """Read the weights of the CLIP `name` from a file, an index of several files, or a folder.

    Raises FileNotFoundError where there is nothing, ValueError for what is damaged or of another layout."""
    path = _file_in(expand(path))
    if is_published(path):
        state = _scripted(path) or tensors_in(read_checkpoint(path), path)
        return Found(to_openai(state, str(path)), "openai", quick_gelu=True)
    if path.name.endswith(".index.json"):
        state = _shards(path)
    elif is_safetensors(check_file(path, "weights of a CLIP")):
        state, metadata = read_tensors(path, "weights of a CLIP")
        if metadata.get("format") == MINI_FORMAT:
            return Found(state, path.name, json.loads(metadata["config"]))
    elif (state := _scripted(path)) is not None:           # an archive as OpenAI's, of somebody's training
        return Found(to_openai(state, str(path)), path.name, quick_gelu=True)
    else:
        state = tensors_in(read_checkpoint(path), path)
    found = Found(to_openai(state, str(path)), path.name)
    _read_beside(path, found)
    if found.quick_gelu is None:
        _look_for_tag(path, name, found)
    return found


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


def _file_in(path: Path) -> Path:
    """The file itself, or the file of weights in a folder."""
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    there = sorted(each.name for each in path.iterdir())[:8]
    raise FileNotFoundError(f"the folder {path} has no weights; expected one of {', '.join(FILES)}, and it "
                            f"has {', '.join(there) or 'nothing'}: name the file")


def _shards(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index of transformers names."""
    try:
        files = sorted(set(json.loads(read_text(index))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights ({error}); expected {{'weight_map': {{name: file}}"
                         "}") from None
    state = {}
    for name in files:
        path = check_file(index.parent / name, f"a part of the weights that {index.name} names")
        whole = is_safetensors(path)
        state |= read_tensors(path)[0] if whole else tensors_in(read_checkpoint(path), path)
    return state


def _scripted(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a TorchScript archive, as OpenAI's files are; None for other files."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.load")       # of another category by version
        try:
            return torch.jit.load(path, map_location="cpu").state_dict()
        except RuntimeError as error:
            raise ValueError(f"{path} is a damaged TorchScript archive ({str(error).splitlines()[0]}); fetch "
                             "it again") from None


def _read_beside(path: Path, found: Found) -> None:
    """Activation and heads from the config.json of transformers, or open_clip's, beside the weights."""
    try:
        if (file := path.parent / "open_clip_config.json").is_file() and path.name.startswith("open_clip"):
            about = json.loads(read_text(file))
            found.quick_gelu = bool(about["model_cfg"].get("quick_gelu", False))
            found.mean = about.get("preprocess_cfg", {}).get("mean")
            found.std = about.get("preprocess_cfg", {}).get("std")
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
    """What open_clip knows of the tag of these weights, if the path has it in its name."""
    def plain(text):
        return text.lower().replace("-", "_")

    words = plain(str(path.absolute()))
    tags = open_clip.list_pretrained_tags_by_model(name) if name != "mini" else []
    if fitting := [tag for tag in tags if plain(tag) in words]:
        tag = max(fitting, key=len)
        about = open_clip.get_pretrained_cfg(name, tag)
        found.origin, found.quick_gelu = tag, bool(about.get("quick_gelu", False))
        found.mean, found.std = about.get("mean"), about.get("std")
