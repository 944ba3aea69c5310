"""The names that others give to CLIP's weights, turned into OpenAI's, which are open_clip's.

Known are OpenAI's own and open_clip's names, with any prefix before all of them ("module.", "_orig_mod.",
"model.", "clip_model.", …), open_clip's for models with a text tower of its own ("text."), and those of
transformers' CLIPModel.
"""

import re

import torch
from torch import Tensor

MARKS = ("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight")      # of images
SIZES = ("input_resolution", "context_length", "vocab_size")       # entries of OpenAI's files, no weights
TEXT = ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.",
        "attn_mask")                                               # behind open_clip's "text."
KNOWN = ("OpenAI's and open_clip's (visual.conv1.weight, transformer.resblocks.0…), transformers' CLIPModel "
         "(vision_model.…, text_model.…), and both with a prefix before every name")

# transformers' CLIPModel -> OpenAI
OUTER = {"logit_scale": "logit_scale",
         "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
         "text_model.embeddings.position_embedding.weight": "positional_embedding",
         "vision_model.embeddings.class_embedding": "visual.class_embedding",
         "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
         "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding"}
NORMS = {"text_model.final_layer_norm": "ln_final", "vision_model.pre_layrnorm": "visual.ln_pre",
         "vision_model.post_layernorm": "visual.ln_post"}
TURNED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
PARTS = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
         "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def to_openai(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The same tensors under OpenAI's names. Raises ValueError, with the first names and the layouts that are
    known, for any other; source: what errors call the file."""
    state = _without_prefix(state)
    if any(name.startswith(("vision_model.", "text_model.")) for name in state):
        state = _from_transformers(state, source)
    if any(name.startswith("text.") for name in state):
        state = {k.removeprefix("text.") if k.removeprefix("text.").startswith(TEXT) else k: v
                 for k, v in state.items()}
    state = {k: v for k, v in state.items() if k not in SIZES and k != "attn_mask"}
    if not any(name.startswith(("visual.", *TEXT)) for name in state):
        raise ValueError(f"{source} has names that are no CLIP's, first {', '.join(list(state)[:5])}; known "
                         f"are the layouts of {KNOWN}")
    # numbers beside the weights, as of steps; but a ResNet's norms count their batches
    state = {k: v for k, v in state.items() if v.ndim or k.startswith(("visual.", "logit_"))}
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(())
    return state


def _without_prefix(state):
    """Without what stands before all names of a CLIP, and without the tensors of anything else."""
    marked = [name for name in state if name.endswith(MARKS)]
    if not marked:
        return state
    name = min(marked, key=len)                            # of a student and a teacher, say, the first
    prefix = name.removesuffix(next(mark for mark in MARKS if name.endswith(mark)))
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)} if prefix else state


def _from_transformers(state, source):
    out, split = {}, {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if name in OUTER:
            out[OUTER[name]] = value.flatten() if name.endswith("class_embedding") else value
        elif name in TURNED:
            out[TURNED[name]] = value.T
        elif stem in NORMS:
            out[f"{NORMS[stem]}.{kind}"] = value
        elif found := re.fullmatch(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)", stem):
            tower, layer, part = found.groups()
            block = f"{'visual.' * (tower == 'vision')}transformer.resblocks.{layer}"
            if letter := re.fullmatch(r"self_attn\.([qkv])_proj", part):
                split.setdefault(f"{block}.attn.in_proj_{kind}", {})[letter[1]] = value
            elif part in PARTS:
                out[f"{block}.{PARTS[part]}.{kind}"] = value
            else:
                raise ValueError(f"{source} has {name}, which transformers' CLIPModel has not")
        elif not name.endswith("position_ids"):
            raise ValueError(f"{source} has {name}, which transformers' CLIPModel has not")
    for name, parts in split.items():
        if set(parts) != set("qkv"):
            raise ValueError(f"{source} has of {name} only the part(s) {', '.join(sorted(parts))}")
        out[name] = torch.cat([parts[letter] for letter in "qkv"])
    lacking = [what for what, mark in (("the image tower and its projection", "visual.proj"),
                                       ("the text tower and its projection", "text_projection"))
               if mark not in out]
    if lacking:
        raise ValueError(f"{source} lacks {' and '.join(lacking)}; expected a whole CLIPModel, not one of "
                         "its towers")
    return out
