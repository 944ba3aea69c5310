"""PromptSync (Khandelwal 2024, arXiv:2404.07520): pull a test image to class prototypes, keep those apart.

No code was published and the text leaves 30 points open: METHODS 5.9.2 has the equations, 5.9.4 our choices,
each a field of `PromptSyncConfig`. With prompts theta_0 and a test image x, each of n steps is

    meta-train   g_D    = grad L_D(theta_0),   theta' = theta_0 - alpha g_D            on source samples
    meta-test    F      = views of x with the lowest entropy under theta', p_bar = their mean prediction
                 g_test = grad [ L_ent + lambda_A L_A ](theta')                        on the views F
    average      g      = (lambda_D g_D + g_test) / 2

and then theta_0 gets one optimiser update with the mean of g, classifies x and is put back. L_D, L_A, L_ent:
`losses.discrimination`, `.prototype_alignment`, `.marginal_entropy`.

theta_0 is the same for every image, so with one fixed source batch g_D is a constant: that is PromptSync*
(`refresh="once"`). PromptSync draws the source batch anew for each image, from a seed that its content gives.
"""

from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..source.prototypes import image_prototypes, source_samples
from ..views.crops import content_seed, make_views
from .base import register
from .episodes import Adapted, careful_step
from .losses import discrimination, marginal_entropy, prototype_alignment, select_confident, take_views
from .maple import MaPLe
from .promptsync_config import PromptSyncConfig, PromptSyncStarConfig
from .promptsync_source import PrototypeMethod

OPTIMIZERS = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def gradients(loss, theta, precision, create_graph=False):
    """Gradients by name of the episodes' losses [B] for their theta [B, ...]; 0 where one plays no part."""
    scale = 1000.0 if precision == "fp16" else 1.0                         # as TestTimeMethod.tune
    found = torch.autograd.grad(scale * loss.sum(), list(theta.values()), create_graph=create_graph,
                                allow_unused=True, materialize_grads=True)
    return {k: g / scale for k, g in zip(theta, found, strict=True)}


def leaves(theta):
    return {k: p.detach().requires_grad_() for k, p in theta.items()}


@register
class PromptSync(PrototypeMethod):
    """Tune MaPLe prompts on a test image by entropy, prototype alignment and prototype discrimination. Needs
    MaPLe's prompts and the source's prototypes and images: `load()`, or `prepare(source_set)`."""

    name, Config, recipe = "promptsync", PromptSyncConfig, MaPLe.recipe

    def make_views(self, image):
        c = self.config
        return make_views(image, 1 + c.n_views, self.clip, c.view_config, seed=content_seed(image, c.seed))

    def start(self, x):
        theta = super().start(x)
        return theta if self.config.tune == "all" else {k: p for k, p in theta.items() if "proj" not in k}

    def adapt(self, views):
        """Tune B private copies of theta_0 on views [B, 1 + V, 3, S, S], as written above. -> Adapted."""
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
            optimizer = OPTIMIZERS[c.optimizer](theta_0.values(), lr=c.lr, weight_decay=c.weight_decay)
            careful_step(optimizer, theta_0)
        stacked = {k: torch.stack([h[k] for h in history]) for k in history[0]} if history else {}
        return Adapted({k: p.detach() for k, p in theta_0.items()}, stacked, selected, views[:, :1])

    # ---- meta-train: L_D on source samples ----
    def meta_train(self, theta, views, step):
        """g_D by name [B, ...] at theta and {"discrimination": L_D [B]}; zeros and {} where L_D is off."""
        c, n = self.config, len(views)
        if not c.discrimination:
            return {k: torch.zeros_like(p) for k, p in theta.items()}, {}
        if c.refresh == "image":
            return self.source_gradient(theta, [content_seed(v[0], c.seed) + step for v in views])
        if self._constant is None:                     # `use` forgets it, `check_source` guards the prompts
            self._constant = self.source_gradient(self.start(views[:1]), [c.seed])
        return tuple({k: v.expand(n, *v.shape[1:]) for k, v in each.items()} for each in self._constant)

    def source_gradient(self, theta, seeds):
        """`meta_train` with one source batch per seed, of `classes_per_step` classes."""
        c = self.config
        batch = self.source.draw(seeds, c.classes_per_step, c.source_views)
        samples, prototypes, weights = source_samples(self.clip, self.learner, self.learner(theta),
                                                      self.prototypes, batch, c.parts)
        scale = 1 / c.tau if c.tau else self.clip.logit_scale
        loss = discrimination(samples, prototypes, weights, scale)                             # [B]
        g_d = gradients(loss, theta, self.clip.precision, create_graph=c.second_order)
        return g_d, {"discrimination": loss.detach()}

    # ---- meta-test: L_ent + lambda_A L_A on the confident views ----
    def meta_test(self, theta, views):
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
            if c.prototype_of == "image":
                _, h = image_prototypes(self.clip, views[:, :1], prompts.vision)
            losses["alignment"] = self.alignment(features, h, text, *source)
            loss = loss + c.lambda_a * losses["alignment"]
        return losses | {"loss": loss}, selected

    def alignment(self, features, h, text, source, h_text):
        """L_A [B]; features [B, k, D] and prototypes h of the views, the rest as `class_texts` gives it."""
        c = self.config
        known = source if c.outside == "source" else text
        p_bar = (self.clip.logit_scale * features @ known.mT).softmax(-1).mean(1)              # [B, S or C]
        if c.outside == "nearest":
            nearest = (text @ source.mT).argmax(-1)                                            # [B, C]
            p_bar = torch.zeros_like(source[..., 0]).scatter_add(1, nearest, p_bar)            # [B, S]
        if c.weights == "top1":
            p_bar = p_bar * (p_bar == p_bar.amax(-1, keepdim=True))
        samples = {part: x.mean(1, keepdim=True) for part, x in h.items()} | {"text": h_text}
        frozen = {part: getattr(self.prototypes, part) for part in c.parts}
        return prototype_alignment({part: samples[part] for part in c.parts}, frozen,
                                   p_bar if c.weights_gradient else p_bar.detach())


@register
class PromptSyncStar(PromptSync):
    """PromptSync*: g_D from one fixed source batch, computed once and used for every image."""

    name, Config = "promptsync_star", PromptSyncStarConfig
