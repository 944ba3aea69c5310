"""CLIP with prompts in it: the one place that walks the blocks of the two encoders.

`Clip` wraps a frozen open_clip model. `encode_text` and `encode_image` take prompts for any number of layers and
an optional leading episode axis B (one set of prompts per test image), and every method goes through them.

Shapes: B episodes, V views, C classes, N packed text tokens, L layers with prompts, W width, H heads, D joint space.
Sources: CLIP (arXiv:2103.00020), CoOp (arXiv:2109.01134), MaPLe (arXiv:2210.03117); conventions in METHODS 1, 2, 5.4.
"""

import hashlib
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from minipsync.text import PackedText, tokenizer
from minipsync.weights import load_model, new_model, save_mini

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
__all__ = ["Clip", "load_clip", "new_model", "save_mini"]


class Clip(nn.Module):
    """A frozen open_clip model whose encoders take prompts. Gradients reach the prompts, never the weights.

    `precision`: "fp32", or "bf16" / "fp16" for autocast inside the encoders; weights and results stay float32.
    Raises ValueError for a model whose towers are not CLIP's (named in the message).
    """

    def __init__(self, model: nn.Module, *, precision: str = "fp32", mean=None, std=None, name: str = "clip"):
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        self.model, self.name, self.precision = model.float().eval().requires_grad_(False), name, precision
        _check_towers(model, name)
        self.tokenizer = tokenizer()
        size = model.visual.image_size
        self.image_size: int = size if isinstance(size, int) else size[0]
        self.mean, self.std = tuple(mean or OPENAI_DATASET_MEAN), tuple(std or OPENAI_DATASET_STD)
        text, blocks = self.text_tower, getattr(getattr(model.visual, "transformer", None), "resblocks", ())
        self.context_length: int = text.positional_embedding.shape[0]
        self.text_width: int = text.positional_embedding.shape[1]
        self.text_layers: int = len(text.transformer.resblocks)
        self.vision_layers: int = len(blocks)  # 0 for a ResNet
        self.vision_width: int = model.visual.conv1.out_channels if blocks else 0
        self.embed_dim: int = text.text_projection.shape[1]
        self._fingerprint: tuple = ()

    @property
    def text_tower(self) -> nn.Module:
        return getattr(self.model, "text", self.model)

    @property
    def device(self) -> torch.device:
        return self.model.logit_scale.device

    @property
    def logit_scale(self) -> Tensor:
        """exp(logit_scale), 0-dim float32: logits = logit_scale * cosine."""
        return self.model.logit_scale.float().exp().reshape(())

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name these weights: the same on every device and at every precision."""
        state = self.model.state_dict()
        version = tuple(t._version for t in state.values())
        if self._fingerprint[1:] != version:
            digest = hashlib.sha256()
            for name in sorted(state):
                digest.update(name.encode())
                digest.update(state[name].float().cpu().contiguous().numpy())
            self._fingerprint = (digest.hexdigest()[:16], *version)
        return self._fingerprint[0]

    def train(self, mode: bool = True) -> "Clip":
        return super().train(False)  # frozen: batch statistics and dropout stay off whatever the parent does

    # ---- images in ----
    def preprocess(self, images: Image.Image | list[Image.Image]) -> Tensor:
        """PIL image(s) -> [B, 3, S, S] on the model's device: shorter side to S (bicubic), centre crop, normalised."""
        images = [images] if isinstance(images, Image.Image) else list(images)
        s = self.image_size
        steps = transforms.Compose([
            transforms.Resize(s, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(s), transforms.ToTensor()])
        return self.normalize(torch.stack([steps(image.convert("RGB")) for image in images]).to(self.device))

    def normalize(self, x: Tensor) -> Tensor:
        """[..., 3, H, W] in [0, 1] -> model input."""
        return (x - x.new_tensor(self.mean)[:, None, None]) / x.new_tensor(self.std)[:, None, None]

    def denormalize(self, x: Tensor) -> Tensor:
        """Model input [..., 3, H, W] -> [0, 1]."""
        return x * x.new_tensor(self.std)[:, None, None] + x.new_tensor(self.mean)[:, None, None]

    # ---- text ----
    def encode_text(self, packed: PackedText, prompts: Tensor | None = None, trace: tuple = (), *,
                    normalize: bool = True) -> Tensor | tuple[Tensor, dict]:
        """Features of C texts: float32 [C, D], or [B, C, D] with an episode axis; L2-normalised unless told not to.

        `prompts` [L, S, W] or [B, L, S, W] fill the packing's S slots: layer 0 before the position embedding is
        added, layer k = 1..L-1 anew before block k, without position embedding (MaPLe, arXiv:2210.03117, eq. 4-6).
        `trace=("tokens",)` returns (features, dict): "tokens" [B?, C, T, D] = every token between SOS and EOT through
        ln_final and text_projection, not normalised, 0 at pads; "mask" [C, T].
        Raises ValueError for prompts that fit neither the packing nor the model, and for an unknown trace.
        """
        if unknown := set(trace) - {"tokens"}:
            raise ValueError(f"trace has {sorted(map(str, unknown))}, expected 'tokens' at most")
        packed = packed.to(self.device)
        if packed.length > self.context_length:
            raise ValueError(f"the packing has texts of {packed.length} tokens, {self.name} takes {self.context_length}:"
                             f" pack with context_length={self.context_length}")
        if (prompts is None) != (packed.n_slots == 0):
            raise ValueError(f"the packing has {packed.n_slots} slots but prompts are "
                             f"{'missing' if prompts is None else 'given'}: pass the learner's own packing and prompts")
        if prompts is not None:
            _check_prompts(prompts, packed.n_slots, self.text_width, self.text_layers, "text")
        episodic = prompts is not None and prompts.ndim == 4
        deep = prompts if episodic or prompts is None else prompts[None]  # (B, L, S, W)
        with self._autocast():
            eot, tokens = _walk_text(self.text_tower, packed, deep, "tokens" in trace)
        eot = eot[:, packed.row] if len(packed.eot) < packed.n_classes else eot  # (B, C, D)
        features = _finish(eot if episodic else eot[0], normalize)
        if not trace:
            return features
        index, mask = packed.inner_tokens()
        tokens = tokens.float()[:, index].where(mask[..., None], 0.0)  # (B, C, T, D)
        return features, {"tokens": tokens if episodic else tokens[0], "mask": mask}

    # ---- images ----
    def encode_image(self, images: Tensor, prompts: Tensor | None = None, trace: tuple = (), *,
                     normalize: bool = True) -> Tensor | tuple[Tensor, dict]:
        """Features of images: float32 [N, D] or [B, V, D], L2-normalised unless told not to.

        `images` (normalised model input) [N, 3, S, S] with `prompts` [L, n, W] or None; or [B, V, 3, S, S] with
        [B, L, n, W] (each episode's own), [L, n, W] or None. Layer 0 is appended behind the patches after the
        position embedding and before ln_pre; layer k = 1..L-1 replaces the last n tokens before block k (METHODS 5.4).
        `trace` returns (features, dict). Number k: the input of block k with its prompts in place [..., tokens, W];
        "tokens": patch and prompt tokens of the last block through ln_post and proj [..., tokens - 1, D], with
        "cls" [..., D], the same of the CLS token (the unnormalised feature); "cls" alone is possible.
        Raises ValueError for shapes that do not fit, an unknown trace, and prompts or trace on a ResNet.
        """
        if images.ndim not in (4, 5) or images.shape[-1] != self.image_size or images.shape[-3] != 3:
            raise ValueError(f"images are {tuple(images.shape)}, expected [N, 3, {self.image_size}, {self.image_size}] or "
                             "[B, V, 3, ...]: clip.preprocess makes them from PIL images")
        if unknown := [t for t in trace if t not in ("tokens", "cls", *range(self.vision_layers))]:
            raise ValueError(f"trace has {unknown}, expected 'tokens', 'cls' or a block number 0 to {self.vision_layers - 1}"
                             + (f" ({self.name} is a ResNet without blocks)" if not self.vision_layers else ""))
        lead = images.shape[:-3]
        flat = images.to(self.device).flatten(0, -4)  # (N, 3, S, S)
        if not self.vision_layers:
            if prompts is not None:
                raise ValueError(f"{self.name} has a ResNet image encoder, which takes no prompts: use a ViT, "
                                 "or a method that prompts the text alone")
            with self._autocast():
                cls, kept = self.model.visual(flat), {}
        else:
            if prompts is not None:
                prompts = self._vision_prompts(prompts, lead)
            with self._autocast():
                cls, kept = _walk_vision(self.model.visual, flat, prompts, trace)
        features = _finish(cls, normalize).reshape(*lead, -1)
        if not trace:
            return features
        return features, {k: t.float().reshape(*lead, *t.shape[1:]) for k, t in kept.items()}

    def _vision_prompts(self, prompts: Tensor, lead: tuple) -> Tensor:
        """Prompts [L, n, W] or [B, L, n, W] -> one per image, [N, L, n, W]."""
        _check_prompts(prompts, None, self.vision_width, self.vision_layers, "vision")
        if prompts.ndim == 4:
            if len(lead) != 2 or len(prompts) not in (1, lead[0]):
                raise ValueError(f"prompts {tuple(prompts.shape)} have an episode axis, so images must be [B, V, 3, S, S] "
                                 f"with the same B, got a leading {tuple(lead)}")
            prompts = prompts[:, None]
        return prompts.expand(*lead, *prompts.shape[-3:]).reshape(-1, *prompts.shape[-3:])

    def _autocast(self):
        dtype = PRECISIONS[self.precision]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)


# ---- the walk through the blocks ----
def _walk_text(tower: nn.Module, packed: PackedText, prompts: Tensor | None, all_tokens: bool):
    """Projected EOT features [B, U, D], and those of every packed token [B, N, D] if asked for. `prompts` [B, L, S, W]."""
    x = tower.token_embedding(packed.ids)[None]  # (1, N, W)
    if prompts is not None:
        x = _fill(x.expand(len(prompts), -1, -1), packed, prompts[:, 0])
    x = x + tower.positional_embedding[packed.positions]  # (B, N, W)
    u, s = packed.pad.shape
    at = torch.arange(packed.n_prefix + s, device=x.device)
    causal = at <= at[packed.n_prefix:, None]  # (S, P+S): a suffix token sees the prefix and what is before it
    blocks = tower.transformer.resblocks
    for k, block in enumerate(blocks):
        if prompts is not None and 0 < k < prompts.shape[1]:
            x = _fill(x, packed, prompts[:, k])
        q, key, value = _qkv(block, x)
        if k + 1 == len(blocks) and not all_tokens:  # only EOT is read: its query alone, masked to its own length
            out = _attend_suffix(q[:, packed.eot, None], key, value, packed,
                                 (at <= packed.positions[packed.eot, None])[:, None])
            x = _residual(block, x[:, packed.eot], out.flatten(1, 2))
        else:
            p = packed.n_prefix
            prefix = _attention(q[:, :p], key[:, :p], value[:, :p], causal=True)  # (B, P, W)
            suffix = _attend_suffix(q[:, packed.pad], key, value, packed, causal)  # (B, U, S, W)
            out = torch.cat([prefix, suffix.flatten(1, 2)[:, packed.unpad]], dim=1)
            x = _residual(block, x, out)
    x = tower.ln_final(x) @ tower.text_projection
    return (x[:, packed.eot], x) if all_tokens else (x, None)


def _fill(x: Tensor, packed: PackedText, prompts: Tensor) -> Tensor:
    """x [B, N, W] with the slot tokens replaced by prompts [B, S, W]."""
    return x.index_copy(1, packed.slot_at, prompts[:, packed.slot_of].to(x.dtype))


def _attend_suffix(q: Tensor, k: Tensor, v: Tensor, packed: PackedText, mask: Tensor) -> Tensor:
    """Queries [B, U, S', H, w] of U suffixes on the shared prefix and their own suffix -> [B, U, S', W]."""
    b, u, s = q.shape[:3]

    def keys(t: Tensor) -> Tensor:  # (B, N, H, w) -> (B*U, P+S, H, w)
        prefix = t[:, None, : packed.n_prefix].expand(-1, u, -1, -1, -1)
        return torch.cat([prefix, t[:, packed.pad]], dim=2).flatten(0, 1)

    if mask.ndim == 3:
        mask = mask.repeat(b, 1, 1)[:, None]  # (B*U, 1, S', P+S)
    return _attention(q.flatten(0, 1), keys(k), keys(v), mask).reshape(b, u, s, -1)


def _walk_vision(visual: nn.Module, images: Tensor, prompts: Tensor | None, trace: tuple):
    """Projected CLS features [N, D] and the traced tensors. `prompts` [N, L, n, W]."""
    x = visual.conv1(images).flatten(2).transpose(1, 2)  # (N, patches, W)
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = x + visual.positional_embedding.to(x.dtype)
    if prompts is not None:
        x = torch.cat([x, prompts[:, 0].to(x.dtype)], dim=1)
    x = visual.ln_pre(x)  # (N, T, W)
    kept: dict = {}
    blocks = visual.transformer.resblocks
    for k, block in enumerate(blocks):
        if prompts is not None and 0 < k < prompts.shape[1]:
            x = torch.cat([x[:, : -prompts.shape[2]], prompts[:, k].to(x.dtype)], dim=1)
        if k in trace:
            kept[k] = x
        q, key, value = _qkv(block, x)
        if k + 1 == len(blocks) and "tokens" not in trace:  # only CLS is read
            q, x = q[:, :1], x[:, :1]
        x = _residual(block, x, _attention(q, key, value))
    x = visual.ln_post(x) @ visual.proj  # (N, T or 1, D)
    if "tokens" in trace:
        kept["tokens"] = x[:, 1:]
    if "tokens" in trace or "cls" in trace:
        kept["cls"] = x[:, 0]
    return x[:, 0], kept


def _qkv(block: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values [B, N, H, w] of tokens x [B, N, W]."""
    attn = block.attn
    x = F.linear(block.ln_1(x), attn.in_proj_weight, attn.in_proj_bias)
    return x.unflatten(-1, (3, attn.num_heads, -1)).unbind(-3)


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(w)) v for [B, tokens, H, w] -> [B, tokens, W]; `mask` is True where a key may be seen."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, H, tokens, w)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal).transpose(1, 2).flatten(2)


def _residual(block: nn.Module, x: Tensor, attended: Tensor) -> Tensor:
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _finish(x: Tensor, normalize: bool) -> Tensor:
    return F.normalize(x.float(), dim=-1) if normalize else x.float()


# ---- checks ----
def _check_prompts(prompts: Tensor, slots: int | None, width: int, layers: int, what: str) -> None:
    ok = prompts.ndim in (3, 4) and prompts.shape[-1] == width and 1 <= prompts.shape[-3] <= layers
    if not ok or (slots is not None and prompts.shape[-2] != slots):
        raise ValueError(f"{what} prompts are {tuple(prompts.shape)}, expected [layers, tokens, width] with 1 to {layers} "
                         f"layers, {slots or 'n'} tokens and width {width}, or the same with a leading episode axis")


def _check_towers(model: nn.Module, name: str) -> None:
    """Only towers that `_walk_text` and `_walk_vision` compute to the letter are let in."""
    visual, text = model.visual, getattr(model, "text", model)
    pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
    causal = getattr(text, "attn_mask", None) is not None and getattr(text, "cls_emb", None) is None
    if not causal or pool != "argmax" or text.token_embedding.num_embeddings != 49408:
        raise ValueError(f"{name} has a text encoder that is not CLIP's (causal, CLIP's tokens, read at EOT): "
                         "use a CLIP model such as 'ViT-B-16'")
    if hasattr(visual, "transformer"):
        plain = getattr(visual, "attn_pool", None) is None and getattr(visual, "pool_type", "tok") == "tok"
    else:
        plain = hasattr(visual, "attnpool")  # ModifiedResNet: walked by itself, without prompts
    blocks = [*text.transformer.resblocks, *getattr(getattr(visual, "transformer", None), "resblocks", ())]
    if not plain or not all(isinstance(block.attn, nn.MultiheadAttention) for block in blocks):
        raise ValueError(f"{name} has an image encoder ({type(visual).__name__}) with pooling or attention that is not "
                         "CLIP's: use a plain ViT such as 'ViT-B-16'")


def load_clip(name: str = "mini", *, weights: str | Path | None = None, state_dict: dict | None = None,
              precision: str = "fp32", device: str | torch.device | None = None,
              quick_gelu: bool | None = None) -> Clip:
    """A frozen `Clip`.

    name="mini": the CLIP in this package, or another file that `save_mini` wrote, at `weights`.
    name="ViT-B-16" or another architecture of open_clip: OpenAI's weights from the hub's cache (fetched once where
      there is a connection), or `weights` = a file, or one of open_clip's tags such as "laion2b_s34b_b88k".
    state_dict: tensors in OpenAI's (= open_clip's) layout, any float type, computed in float32. Sizes are read off
      the shapes (heads of 64 channels), or come from the architecture if `name` is one.
    `quick_gelu`: activation x * sigmoid(1.702 x). By default what open_clip's tag says; yes for files and dicts.
    `device`: by default a GPU if there is one.
    Raises ValueError for unknown names and tensors that do not fit, FileNotFoundError and RuntimeError for weights
    that are not there, with what to do.
    """
    model, mean, std = load_model(name, weights, state_dict, quick_gelu)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Clip(model, precision=precision, mean=mean, std=std, name=name).to(device)
