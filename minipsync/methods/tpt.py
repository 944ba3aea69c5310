"""TPT (Shu et al. 2022, arXiv:2209.07511): tune the context on the test image itself, without a label.

Of the n views of image x keep the share `selection` whose predictions have the lowest entropy (eq. 4). Their
mean prediction should be confident: minimise its entropy over the context v by one AdamW step (eq. 3),

    v* = argmin_v H( 1/|F| sum_{a in F} p(. | a; v) ),      predict x with v*, then forget v*.

That is one episode (`TestTimeMethod`): views -> select -> step -> predict -> forget. Episodes are
independent, so B of them run at once. MaPLe + TPT, PromptAlign and PromptSync run the same episode with other
prompts and other losses.
"""

import math
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from .base import Params
from .cocoop import ConditionalPrompt
from .coop import ContextConfig, ContextPrompt, context_length
from .inputs import check_views
from .learner import Learner
from .numerics import bounded, careful_step, full_precision, gradients
from .prediction import Prediction
from .registry import register
from .test_time import Adapted, TestTimeBase, TestTimeConfig, stack_history


# ---- entropy ----
def view_entropy(logits: Tensor) -> Tensor:
    """Entropy of each view's prediction, in nats: logits [..., C] -> [...]."""
    log_p = bounded(full_precision(logits).log_softmax(-1))
    return -(log_p.exp() * log_p).sum(-1)


def select_confident(logits: Tensor, fraction: float) -> Tensor:
    """Find the `int(V * fraction)` views (at least one) of lowest entropy, the most confident first (eq. 4).

    logits [..., V, C] -> positions, int64 [..., k]. Ties keep the order of the views.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction!r}: expected a share of the views in (0, 1]; 0.1 keeps 6 of 64")
    k = max(1, int(logits.shape[-2] * fraction + 1e-9))    # 1e-9: 0.29 * 100 is 28.999… in binary
    return view_entropy(logits.detach()).argsort(dim=-1, stable=True)[..., :k]


def take_views(x: Tensor, index: Tensor) -> Tensor:
    """Keep the chosen views of each episode: x [B, V, ...], index [B, k] -> [B, k, ...]."""
    return x[torch.arange(len(x), device=x.device)[:, None], index]


def mean_log_probability(logits: Tensor) -> Tensor:
    """Log of the mean prediction over the views, computed in log space: logits [..., V, C] -> [..., C].

    logits - logsumexp(logits), as in TPT's code, and not the more exact log_softmax: near zero entropy the
    gradient is rounding error, Adam turns its sign into a full step, and the official numbers contain that.
    """
    logits = full_precision(logits)
    log_p = bounded(logits - logits.logsumexp(-1, keepdim=True))
    return log_p.logsumexp(-2) - math.log(logits.shape[-2])


def marginal_entropy(logits: Tensor) -> Tensor:
    """H(p_bar), the entropy of the views' mean prediction (eq. 3): logits [B, V, C] -> [B], in nats."""
    log_p = mean_log_probability(logits)
    return -(log_p.exp() * log_p).sum(-1)


# ---- the episode ----
class TestTimeMethod(TestTimeBase):
    """A method that tunes its prompts on each test image (sec. 3)."""

    def objective(self, chosen: Tensor, params: Params) -> dict[str, Tensor]:
        """Losses [B] of the selected views [B, k, ...] by name; "loss" is what is minimised."""
        return {"loss": marginal_entropy(self.logits(chosen, params))}

    @torch.no_grad()
    def adapt(self, views: Tensor) -> Adapted:
        """Tune a private copy of the prompts per image, on its views [B, V, 3, S, S]; view 0 is the image.

        The views are selected first, without gradient, and only the selected ones are run with it: the same
        gradient, less work.
        """
        x = self.inputs(views)
        params = self.start(x)
        selected = select_confident(self.first_logits(x, params), self.config.selection)       # [B, k]
        history = self.tune(params, take_views(x, selected))
        return Adapted({k: v.detach() for k, v in params.items()}, history, selected, x[:, :1])

    @torch.enable_grad()
    def tune(self, params: Params, chosen: Tensor) -> dict[str, Tensor]:
        """Take `steps` steps of AdamW on the leaves `params`, in place; the losses by name, [steps, B]."""
        history, optimizer = [], self.optimizer(params)
        for _ in range(self.config.steps):
            losses = self.objective(chosen, params)
            for name, gradient in gradients(losses["loss"], params, self.clip.precision).items():
                params[name].grad = gradient
            careful_step(optimizer, params)
            history.append({k: v.detach() for k, v in losses.items()})
        return stack_history(history)

    @torch.no_grad()
    def predict_views(self, views: Tensor) -> Prediction:
        """Classify view 0 after tuning on all views [B, V, 3, S, S] of B images; the tuned prompts go."""
        check_views(self, views)
        adapted = self.adapt(views.to(self.clip.device))
        x = adapted.original
        untuned = self.first_logits(x, self.start(x))[:, 0]
        return Prediction(self.logits(x, adapted.params)[:, 0], untuned)


# ---- TPT ----
class TPTConfig(TestTimeConfig, ContextConfig, title="tpt"):
    """tpt_classification.py and its scripts."""

    start: Literal["words", "coop", "cocoop"] = "words"
    """what the context starts from; with "coop" and "cocoop" load() their prompts"""
    init: str | None = "a photo of a"
    """words that the context starts from, the same for every data set; None: random numbers, N(0, 0.02^2)"""
    n_ctx: PositiveInt = context_length(4)
    """number M of context vectors, as the loaded prompts; None: the number of tokens in init, else 4"""
    lr: PositiveFloat = 5e-3
    """rate of AdamW (sec. 4)"""
    augmix: bool = False
    """AugMix in the views; on for fine-grained sets, off for ImageNet and its variants"""
    seed: int = 0
    """seed of a random start of the context and, without view_seed, of the views; the code's default"""


@register
class TPT(TestTimeMethod):
    """Test-time prompt tuning of the text context. Tuned: `ctx` [B, M, W].

    The image encoder does not depend on the context, so the views' features are computed once and only the
    text is differentiated. The context starts from words, from CoOp's context, or from the one that CoCoOp
    gives for the image.
    """

    name, Config = "tpt", TPTConfig
    prompts_images = False

    @property
    def accepts(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.config.start == "words" else (self.config.start,)

    def load(self, path: Any = "auto", **choice: Any) -> Self:
        if self.config.start == "words":
            raise TypeError("tpt starts from words; build it with start='coop' or 'cocoop' to load prompts")
        return super().load(path, **choice)

    def make_learner(self) -> Learner:
        kind = ConditionalPrompt if self.config.start == "cocoop" else ContextPrompt
        return kind(self.clip, self.config.n_ctx, self.config.init, seed=self.config.seed)

    def inputs(self, views: Tensor) -> Tensor:
        """Features [B, V, D] of the views, before normalisation."""
        flat = views.flatten(0, 1).split(self.image_batch)
        features = torch.cat([self.clip.encode_image(x, normalize=False) for x in flat])
        return features.unflatten(0, views.shape[:2])

    def start(self, x: Tensor) -> Params:
        if self.config.start != "cocoop":
            return super().start(x)
        self.check_device()
        # As the official code: the net gets the image's raw feature although it was trained on unit ones.
        return {"ctx": self.learner(x[:, 0]).text[:, 0].detach().requires_grad_()}     # [B, M, W]

    def logits(self, images: Tensor, params: Params | None = None) -> Tensor:
        """Logits [B, V, C] of the images' features [B, V, D], under the contexts params["ctx"] [B, M, W]."""
        ctx = self.start(images)["ctx"] if params is None else params["ctx"]
        text = self.clip.encode_text(self.packed, ctx[:, None])                        # [B, C, D]
        return self.clip.logit_scale * F.normalize(images, dim=-1) @ text.mT

    def first_logits(self, x: Tensor, params: Params) -> Tensor:
        if self.config.start == "cocoop":                                      # every image has its own start
            return self.logits(x, params)
        return self.clip.logit_scale * F.normalize(x, dim=-1) @ self.text_features().mT
