"""CLIP with prompts in it: `Clip` wraps a frozen open_clip model, and every method goes through it.

`encode_text` and `encode_image` take prompts for any number of layers, and for test-time methods an episode
axis in front: a set of prompts for each test image. blocks.py walks through the two encoders.

Shapes: B episodes, V views, C classes, T inner tokens of a text, L layers with prompts, n prompts a layer, S
pixels of an image's side or slots of a text, W width, D width of the joint space of both encoders.
Sources: CLIP (arXiv:2103.00020), CoOp (arXiv:2109.01134), MaPLe (arXiv:2210.03117).
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import overload

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from open_clip.transformer import QuickGELU, TextTransformer
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from ..data.pixels import to_rgb
from .blocks import check_towers, take_tokens, walk_text, walk_vision
from .text import PackedText, tokenizer

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Clip(nn.Module):
    """A frozen CLIP whose encoders take prompts. Gradients reach the prompts, never the weights.

    model:     an open_clip model; it is frozen and set to float32 and evaluation mode in place.
    precision: "fp32", or "bf16" / "fp16" for autocast in the encoders; weights and results stay float32.
    mean, std: normalisation of the three colour channels in [0, 1]; by default OpenAI's.
    name:      the architecture's name, for messages and tables.
    weights:   where the weights are from: "openai", another tag of open_clip, or a file's name.

    Raises ValueError for an unknown precision, for weights that are not finite, and for encoders that are not
    CLIP's.
    """

    def __init__(self, model: CLIP, *, precision: str = "fp32", mean: Sequence[float] | None = None,
                 std: Sequence[float] | None = None, name: str = "clip", weights: str = ""):
        super().__init__()
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
        check_towers(model, name)
        _check_finite(model, name)
        self.model: CLIP = model.float().eval().requires_grad_(False)
        self.name, self.precision, self.weights = name, precision, weights
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
    def text_tower(self) -> CLIP | TextTransformer:
        """The module that holds the text encoder; in most of open_clip's models the model itself."""
        return getattr(self.model, "text", self.model)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and where images and texts are brought."""
        return self.model.logit_scale.device

    @property
    def logit_scale(self) -> Tensor:
        """The factor of the logits, a float32 tensor []: logits = logit_scale * cosine; CLIP's 1 / τ."""
        return self.model.logit_scale.float().exp().reshape(())

    @property
    def fingerprint(self) -> str:
        """16 hex digits that name this CLIP: its weights, activation, heads and normalisation of colours.

        They are the same on every device and at every precision."""
        state = self.model.state_dict()
        version = (self.mean, self.std, *(t._version for t in state.values()))
        if self._fingerprint[1:] != version:
            digest = hashlib.sha256()
            for name in sorted(state):
                digest.update(name.encode())
                digest.update(state[name].float().cpu().contiguous().numpy())
            digest.update(self._beside_weights().encode())
            self._fingerprint = (digest.hexdigest()[:16], *version)
        return self._fingerprint[0]

    def _beside_weights(self) -> str:
        """Return what decides the features and is no weight.

        It is "" for GELU, heads of 64 channels and OpenAI's normalisation, as in the mini CLIP."""
        modules = dict(self.model.named_modules())
        found = [f"{name} {m.head_dim}" for name, m in modules.items()
                 if isinstance(m, nn.MultiheadAttention) and m.head_dim != 64]
        found += ["QuickGELU"] * any(isinstance(m, QuickGELU) for m in modules.values())
        if (self.mean, self.std) != (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD):
            found += [str(self.mean), str(self.std)]
        return " ".join(found)

    def _apply(self, fn: Callable, recurse: bool = True) -> "Clip":
        """Move the weights, as `to` and `cuda` do. Raises TypeError if that would change their type."""
        if fn(torch.zeros((), device=self.device)).dtype != torch.float32:
            raise TypeError(f"the weights of {self.name} stay float32; .half() or .to(torch.bfloat16) would "
                            "round them for good: for half precision say load_clip(…, precision='fp16')")
        return super()._apply(fn, recurse)

    def train(self, mode: bool = True) -> "Clip":
        """Stay in evaluation mode, whatever mode is asked for, so that batch norms do not learn either."""
        return super().train(False)

    # ---- pictures to model input ----
    def preprocess(self, images: Image.Image | list[Image.Image]) -> Tensor:
        """Return PIL images as model input [B, 3, S, S].

        The shorter side is resized to S pixels (bicubic), the centre is cropped, the colours are normalised.
        Raises TypeError for anything else than a PIL image or a list with at least one.
        """
        images = [images] if isinstance(images, Image.Image) else list(images)
        if not images or not all(isinstance(image, Image.Image) for image in images):
            raise TypeError("expected a PIL image or a list of them, got "
                            f"{[type(i).__name__ for i in images[:3]]}: "
                            "clip.normalize makes model input from a float tensor in [0, 1]")
        steps = transforms.Compose([
            transforms.Resize(self.image_size, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(self.image_size), transforms.ToTensor()])
        x = torch.stack([steps(_crop_strip(to_rgb(image))) for image in images])
        return self.normalize(x.to(self.device))

    def normalize(self, x: Tensor) -> Tensor:
        """Return colours [..., 3, H, W] in [0, 1] as model input: minus mean, divided by std."""
        return (x - x.new_tensor(self.mean)[:, None, None]) / x.new_tensor(self.std)[:, None, None]

    def denormalize(self, x: Tensor) -> Tensor:
        """Return model input [..., 3, H, W] as colours in [0, 1], the inverse of `normalize`."""
        return x * x.new_tensor(self.std)[:, None, None] + x.new_tensor(self.mean)[:, None, None]

    # ---- the two encoders ----
    @overload
    def encode_text(self, packed: PackedText, prompts: Tensor | None = None, *,
                    normalize: bool = True) -> Tensor: ...

    @overload
    def encode_text(self, packed: PackedText, prompts: Tensor | None, trace: tuple[str, ...], *,
                    normalize: bool = True) -> tuple[Tensor, dict[str, Tensor]]: ...

    def encode_text(self, packed: PackedText, prompts: Tensor | None = None, trace: tuple = (), *,
                    normalize: bool = True) -> Tensor | tuple[Tensor, dict]:
        """Return the features of C texts, float32 [C, D], or [B, C, D] if the prompts have an episode axis.

        packed:    the texts, from `pack_texts` or `pack_context`.
        prompts:   [L, S, W] or [B, L, S, W] for the S slots of the packing. Those of layer 0 are put in
                   before the position embedding is added; those of layer k = 1 … L-1 replace the tokens of
                   the slots before block k, without a position embedding (MaPLe; METHODS 5.4).
        trace:     ("tokens",) returns (features, dict) with "tokens" [C, T, D] or [B, C, T, D], the output of
                   the last block for every token between start and end of the text, through ln_final and
                   text_projection, not normalised; and "mask" [C, T], False behind the end of a text that is
                   shorter than the longest, where the tokens are 0.
        normalize: give the features length 1.

        Raises ValueError for prompts that do not fit the packing or the model, and for an unknown trace.
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
        deep = prompts if episodic or prompts is None else prompts[None]  # [B, L, S, W]
        with self._autocast():
            eot, tokens = walk_text(self.text_tower, packed, deep, "tokens" in trace)
        features = _as_features(eot.index_select(1, packed.row), normalize)  # [B, C, D]
        features = features if episodic else features[0]
        if tokens is None:
            return features
        index, mask = packed.inner_tokens()
        tokens = take_tokens(tokens.float(), index).where(mask[..., None], 0.0)  # [B, C, T, D]
        return features, {"tokens": tokens if episodic else tokens[0], "mask": mask}

    @overload
    def encode_image(self, images: Tensor, prompts: Tensor | None = None, *,
                     normalize: bool = True) -> Tensor: ...

    @overload
    def encode_image(self, images: Tensor, prompts: Tensor | None, trace: tuple[str | int, ...], *,
                     normalize: bool = True) -> tuple[Tensor, dict]: ...

    def encode_image(self, images: Tensor, prompts: Tensor | None = None, trace: tuple = (), *,
                     normalize: bool = True) -> Tensor | tuple[Tensor, dict]:
        """Return the features of images, float32 [N, D] or [B, V, D].

        images:    model input (`preprocess`), [N, 3, S, S] or [B, V, 3, S, S].
        prompts:   [L, n, W] for all images alike, or [B, L, n, W], for each episode its own. Those of layer 0
                   stand behind the patches, put there after the position embedding is added and before
                   ln_pre; those of layer k = 1 … L-1 replace the last n tokens before block k (MaPLe;
                   METHODS 5.4).
        trace:     returns (features, dict). A number k: the input of block k with its prompts in place,
                   [..., tokens, W]. "cls": the CLS token of the last block, through ln_post and proj, not
                   normalised, [..., D]. "tokens": the same of all patch and prompt tokens, [..., tokens - 1,
                   D], and "cls" with it.
        normalize: give the features length 1.

        Raises ValueError for shapes that do not fit, for an unknown trace, and for prompts or a trace with a
        ResNet.
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
        images = images.to(self.device, torch.float32).flatten(0, -4)  # [N, 3, S, S]
        if prompts is not None:
            prompts = self._prompts_per_image(prompts, lead)
        with self._autocast():
            if self.vision_layers:
                cls, kept = walk_vision(self.model.visual, images, prompts, trace)
            else:
                cls, kept = self.model.visual(images), {}
        features = _as_features(cls, normalize).reshape(*lead, -1)
        if not trace:
            return features
        return features, {k: t.float().reshape(*lead, *t.shape[1:]) for k, t in kept.items()}

    def _prompts_per_image(self, prompts: Tensor, lead: tuple[int, ...]) -> Tensor:
        """Return prompts [L, n, W] or [B, L, n, W] as [N, L, n, W], for images (N,) or (B, V) = `lead`."""
        _check_prompts(prompts, None, self.vision_width, self.vision_layers, "vision")
        if prompts.ndim == 4:
            if len(lead) != 2 or len(prompts) != lead[0]:
                raise ValueError(f"vision prompts {tuple(prompts.shape)} are for {len(prompts)} episodes, so "
                                 f"images must be [{len(prompts)}, V, 3, S, S], got a leading {tuple(lead)}")
            prompts = prompts[:, None]
        return prompts.expand(*lead, *prompts.shape[-3:]).reshape(-1, *prompts.shape[-3:])

    def _autocast(self) -> AbstractContextManager:
        """The context in which the encoders compute at this object's precision."""
        dtype = PRECISIONS[self.precision]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)


def _check_finite(model: CLIP, name: str) -> None:
    """Raise ValueError if a weight is NaN or infinite, since every prediction would be NaN."""
    state = {k: t for k, t in model.state_dict().items() if t.is_floating_point() and not t.is_meta}
    if bad := [k for k, t in state.items() if not t.isfinite().all()]:
        raise ValueError(f"{len(bad)} of {len(state)} tensors of {name} contain NaN or infinity, first "
                         f"{bad[0]}; expected finite weights: fetch them again, or train with a lower rate")


def _check_prompts(prompts: Tensor, slots: int | None, width: int, layers: int, what: str) -> None:
    """Raise ValueError unless prompts are [L, slots, width] or [B, L, slots, width], L at most `layers`."""
    fits = prompts.ndim in (3, 4) and prompts.shape[-1] == width and 1 <= prompts.shape[-3] <= layers
    if not fits or (slots is not None and prompts.shape[-2] != slots):
        raise ValueError(f"{what} prompts are {tuple(prompts.shape)}, expected [1 to {layers} layers, "
                         f"{slots or 'n'} tokens, width {width}], or this behind an episode axis")


def _as_features(x: Tensor, normalize: bool) -> Tensor:
    """Return the encoder's output as float32, of length 1 if `normalize`."""
    return F.normalize(x.float(), dim=-1) if normalize else x.float()


def _crop_strip(image: Image.Image, longest: int = 100) -> Image.Image:
    """Return the middle of an image whose longer side is over `longest` times the shorter one.

    The centre crop would drop the ends anyway, and enlarging them before that can take gigabytes."""
    limit = longest * min(image.size)
    if max(image.size) <= limit:
        return image
    width, height = (min(side, limit) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
