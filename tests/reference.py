"""CLIP's two encoders with prompts, written as literally as possible: 77 tokens per text, whole blocks.

The library must agree with this file, and this file with the papers (METHODS 2, 5.2, 5.4).
"""

import open_clip
import torch

SOS, EOT = 49406, 49407


def layout(class_names, n_ctx, *, tail="", position="end", class_specific=False, context_length=77):
    """Token ids and slots (-1 = fixed token) [C, context_length] of "X X {tail} {name}."."""
    all_ids, all_slots = [], []
    for c, name in enumerate(class_names):
        name = name.replace("_", " ")
        text = f"{'X ' * n_ctx}{tail + ' ' if tail else ''}{name}."
        ids = open_clip.tokenize(text, 100)[0].tolist()
        n_name = open_clip.tokenize(name, 100)[0].tolist().index(EOT) - 1
        suffix = ids[1 + n_ctx: ids.index(EOT)]
        context = [c * n_ctx + m if class_specific else m for m in range(n_ctx)]
        if position == "end":
            parts = [context, suffix]
        elif position == "middle":
            half = n_ctx // 2
            parts = [context[:half], suffix[:n_name], context[half:], suffix[n_name:]]
        else:
            parts = [suffix[:n_name], context, suffix[n_name:]]
        tokens, slots = [SOS], [-1]
        for part in parts:
            is_context = part is context or (position == "middle" and part in (parts[0], parts[2]))
            tokens += [343] * len(part) if is_context else part
            slots += part if is_context else [-1] * len(part)
        pad = context_length - len(tokens) - 1
        assert pad >= 0
        all_ids.append(tokens + [EOT] + [0] * pad)
        all_slots.append(slots + [-1] * (pad + 1))
    return torch.tensor(all_ids), torch.tensor(all_slots)


def text_tokens(model, ids, slots=None, prompts=None):
    """Every token [C, length, D] after ln_final and the projection; `prompts` [L, S, W]."""
    def place(x, k):
        if prompts is None or k >= len(prompts):
            return x
        return torch.where((slots >= 0)[..., None], prompts[k][slots.clamp(min=0)], x)

    x = place(model.token_embedding(ids), 0) + model.positional_embedding
    for k, block in enumerate(model.transformer.resblocks):
        x = block(place(x, k) if k else x, attn_mask=model.attn_mask)
    return model.ln_final(x) @ model.text_projection


def text_features(model, ids, slots=None, prompts=None):
    """Unit vectors [C, D], read at the end token."""
    x = text_tokens(model, ids, slots, prompts)[torch.arange(len(ids)), ids.argmax(dim=1)]
    return x / x.norm(dim=1, keepdim=True)


def image_tokens(visual, images, prompts=None):
    """All tokens [N, tokens, D] after ln_post and proj, and the inputs of the blocks; `prompts` [L, n, W]."""
    x = visual.conv1(images).flatten(2).permute(0, 2, 1)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    if prompts is not None:
        x = torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1)
    x = visual.ln_pre(x)
    inputs = []
    for k, block in enumerate(visual.transformer.resblocks):
        if prompts is not None and 0 < k < len(prompts):
            x = torch.cat([x[:, : -prompts.shape[1]], prompts[k].expand(len(x), -1, -1)], dim=1)
        inputs.append(x)
        x = block(x)
    return visual.ln_post(x) @ visual.proj, inputs


def image_features(visual, images, prompts=None):
    """Unit vectors [N, D], read at the CLS token."""
    x = image_tokens(visual, images, prompts)[0][:, 0]
    return x / x.norm(dim=1, keepdim=True)
