"""Methods that tune their prompts on the test image: what TPT, PromptAlign and PromptSync share.

An episode: views of one image -> the confident ones -> a few optimiser steps on a private copy of the prompts
-> a prediction -> the copy is thrown away. Episodes are independent, so B of them run at once.
"""

import warnings
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..views.crops import content_seed, make_views
from .base import Method
from .inputs import check_images, images_to_tensor
from .losses import marginal_entropy, select_confident, take_views


@dataclass
class Adapted:
    """What tuning B episodes gave."""

    params: dict[str, Tensor]                                  # name -> tuned learner parameters [B, ...]
    history: dict[str, Tensor] = field(default_factory=dict)   # loss name -> [steps, B]
    selected: Tensor | None = None                             # confident views [B, k], lowest entropy first
    original: Tensor | None = None                             # view 0 as `logits` takes it: [B, 1, ...]


class TestTimeMethod(Method):
    """A method that tunes its prompts on each test image (TPT, arXiv:2209.07511, sec. 3).

    The config of a subclass has n_views, selection, steps, lr, weight_decay, crop_scale, augmix, seed and
    episodes."""

    __test__ = False                                 # the name begins with Test, but it is none of pytest's
    prompt_settings = ("n_ctx", "depth", "init", "coupled")        # the others are of the tuning
    prompts_images: ClassVar[bool] = True            # False: the text alone has prompts, images are constants

    def __init__(self, clip, class_names, config=None, **settings):
        super().__init__(clip, class_names, config, **settings)
        self._initial = self.copy_prompts()

    def inputs(self, views):
        """What `logits` takes: the views [B,V,3,S,S], or features [B,V,D] if the image side is frozen."""
        return views

    def start(self, x):
        """Fresh leaves [B, ...] to tune, one set per episode; x as `inputs` gave it."""
        self.check_device()
        return self.learner.episodes(len(x))

    def first_logits(self, x, params):
        """Logits [B,V,C] of all views before tuning, without gradient; here all episodes start alike."""
        parts = x.flatten(0, 1).split(self.image_batch)                                # [B*V, ...]
        return torch.cat([self.own_logits(part) for part in parts]).unflatten(0, x.shape[:2])

    def objective(self, chosen, params):
        """Losses of the selected views [B,k,...] under `params`: dict of [B]; "loss" is what is minimised."""
        return {"loss": marginal_entropy(self.logits(chosen, params))}

    @torch.no_grad()
    def adapt(self, views):
        """Tune one private copy of the prompts per image on its views [B,V,3,S,S], view 0 the image itself.

        The views are selected first, without gradient, and only the selected ones are run with it: the same
        gradient, less work. AdamW is elementwise, so one optimiser over leaves [B, ...] is B optimisers."""
        x = self.inputs(views)
        params = self.start(x)
        selected = select_confident(self.first_logits(x, params), self.config.selection)       # [B, k]
        history = self.tune(params, take_views(x, selected))
        return Adapted({k: v.detach() for k, v in params.items()}, history, selected, x[:, :1])

    @torch.enable_grad()
    def tune(self, params, chosen):
        """`steps` of AdamW on the leaves `params`, in place; chosen [B,k,...] -> loss name -> [steps, B]."""
        c, history = self.config, []
        scale = 1000.0 if self.clip.precision == "fp16" else 1.0               # the codes' GradScaler(1000)
        optimizer = torch.optim.AdamW(list(params.values()), lr=c.lr, weight_decay=c.weight_decay)
        for _ in range(c.steps):
            losses = self.objective(chosen, params)
            optimizer.zero_grad()
            (scale * losses["loss"].sum()).backward()
            for p in params.values():
                p.grad /= scale
            careful_step(optimizer, params)
            history.append({k: v.detach() for k, v in losses.items()})
        return {k: torch.stack([h[k] for h in history]) for k in history[0]} if history else {}

    @torch.no_grad()
    def predict_views(self, views):
        """views [B,V,3,S,S], view 0 the image itself -> logits [B,C] of view 0 after tuning on all views."""
        if torch.is_inference_mode_enabled():
            raise RuntimeError(f"{self.name} tunes prompts while it predicts and needs gradients: call it "
                               "outside torch.inference_mode(); torch.no_grad() does no harm")
        size = self.clip.image_size
        if views.ndim != 5 or views.shape[2:] != (3, size, size):
            raise ValueError(f"{self.name}: views have shape {tuple(views.shape)}; expected "
                             f"[B, V, 3, {size}, {size}], one row of views per image")
        adapted = self.adapt(views.to(self.clip.device))
        self.untuned = self.first_logits(adapted.original, self.start(adapted.original))[:, 0]
        return self.logits(adapted.original, adapted.params)[:, 0]

    @torch.no_grad()
    def predict(self, images):
        """Logits [B, C]; images as in `Method.predict`. `self.untuned` [B, C] are those before tuning.

        The views of an image are drawn from its content and `config.seed` alone, so neither the order of the
        images nor the batch they came in changes a prediction."""
        self.check_device()
        self._warn_if_untrained()
        tensor = isinstance(images, Tensor)
        items = list(images_to_tensor(self.clip, images)) if tensor else check_images(images)

        def run(part):
            return self.predict_views(torch.stack([self.make_views(i) for i in part])), self.untuned

        parts = self.in_batches(run, items, self.config.episodes or self.default_episodes())
        logits, self.untuned = (torch.cat(rows) for rows in zip(*parts, strict=True))
        return logits

    def _warn_if_untrained(self):
        """Once: tuning prompts that nobody trained gives numbers near chance."""
        if self.accepts and self._initial is not None and self.prompts_are(self._initial):
            warnings.warn(f"{self.name} tunes prompts that were never trained; load those of "
                          f"{' or '.join(self.accepts)} first: method.load()", stacklevel=3)
        self._initial = None

    def make_views(self, image):
        """Model input [V,3,S,S] for one PIL image or tensor [3,S,S]; view 0 is the image itself."""
        c = self.config
        return make_views(image, c.n_views, self.clip, augmix=c.augmix, crop_scale=c.crop_scale,
                          seed=content_seed(image, c.seed))

    def default_episodes(self):
        """How many images to run at once: `episodes_in_memory` with the views that get a gradient."""
        chosen = max(1, int(self.config.n_views * self.config.selection))
        return self.episodes_in_memory(chosen if self.prompts_images else 0)


def careful_step(optimizer, params):
    """`optimizer.step()` for leaves [B, ...]; an image with a gradient that is not finite (float16 overflows)
    keeps its prompts, as the codes' GradScaler skips its step (METHODS 6)."""
    finite = torch.stack([p.grad.flatten(1).isfinite().all(1) for p in params.values()]).all(0)         # [B]
    before = None if finite.all() else {k: p.detach().clone() for k, p in params.items()}
    optimizer.step()
    if before is not None:
        with torch.no_grad():
            for k, p in params.items():
                p[~finite] = before[k][~finite]
