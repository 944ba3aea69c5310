"""The names that others give to CLIP's weights, turned into OpenAI's, which are also open_clip's.

Known are the names of OpenAI and open_clip and those of transformers' CLIPModel, each with any prefix before
all of them ("module.", "_orig_mod.", "model.", "clip_model.", …), and open_clip's "text." for models whose
text encoder is a module of its own.
"""

import re

import torch
from torch import Tensor

# one tensor that every image encoder has, by OpenAI's and by transformers' name
MARKS = ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight")
SIZES = ("input_resolution", "context_length", "vocab_size")       # no weights, but in OpenAI's files
TEXT = ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.",
        "attn_mask")                                               # how the text encoder's names begin
KNOWN = ("OpenAI's and open_clip's (visual.conv1.weight, transformer.resblocks.0…), transformers' CLIPModel "
         "(vision_model.…, text_model.…), and both with a prefix before every name")

# transformers' CLIPModel -> OpenAI: whole names, names of norms, projections that are transposed, block parts
WHOLE = {"logit_scale": "logit_scale",
         "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
         "text_model.embeddings.position_embedding.weight": "positional_embedding",
         "vision_model.embeddings.class_embedding": "visual.class_embedding",
         "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
         "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding"}
NORMS = {"text_model.final_layer_norm": "ln_final", "vision_model.pre_layrnorm": "visual.ln_pre",
         "vision_model.post_layernorm": "visual.ln_post"}
TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
PARTS = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
         "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def to_openai(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the same tensors under OpenAI's names.

    source: what error messages call the file.
    Raises ValueError, with the first names and the known layouts, if the layout is none of these."""
    state = _without_prefix(state)
    if any(name.startswith(("vision_model.", "text_model.")) for name in state):
        state = _from_transformers(state, source)
    state = {inner if (inner := k.removeprefix("text.")).startswith(TEXT) else k: v for k, v in state.items()}
    state = {k: v for k, v in state.items() if k not in SIZES and k != "attn_mask"}
    if not any(name.startswith(("visual.", *TEXT)) for name in state):
        raise ValueError(f"{source} has names that are no CLIP's, first {', '.join(list(state)[:5])}; known "
                         f"are the layouts of {KNOWN}")
    # drop single numbers beside the weights, such as a count of steps; a ResNet's norms do count batches
    state = {k: v for k, v in state.items() if v.ndim or k.startswith(("visual.", "logit_"))}
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(())
    return state


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the prefix that stands before all names of a CLIP, and the tensors of anything else."""
    marked = [name for name in state if name.endswith(MARKS)]
    if not marked:
        return state
    name = min(marked, key=len)                            # of several CLIPs, as a student and a teacher
    prefix = name.removesuffix(next(mark for mark in MARKS if name.endswith(mark)))
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _from_transformers(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors of transformers' CLIPModel under OpenAI's names, queries, keys and values joined."""
    out: dict[str, Tensor] = {}
    apart: dict[str, dict[str, Tensor]] = {}               # joined tensor -> its parts "q", "k" and "v"
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        block = re.fullmatch(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)", stem)
        tower = f"{'visual.' * (block[1] == 'vision')}transformer.resblocks.{block[2]}" if block else ""
        if name in WHOLE:
            out[WHOLE[name]] = value.flatten() if name.endswith("class_embedding") else value
        elif name in TRANSPOSED:
            out[TRANSPOSED[name]] = value.T
        elif stem in NORMS:
            out[f"{NORMS[stem]}.{kind}"] = value
        elif block and (letter := re.fullmatch(r"self_attn\.([qkv])_proj", block[3])):
            apart.setdefault(f"{tower}.attn.in_proj_{kind}", {})[letter[1]] = value
        elif block and block[3] in PARTS:
            out[f"{tower}.{PARTS[block[3]]}.{kind}"] = value
        elif not name.endswith("position_ids"):
            raise ValueError(f"{source} has {name}, which transformers' CLIPModel has not")
    for name, parts in apart.items():
        if set(parts) != set("qkv"):
            raise ValueError(f"{source} has of {name} only the part(s) {', '.join(sorted(parts))}")
        out[name] = torch.cat([parts[letter] for letter in "qkv"])
    towers = {"visual.proj": "the image tower and its projection",
              "text_projection": "the text tower and its projection"}
    if lacking := [what for mark, what in towers.items() if mark not in out]:
        raise ValueError(f"{source} lacks {' and '.join(lacking)}; expected a whole CLIPModel, not one of "
                         "its towers")
    return out
