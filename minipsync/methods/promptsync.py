"""PromptSync (Khandelwal 2024, arXiv:2404.07520): pull a test image to class prototypes, keep those apart.

No code was published, and the paper's full text could not be read: this follows its abstract and what others
wrote of it. docs/METHODS.md has what was read (5.9.0), the equations (5.9.2), and 31 open points with our
choices (5.9.4), fields of `PromptSyncConfig`. With prompts theta_0 and a test image x, each of n steps is

    meta-train   g_D    = grad L_D(theta_0),   theta' = theta_0 - alpha g_D            on source samples
    meta-test    F      = views of x with the lowest entropy under theta', p_bar = their mean prediction
                 g_test = grad [ L_ent + lambda_A L_A ](theta')                        on the views F
    average      g      = (lambda_D g_D + g_test) / 2

and then theta_0 gets one optimiser update with the mean of g, classifies x and is put back. L_D is
`discrimination`, L_A `prototype_alignment`, L_ent TPT's `marginal_entropy`. theta_0 is the same for every
image, so with one fixed source batch g_D is a constant, as in PromptSync*; PromptSync draws one per image.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..source.prototypes import image_prototypes
from ..views.crops import content_seed
from .base import Params
from .maple import MaPLe
from .numerics import careful_step, full_precision, gradients
from .promptsync_config import PromptSyncConfig, PromptSyncStarConfig
from .promptsync_source import PrototypeMethod, source_samples
from .registry import register
from .test_time import Adapted, stack_history
from .tpt import marginal_entropy, select_confident, take_views

OPTIMIZERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def discrimination(samples: Mapping[str, Tensor], prototypes: Mapping[str, Tensor],
                   weights: Mapping[str, Tensor] | None = None, scale: Tensor | float = 100.0) -> Tensor:
    """Prototype discrimination L_D = -(1/K) sum_k log(L_pos(k) / L_neg(k)) -> [B].

    For every part (text, vision, cls), K classes, and A(k) augmented samples of class k:
      samples    [B, K, A, D]   h_a, not necessarily of unit length (s is the cosine)
      prototypes [B, K, D]      p_k
      weights    [B, K, A]      w_a, summing to 1 over A; 0 pads a class with fewer samples. Default 1 / A.
    L_pos(k) = sum_parts sum_{a in A(k)} w_a exp(s(h_a, p_k) / tau)
    L_neg(k) = sum_parts sum_{j != k} [ exp(s(p_k, p_j) / tau) + sum_{a in A(k)} w_a exp(s(h_a, p_j) / tau)
                                        + sum_{b in A(j)} w_b exp(s(p_k, h_b) / tau) ]
    `scale` = 1 / tau. One K x K matrix per part, M[k, j] = log sum_{a in A(k)} w_a exp(s(h_a, p_j) / tau),
    holds all terms with samples: its diagonal is L_pos, its rows and its columns are the last two terms of
    L_neg. Everything stays in log space: exp(100) does not fit float32. ValueError for K < 2: no negatives.
    """
    positive, negative = [], []
    for part, h in samples.items():
        h, p = full_precision(h), F.normalize(full_precision(prototypes[part]), dim=-1)
        n_classes, n_samples = h.shape[1], h.shape[2]
        if n_classes < 2:
            raise ValueError("discrimination over 1 class: expected at least 2, raise classes_per_step")
        w = h.new_full(h.shape[:3], 1 / n_samples) if weights is None else weights[part].to(h)
        cosine = torch.einsum("bkad,bjd->bkja", F.normalize(h, dim=-1), p)
        mass = (scale * cosine + w.log()[:, :, None, :]).logsumexp(-1)                          # M [B, K, K]
        between = scale * p @ p.mT                                                              # [B, K, K]
        other = torch.stack([between, mass, mass.mT])                                           # [3, B, K, K]
        same = torch.eye(n_classes, dtype=torch.bool, device=h.device)
        positive.append(mass.diagonal(dim1=-2, dim2=-1))                                        # [B, K]
        negative.append(other.masked_fill(same, -torch.inf).logsumexp(dim=(0, 3)))              # [B, K]
    log_pos, log_neg = torch.stack(positive).logsumexp(0), torch.stack(negative).logsumexp(0)
    return -(log_pos - log_neg).mean(-1)


def prototype_alignment(samples: Mapping[str, Tensor], prototypes: Mapping[str, Tensor],
                        weights: Tensor) -> Tensor:
    """Prototype alignment L_A = sum_c p_bar[c] sum_parts (L_amp + L_ang) -> [B].

    samples: part -> [B, 1, D] (one prototype of the test image for all classes) or [B, C, D] (one per class:
    the text part); prototypes: part -> [C, D]; weights: p_bar [B, C].
    L_amp = log(1 + |h - p_c|^2), L_ang = -log((1 + cos(h, p_c)) / 2); both are 0 where h = p_c.
    """
    distance = torch.zeros_like(weights)
    for part, h in samples.items():
        h, p = full_precision(h), full_precision(prototypes[part])
        amplitude = torch.log1p((h - p).square().sum(-1))                                       # [B, C]
        cosine = F.cosine_similarity(h, p.expand(len(h), *p.shape), dim=-1)                     # [B, C]
        distance = distance + amplitude - torch.log(((1 + cosine) / 2).clamp(min=1e-6))
    return (weights * distance).sum(-1)


def leaves(theta: Params) -> Params:
    """The same values as new leaves that require a gradient."""
    return {k: p.detach().requires_grad_() for k, p in theta.items()}


@register
class PromptSync(PrototypeMethod):
    """Tune MaPLe prompts on a test image by entropy, prototype alignment and prototype discrimination.

    Needs MaPLe's prompts, and the source's prototypes and images for them.
    """

    name, Config, recipe = "promptsync", PromptSyncConfig, MaPLe.recipe

    def adapt(self, views: Tensor) -> Adapted:
        """Tune B private copies of theta_0 on views [B, 1 + V, 3, S, S], as written above."""
        self.check_source()
        c, theta, history, selected = self.config, self.start(views), [], None
        theta_0, mean = theta, {k: torch.zeros_like(p) for k, p in theta.items()}
        exact = sdpa_kernel(SDPBackend.MATH) if c.second_order else nullcontext()
        with torch.enable_grad(), exact:
            for step in range(c.steps):
                g_d, l_d = self.meta_train(theta, views, step)
                moved = {k: p - c.alpha * g_d[k] for k, p in theta.items()}                    # theta'
                moved = moved if c.second_order else leaves(moved)
                losses, selected = self.meta_test(moved, views)
                g_test = gradients(losses["loss"], theta if c.second_order else moved, self.clip.precision)
                g = {k: (c.lambda_d * g_d[k].detach() + g_test[k]) / 2 for k in theta}
                mean = {k: mean[k] + g[k] / c.steps for k in theta}
                theta = leaves({k: p - c.alpha * g[k] for k, p in theta.items()}) if c.advance else theta
                history.append({k: v.detach() for k, v in (losses | l_d).items()})
        if history:
            for k, p in theta_0.items():
                p.grad = mean[k]
            careful_step(self.optimizer(theta_0), theta_0)
        tuned = {k: p.detach() for k, p in theta_0.items()}
        return Adapted(tuned, stack_history(history), selected, views[:, :1])

    def optimizer(self, params: Params) -> torch.optim.Optimizer:
        c = self.config
        return OPTIMIZERS[c.optimizer](params.values(), lr=c.lr, weight_decay=c.weight_decay)

    def meta_train(self, theta: Params, views: Tensor, step: int) -> tuple[Params, dict[str, Tensor]]:
        """g_D by name [B, ...] at theta and {"discrimination": L_D [B]}; zeros and {} where L_D is off."""
        c, n = self.config, len(views)
        if not c.discrimination:
            return {k: torch.zeros_like(p) for k, p in theta.items()}, {}
        if c.refresh == "image":
            return self.source_gradient(theta, [content_seed(v[0], c.view_seed) + step for v in views])
        if self._constant is None:                     # a new source forgets it
            self._constant = self.source_gradient(self.start(views[:1]), [c.view_seed])
        g_d, l_d = ({k: v.expand(n, *v.shape[1:]) for k, v in each.items()} for each in self._constant)
        return g_d, l_d

    def source_gradient(self, theta: Params, seeds: Sequence[int]) -> tuple[Params, dict[str, Tensor]]:
        """`meta_train` with one source batch per seed, of `classes_per_step` classes."""
        c = self.config
        assert self.source is not None and self.source.sampler is not None                     # check_source
        batch = self.source.sampler.draw(seeds, c.classes_per_step, c.source_views)
        samples, prototypes, weights = source_samples(self.clip, self.learner, self.learner(theta),
                                                      self.known, batch, c.parts)
        scale = 1 / c.tau if c.tau else self.clip.logit_scale
        loss = discrimination(samples, prototypes, weights, scale)                             # [B]
        g_d = gradients(loss, theta, self.clip.precision, create_graph=c.second_order)
        return g_d, {"discrimination": loss.detach()}

    def meta_test(self, theta: Params, views: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Losses by name, each [B], "loss" their weighted sum, at theta'; and the selected views [B, k]."""
        c, scale, prompts = self.config, self.clip.logit_scale, self.learner(theta)
        text, source = self.class_texts(prompts)                                               # [B, C, D]
        with torch.no_grad():
            parts = views.split(max(1, self.image_batch // len(views)), dim=1)
            features = torch.cat([self.clip.encode_image(x, prompts.vision) for x in parts], 1)
            selected = select_confident(scale * features @ text.mT, c.selection)               # [B, k]
        features, h = image_prototypes(self.clip, take_views(views, selected), prompts.vision)  # [B, k, D]
        losses = {"entropy": marginal_entropy(scale * features @ text.mT)}
        loss = c.entropy * losses["entropy"]
        if c.alignment:
            if c.prototype_of == "image" or c.p_bar_of == "views and image":
                own, h_own = image_prototypes(self.clip, views[:, :1], prompts.vision)          # x itself
                h = h_own if c.prototype_of == "image" else h
            counted = torch.ones_like(selected)                                                 # [B, k]
            if c.p_bar_of == "views and image":            # where x is among F it counts once
                features = torch.cat([features, own], 1)
                counted = torch.cat([counted, (selected != 0).all(1, keepdim=True)], 1)
            losses["alignment"] = self.alignment(features, counted, h, text, *source)
            loss = loss + c.lambda_a * losses["alignment"]
        return losses | {"loss": loss}, selected

    def alignment(self, features: Tensor, counted: Tensor, h: Params, text: Tensor, source: Tensor,
                  h_text: Tensor) -> Tensor:
        """L_A [B]; features [B, k, D], those in p_bar `counted` [B, k], prototypes h, and `class_texts`."""
        c = self.config
        known = source if c.outside == "source" else text
        share = (counted / counted.sum(1, keepdim=True))[..., None]                            # [B, k, 1]
        p_bar = (share * (self.clip.logit_scale * features @ known.mT).softmax(-1)).sum(1)     # [B, S or C]
        if c.outside == "nearest":
            nearest = (text @ source.mT).argmax(-1)                                            # [B, C]
            p_bar = torch.zeros_like(source[..., 0]).scatter_add(1, nearest, p_bar)            # [B, S]
        if c.weights == "top1":
            p_bar = p_bar * (p_bar == p_bar.amax(-1, keepdim=True))
        samples = {part: x.mean(1, keepdim=True) for part, x in h.items()} | {"text": h_text}
        frozen = {part: getattr(self.known, part) for part in c.parts}
        return prototype_alignment({part: samples[part] for part in c.parts}, frozen,
                                   p_bar if c.weights_gradient else p_bar.detach())


@register
class PromptSyncStar(PromptSync):
    """PromptSync*: g_D from one fixed source batch, computed once and used for every image."""

    name, Config = "promptsync_star", PromptSyncStarConfig
