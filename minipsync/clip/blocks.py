"""The walk through the blocks of CLIP's two encoders, with learnable prompts on the way.

`walk_text` and `walk_vision` compute what the towers of an open_clip model compute, and replace tokens by
prompts at the layers that have some. `Clip` (encoders.py) checks what goes in and calls them.

Shapes: B episodes, N packed text tokens or images, U different texts, P tokens that all texts share, S tokens
of the longest suffix, L layers with prompts, n prompts a layer, W width, H heads of width w, D width of the
joint space of both encoders. Sources: CLIP (arXiv:2103.00020); MaPLe (arXiv:2210.03117) for prompts in deeper
layers.
"""

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer
from torch import Tensor, nn

from .text import PackedText


def check_towers(model: CLIP, name: str) -> None:
    """Raise ValueError unless the walks below compute exactly what the model does.

    That holds for CLIP's text transformer with a plain ViT; a ResNet (open_clip's) computes its own features.
    `name` is what the message calls the model."""
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


# ---- text ----
def walk_text(tower: CLIP | TextTransformer, packed: PackedText, prompts: Tensor | None,
              all_tokens: bool) -> tuple[Tensor, Tensor | None]:
    """Return the projected features of the end tokens [B, U, D], and with `all_tokens` of all [B, N, D].

    `prompts` are [B, L, slots, W], or None with B = 1. The shared prefix attends to itself, each suffix to
    the prefix and to itself. This is exact, because no token sees what stands behind it: prompts in a suffix
    cannot change the prefix."""
    x = tower.token_embedding(packed.ids)[None]  # [1, N, W]
    if prompts is not None:
        x = _fill_slots(x.expand(len(prompts), -1, -1), packed, prompts[:, 0])
    x = x + tower.positional_embedding[packed.positions]  # [B, N, W]
    p, blocks = packed.n_prefix, tower.transformer.resblocks
    key_at = torch.arange(packed.length, device=x.device)
    for k, block in enumerate(blocks):
        if prompts is not None and 0 < k < prompts.shape[1]:
            x = _fill_slots(x, packed, prompts[:, k])
        q, key, value = _queries_keys_values(block, x)  # [B, N, H, w] each
        if k + 1 == len(blocks) and not all_tokens:  # only the end tokens are read: compute no others
            x = x.index_select(1, packed.eot)
            mask = key_at <= packed.positions[packed.eot, None, None]  # [U, 1, P + S]
            out = _attend_suffix(packed.eot[:, None], q, key, value, packed, mask).flatten(1, 2)
        else:
            prefix = _attention(q[:, :p], key[:, :p], value[:, :p], causal=True)  # [B, P, W]
            mask = key_at <= key_at[p:, None]  # [S, P + S]
            suffix = _attend_suffix(packed.pad, q, key, value, packed, mask)  # [B, U, S, W]
            out = torch.cat([prefix, suffix.flatten(1, 2).index_select(1, packed.unpad)], dim=1)
        x = _finish_block(block, x, out)
    x = tower.ln_final(x) @ tower.text_projection
    return (x.index_select(1, packed.eot), x) if all_tokens else (x, None)


def take_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Return x[:, index] for an index of any shape; index_select has a faster gradient than indexing."""
    return x.index_select(1, index.flatten()).unflatten(1, index.shape)


def _fill_slots(x: Tensor, packed: PackedText, prompts: Tensor) -> Tensor:
    """Return the tokens x [B, N, W] with those that are slots replaced by prompts [B, slots, W]."""
    return x.index_copy(1, packed.slot_at, take_tokens(prompts, packed.slot_of).to(x.dtype))


def _attend_suffix(at: Tensor, q: Tensor, k: Tensor, v: Tensor, packed: PackedText, mask: Tensor) -> Tensor:
    """Let the packed tokens `at` [U, S'] attend to the prefix and to their own suffix -> [B, U, S', W].

    q, k, v are [B, N, H, w]. `mask` is [S', P + S], or [U, S', P + S] if every suffix ends elsewhere."""
    b, u = len(q), len(packed.pad)

    def with_prefix(t: Tensor) -> Tensor:  # [B, N, H, w] -> [B * U, P + S, H, w]
        prefix = t[:, None, : packed.n_prefix].expand(-1, u, -1, -1, -1)
        return torch.cat([prefix, take_tokens(t, packed.pad)], dim=2).flatten(0, 1)

    if mask.ndim == 3:
        mask = mask.repeat(b, 1, 1)[:, None]  # [B * U, 1, S', P + S]
    out = _attention(take_tokens(q, at).flatten(0, 1), with_prefix(k), with_prefix(v), mask)
    return out.unflatten(0, (b, u))


# ---- images ----
def walk_vision(visual: VisionTransformer, images: Tensor, prompts: Tensor | None,
                trace: tuple[str | int, ...]) -> tuple[Tensor, dict]:
    """Return the projected features of the CLS tokens [N, D] and the tensors that `trace` asks for.

    `images` are [N, 3, height, width], `prompts` [N, L, n, W] or None; `trace` as in `Clip.encode_image`."""
    x = visual.conv1(images).flatten(2).transpose(1, 2)  # [N, patches, W]
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = x + visual.positional_embedding.to(x.dtype)
    if prompts is not None:
        x = torch.cat([x, prompts[:, 0].to(x.dtype)], dim=1)
    x = visual.ln_pre(x)  # [N, tokens, W]
    kept: dict[str | int, Tensor] = {}
    blocks = visual.transformer.resblocks
    for k, block in enumerate(blocks):
        if prompts is not None and 0 < k < prompts.shape[1]:
            x = torch.cat([x[:, : -prompts.shape[2]], prompts[:, k].to(x.dtype)], dim=1)
        if k in trace:
            kept[k] = x
        q, key, value = _queries_keys_values(block, x)
        if k + 1 == len(blocks) and "tokens" not in trace:  # only CLS is read: compute no others
            q, x = q[:, :1], x[:, :1]
        x = _finish_block(block, x, _attention(q, key, value))
    x = visual.ln_post(x) @ visual.proj  # [N, tokens or 1, D]
    if "tokens" in trace:
        kept["tokens"] = x[:, 1:]
    if "tokens" in trace or "cls" in trace:
        kept["cls"] = x[:, 0]
    return x[:, 0], kept


# ---- one block ----
def _queries_keys_values(block: ResidualAttentionBlock, x: Tensor) -> tuple[Tensor, ...]:
    """Return queries, keys and values, each [B, N, H, w], of the tokens x [B, N, W]."""
    attn = block.attn
    x = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
    return x.unflatten(-1, (3, attn.num_heads, -1)).unbind(-3)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(w)) v, [B, tokens, H, w] -> [B, tokens, W]. `mask` is True for keys to look at."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # [B, H, tokens, w]
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal).transpose(1, 2).flatten(2)


def _finish_block(block: ResidualAttentionBlock, x: Tensor, attended: Tensor) -> Tensor:
    """Return a block's output from its input x and its attention's result: both residual branches."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))
