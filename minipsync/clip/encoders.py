"""CLIP with prompts in it: the one place that walks the blocks of the two encoders.

`Clip` wraps a frozen open_clip model. `encode_text` and `encode_image` take prompts for any number of layers
and an optional leading episode axis (one set of prompts per test image); every method goes through them.

Shapes: B episodes, V views, C classes, N packed text tokens, L layers with prompts, W width, H heads of width
w, D joint space. Sources: CLIP (arXiv:2103.00020), CoOp (arXiv:2109.01134), MaPLe (arXiv:2210.03117).
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

from ..data.pixels import to_rgb
from .text import PackedText, tokenizer
from .weights import check_device, check_finite, check_towers, load_model, new_model, save_mini

__all__ = ["Clip", "load_clip", "new_model", "save_mini"]
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Clip(nn.Module):
    """A frozen open_clip model whose encoders take prompts. Gradients reach the prompts, never the weights.

    `model` is frozen, set to float32 and to evaluation in place.
    `precision`: "fp32", or "bf16" / "fp16" for autocast in the encoders; weights and results stay float32.
    `mean`, `std`: normalisation of the images, CLIP's own by default.
    Raises ValueError for an unknown precision, weights that are not finite and towers that are not CLIP's.
    """

    def __init__(self, model: nn.Module, *, precision: str = "fp32", mean=None, std=None, name: str = "clip",
                 weights: str = ""):
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        check_towers(model, name)
        check_finite(model, name)
        self.model, self.name, self.precision = model.float().eval().requires_grad_(False), name, precision
        self.weights = weights  # where they are from: "openai", another tag of open_clip, a file's name
        self.tokenizer = tokenizer()
        self.mean, self.std = tuple(mean or OPENAI_DATASET_MEAN), tuple(std or OPENAI_DATASET_STD)
        size = model.visual.image_size
        self.image_size: int = size if isinstance(size, int) else size[0]
        text, blocks = self.text_tower, getattr(getattr(model.visual, "transformer", None), "resblocks", ())
        self.context_length: int = text.positional_embedding.shape[0]
        self.text_width: int = text.positional_embedding.shape[1]
        self.text_layers: int = len(text.transformer.resblocks)
        self.vision_layers: int = len(blocks)  # 0 for a ResNet, which takes no prompts
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

    def _apply(self, fn, recurse=True):
        if fn(torch.zeros((), device=self.device)).dtype != torch.float32:
            raise TypeError(f"the weights of {self.name} stay float32; .half() or .to(torch.bfloat16) would "
                            "round them for good: for half precision say load_clip(…, precision='fp16')")
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> "Clip":
        return super().train(False)  # frozen, also a ResNet's batch statistics, whatever the parent does

    # ---- images in ----
    def preprocess(self, images: Image.Image | list[Image.Image]) -> Tensor:
        """PIL image(s) -> model input [B, 3, S, S]: shorter side to S (bicubic), centre crop, normalised.

        Raises TypeError for anything else, and for an empty list.
        """
        images = [images] if isinstance(images, Image.Image) else list(images)
        if not images or not all(isinstance(image, Image.Image) for image in images):
            raise TypeError("expected a PIL image or a list of them, got "
                            f"{[type(i).__name__ for i in images[:3]]}: "
                            "clip.normalize makes model input from a float tensor in [0, 1]")
        steps = transforms.Compose([
            transforms.Resize(self.image_size, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(self.image_size), transforms.ToTensor()])
        x = torch.stack([steps(_middle(to_rgb(image))) for image in images])
        return self.normalize(x.to(self.device))

    def normalize(self, x: Tensor) -> Tensor:
        """[..., 3, H, W] in [0, 1] -> model input."""
        return (x - x.new_tensor(self.mean)[:, None, None]) / x.new_tensor(self.std)[:, None, None]

    def denormalize(self, x: Tensor) -> Tensor:
        """Model input [..., 3, H, W] -> [0, 1]."""
        return x * x.new_tensor(self.std)[:, None, None] + x.new_tensor(self.mean)[:, None, None]

    # ---- text ----
    def encode_text(self, packed: PackedText, prompts: Tensor | None = None, trace: tuple = (), *,
                    normalize: bool = True) -> Tensor | tuple[Tensor, dict]:
        """Features of C texts, float32 [C, D], or [B, C, D] with episodes; of length 1 unless told not to.

        `prompts` [L, S, W] or [B, L, S, W] fill the packing's S slots: layer 0 before the position embedding
        is added, layer k = 1..L-1 anew before block k, without position embedding (MaPLe; METHODS 5.4).
        `trace=("tokens",)` gives (features, dict). "tokens" [C, T, D] or [B, C, T, D]: what the last block
        gives for every token between SOS and EOT, through ln_final and text_projection, not normalised, 0 at
        pads; "mask" [C, T] is False at pads.
        Raises ValueError for prompts that fit neither the packing nor the model, and for an unknown trace.
        """
        if unknown := [t for t in trace if t != "tokens"]:
            raise ValueError(f"trace has {unknown}, expected ('tokens',) or ()")
        if packed.length > self.context_length:
            raise ValueError(f"the packing has texts of {packed.length} tokens, {self.name} takes "
                             f"{self.context_length}: pack with context_length={self.context_length}")
        if (prompts is None) != (packed.n_slots == 0):
            raise ValueError(f"the packing has {packed.n_slots} slots and prompts are "
                             f"{'missing' if prompts is None else 'given'}: a learner's packing goes with "
                             "its own prompts")
        if prompts is not None:
            _check_prompts(prompts, packed.n_slots, self.text_width, self.text_layers, "text")
        packed = packed.to(self.device)
        episodic = prompts is not None and prompts.ndim == 4
        deep = prompts if episodic or prompts is None else prompts[None]  # (B, L, S, W)
        with self._autocast():
            eot, tokens = _walk_text(self.text_tower, packed, deep, "tokens" in trace)
        features = _finish(eot.index_select(1, packed.row), normalize)  # (B, C, D)
        features = features if episodic else features[0]
        if not trace:
            return features
        index, mask = packed.inner_tokens()
        tokens = _take(tokens.float(), index).where(mask[..., None], 0.0)  # (B, C, T, D)
        return features, {"tokens": tokens if episodic else tokens[0], "mask": mask}

    # ---- images ----
    def encode_image(self, images: Tensor, prompts: Tensor | None = None, trace: tuple = (), *,
                     normalize: bool = True) -> Tensor | tuple[Tensor, dict]:
        """Features of images, float32 [N, D] or [B, V, D]; of length 1 unless told not to.

        `images`: model input [N, 3, S, S] with `prompts` [L, n, W] or None; or [B, V, 3, S, S] with None,
        [L, n, W] or, every episode its own, [B, L, n, W]. Layer 0 goes behind the patches, after the position
        embedding and before ln_pre; layer k = 1..L-1 replaces the last n tokens before block k (MaPLe;
        METHODS 5.4). `trace` gives (features, dict). A number k: the input of block k with its prompts in
        place, [..., tokens, W]. "tokens": patch and prompt tokens of the last block through ln_post and proj,
        [..., tokens - 1, D], and with it "cls" [..., D], the same of the CLS token; "cls" alone is possible.
        Raises ValueError for shapes that do not fit, an unknown trace, and prompts or trace with a ResNet.
        """
        size = (3, self.image_size, self.image_size)
        if images.ndim not in (4, 5) or images.shape[-3:] != size or not images.is_floating_point():
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}, expected floats, N or (B, V) "
                             f"times {size}: clip.preprocess makes them from PIL images")
        if not self.vision_layers and (prompts is not None or trace):
            raise ValueError(f"{self.name} has a ResNet image encoder, which takes no prompts and no trace: "
                             "use a ViT such as 'ViT-B-16', or a method that prompts the text alone")
        if unknown := [t for t in trace if t not in ("tokens", "cls", *range(self.vision_layers))]:
            raise ValueError(f"trace has {unknown}, expected 'tokens', 'cls' or a block, 0 to "
                             f"{self.vision_layers - 1}")
        lead = images.shape[:-3]
        images = images.to(self.device, torch.float32).flatten(0, -4)  # (N, 3, S, S)
        if prompts is not None:
            prompts = self._prompts_per_image(prompts, lead)
        with self._autocast():
            if self.vision_layers:
                cls, kept = _walk_vision(self.model.visual, images, prompts, trace)
            else:
                cls, kept = self.model.visual(images), {}
        features = _finish(cls, normalize).reshape(*lead, -1)
        if not trace:
            return features
        return features, {k: t.float().reshape(*lead, *t.shape[1:]) for k, t in kept.items()}

    def _prompts_per_image(self, prompts: Tensor, lead: tuple) -> Tensor:
        """Prompts [L, n, W] or [B, L, n, W] -> [N, L, n, W], one per image of `lead` = (N,) or (B, V)."""
        _check_prompts(prompts, None, self.vision_width, self.vision_layers, "vision")
        if prompts.ndim == 4:
            if len(lead) != 2 or len(prompts) != lead[0]:
                raise ValueError(f"vision prompts {tuple(prompts.shape)} are for {len(prompts)} episodes, so "
                                 f"images must be [{len(prompts)}, V, 3, S, S], got a leading {tuple(lead)}")
            prompts = prompts[:, None]
        return prompts.expand(*lead, *prompts.shape[-3:]).reshape(-1, *prompts.shape[-3:])

    def _autocast(self):
        dtype = PRECISIONS[self.precision]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)


def load_clip(name: str = "mini", *, weights: str | Path | None = None, state_dict: dict | None = None,
              precision: str = "fp32", device: str | torch.device | None = None,
              quick_gelu: bool | None = None, image_size: int | None = None) -> Clip:
    """A frozen `Clip`.

    name="mini": the CLIP in this package, or another file that `save_mini` wrote, at `weights`.
    name="ViT-B-16" or another architecture of open_clip: OpenAI's weights from the hub's cache (fetched once
      where there is a connection), or `weights` = a file, or one of open_clip's tags, "laion2b_s34b_b88k".
    weights, as a file: OpenAI's archive, a state dict of open_clip or of OpenAI's layout, whatever prefix its
      names have and whatever dict it lies in, or transformers' CLIPModel; also an index of several files, or
      a folder. With name="mini" the sizes come from the shapes. A pickle runs nothing (tensors.py).
    state_dict: tensors in these layouts, any float type, computed in float32. Sizes come from the shapes
      (heads of 64 channels), or from the architecture if `name` is one.
    `quick_gelu`: activation x * sigmoid(1.702 x). By default what is known of the weights: from open_clip's
      tag, if the path of the file has it in its name, or from a config beside the file. Where nothing is
      known it is yes, as for OpenAI's, with a warning for a file; a mini file knows its own.
    `image_size`: pixels, where it is not the architecture's: positions are interpolated (bicubic).
    `device`: by default a GPU if there is one.
    Raises ValueError for unknown names and devices, tensors that do not fit or are not finite and files that
    cannot be read, FileNotFoundError and RuntimeError for weights that are not there, with what to do.
    """
    device = check_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model, mean, std, origin = load_model(name, weights, state_dict, quick_gelu, image_size)
    name = name.replace("/", "-") if state_dict is None or name != "mini" else "custom"
    return Clip(model, precision=precision, mean=mean, std=std, name=name, weights=origin).to(device)


def _middle(image: Image.Image, longest: int = 100) -> Image.Image:
    """Of a strip over 100 times as long as wide the middle: the centre crop drops the ends anyway, and to
    enlarge them first can take gigabytes."""
    limit = longest * min(image.size)
    if max(image.size) <= limit:
        return image
    sides = [min(side, limit) for side in image.size]
    left, top = ((side - kept) // 2 for side, kept in zip(image.size, sides, strict=True))
    return image.crop((left, top, left + sides[0], top + sides[1]))


# ---- the walk through the blocks ----
def _walk_text(tower: nn.Module, packed: PackedText, prompts: Tensor | None, all_tokens: bool):
    """Projected EOT features [B, U, D]; with `all_tokens` also those of all packed tokens, [B, N, D].

    `prompts` [B, L, S, W]. The prefix attends to itself, a suffix to the prefix and to itself: exact, because
    the mask is causal, also with deep prompts, which act on the suffixes by the prefix's keys and values.
    """
    x = tower.token_embedding(packed.ids)[None]  # (1, N, W)
    if prompts is not None:
        x = _fill(x.expand(len(prompts), -1, -1), packed, prompts[:, 0])
    x = x + tower.positional_embedding[packed.positions]  # (B, N, W)
    p, blocks = packed.n_prefix, tower.transformer.resblocks
    key_at = torch.arange(packed.length, device=x.device)
    for k, block in enumerate(blocks):
        if prompts is not None and 0 < k < prompts.shape[1]:
            x = _fill(x, packed, prompts[:, k])
        q, key, value = _qkv(block, x)  # (B, N, H, w) each
        if k + 1 == len(blocks) and not all_tokens:  # only EOT is read: ask for it alone
            x = x.index_select(1, packed.eot)
            mask = key_at <= packed.positions[packed.eot, None, None]  # (U, 1, P+S)
            out = _attend_suffix(packed.eot[:, None], q, key, value, packed, mask).flatten(1, 2)
        else:
            prefix = _attention(q[:, :p], key[:, :p], value[:, :p], causal=True)  # (B, P, W)
            mask = key_at <= key_at[p:, None]  # (S, P+S)
            suffix = _attend_suffix(packed.pad, q, key, value, packed, mask)  # (B, U, S, W)
            out = torch.cat([prefix, suffix.flatten(1, 2).index_select(1, packed.unpad)], dim=1)
        x = _residual(block, x, out)
    x = tower.ln_final(x) @ tower.text_projection
    return (x.index_select(1, packed.eot), x) if all_tokens else (x, None)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x[:, index] for an index of any shape (index_select has the faster gradient)."""
    return x.index_select(1, index.flatten()).unflatten(1, index.shape)


def _fill(x: Tensor, packed: PackedText, prompts: Tensor) -> Tensor:
    """x [B, N, W] with the slot tokens replaced by prompts [B, S, W]."""
    return x.index_copy(1, packed.slot_at, _take(prompts, packed.slot_of).to(x.dtype))


def _attend_suffix(at: Tensor, q: Tensor, k: Tensor, v: Tensor, packed: PackedText, mask: Tensor) -> Tensor:
    """Attention of the packed tokens `at` [U, S'] to the prefix and their own suffix -> [B, U, S', W].

    `mask` [S', P+S], or [U, S', P+S] to end each suffix at its EOT (else only pads look behind it).
    """
    b, u = len(q), len(packed.pad)

    def with_prefix(t: Tensor) -> Tensor:  # (B, N, H, w) -> (B*U, P+S, H, w)
        prefix = t[:, None, : packed.n_prefix].expand(-1, u, -1, -1, -1)
        return torch.cat([prefix, _take(t, packed.pad)], dim=2).flatten(0, 1)

    if mask.ndim == 3:
        mask = mask.repeat(b, 1, 1)[:, None]  # (B*U, 1, S', P+S)
    out = _attention(_take(q, at).flatten(0, 1), with_prefix(k), with_prefix(v), mask)
    return out.unflatten(0, (b, u))


def _walk_vision(visual: nn.Module, images: Tensor, prompts: Tensor | None, trace: tuple):
    """Projected CLS features [N, D] and the traced tensors. `prompts` [N, L, n, W]."""
    x = visual.conv1(images).flatten(2).transpose(1, 2)  # (N, patches, W)
    x = torch.cat([visual.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = x + visual.positional_embedding.to(x.dtype)
    if prompts is not None:
        x = torch.cat([x, prompts[:, 0].to(x.dtype)], dim=1)
    x = visual.ln_pre(x)  # (N, tokens, W)
    kept: dict = {}
    blocks = visual.transformer.resblocks
    for k, block in enumerate(blocks):
        if prompts is not None and 0 < k < prompts.shape[1]:
            x = torch.cat([x[:, : -prompts.shape[2]], prompts[:, k].to(x.dtype)], dim=1)
        if k in trace:
            kept[k] = x
        q, key, value = _qkv(block, x)
        if k + 1 == len(blocks) and "tokens" not in trace:  # only CLS is read: ask for it alone
            q, x = q[:, :1], x[:, :1]
        x = _residual(block, x, _attention(q, key, value))
    x = visual.ln_post(x) @ visual.proj  # (N, tokens or 1, D)
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
    """softmax(q k^T / sqrt(w)) v, [B, tokens, H, w] -> [B, tokens, W]; `mask` is True for keys to be seen."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))  # (B, H, tokens, w)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal).transpose(1, 2).flatten(2)


def _residual(block: nn.Module, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a block, after the attention: both residual branches."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def _finish(x: Tensor, normalize: bool) -> Tensor:
    return F.normalize(x.float(), dim=-1) if normalize else x.float()


def _check_prompts(prompts: Tensor, slots: int | None, width: int, layers: int, what: str) -> None:
    fits = prompts.ndim in (3, 4) and prompts.shape[-1] == width and 1 <= prompts.shape[-3] <= layers
    if not fits or (slots is not None and prompts.shape[-2] != slots):
        raise ValueError(f"{what} prompts are {tuple(prompts.shape)}, expected [1 to {layers} layers, "
                         f"{slots or 'n'} tokens, width {width}], or this behind an episode axis")
