"""What every method shares: class names in, images in, logits out.

`Method` holds a frozen CLIP, a class list, a config and (most of them) a prompt learner.
`TestTimeMethod` adds the episode: views of one image -> confident ones -> a few optimiser steps on a private copy of
the prompts -> a prediction -> the copy is thrown away. Episodes are independent, so B of them run at once.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import training
from ..losses import marginal_entropy, select_confident, take_views
from ..settings import make_settings, replace_settings
from ..views import content_seed, make_views
from . import files
from .inputs import check_class_names, check_images, images_to_tensor, template_as_context

REGISTRY: dict[str, type["Method"]] = {}


def register(cls):
    """Class decorator: make a method known to `build` under `cls.name`."""
    REGISTRY[cls.name] = cls
    return cls


def build(name, clip, class_names, **settings):
    """The method called `name` for these classes; `settings` are the fields of its `Config`."""
    if name not in REGISTRY:
        raise ValueError(f"unknown method {name!r}; the methods are {', '.join(REGISTRY)}")
    return REGISTRY[name](clip, class_names, **settings)


class Method(nn.Module):
    """A classifier over `class_names` made of a frozen CLIP and prompts.

    name:    what `build` calls it.
    Config:  frozen dataclass of settings; unknown or ill-typed ones raise ValueError and list the good ones.
    recipe:  the training settings of the paper, or None where nothing is trained.
    accepts: names of the methods whose saved prompts `load` takes.
    """

    name: ClassVar[str] = ""
    Config: ClassVar[type]
    recipe: ClassVar[training.TrainConfig | None] = None
    accepts: ClassVar[tuple[str, ...]] = ()
    image_batch: ClassVar[int] = 128                     # images per encoder call: bounds memory, not the result

    def __init__(self, clip, class_names, config=None, **settings):
        super().__init__()
        if not hasattr(clip, "encode_image"):
            raise TypeError(f"{self.name}: clip={type(clip).__name__} is not a CLIP; make one with load_clip(...)")
        self.__dict__["clip"] = clip                      # not a submodule: parameters() are the prompts alone
        settings = template_as_context(self.Config, settings, self.name)
        if config is not None and type(config) is not self.Config:
            raise TypeError(f"{self.name}: config is a {type(config).__name__}; expected {self.name}'s Config")
        self.config = (replace_settings(config, settings, self.name) if config is not None
                       else make_settings(self.Config, settings, self.name))
        self.class_names = check_class_names(class_names)
        self.learner = self.make_learner()
        if self.learner is not None:
            self.learner.to(clip.device)
        self.trained_on, self.history = "", []
        self.set_class_names(self.class_names)

    # ---- what a method says for itself --------------------------------------------------------------
    def make_learner(self):
        """The prompt learner (see prompts.py), or None."""
        return None

    def logits(self, images, params=None):
        """Differentiable logits.  images [N,3,S,S] -> [N,C];  [B,V,3,S,S] -> [B,V,C], where `params` (name -> tensor
        [B, ...]) may stand in for the learner's parameters, one set per episode."""
        prompts = self.learner(params)
        text = self.clip.encode_text(self.packed, prompts.text)                        # [B?, C, D]
        image = self.clip.encode_image(images, prompts.vision)                         # [N, D] or [B, V, D]
        return self.clip.logit_scale * image @ text.mT

    def loss(self, images, labels):
        """Mean cross-entropy; images [N,3,S,S], labels [N] -> scalar. What `fit` lowers."""
        return F.cross_entropy(self.logits(images), labels)

    # ---- class names ---------------------------------------------------------------------------------
    def set_class_names(self, names):
        """Classify among other classes with the same prompts (class-specific prompts cannot). Returns self."""
        names = check_class_names(names)
        if getattr(self.learner, "class_specific", False) and len(names) != len(self.class_names):
            raise ValueError(f"{self.name}: class-specific prompts were made for {len(self.class_names)} classes and "
                             f"cannot serve {len(names)}; use class_specific=False")
        self.class_names = names
        if self.learner is not None:
            self.packed = self.learner.packing(names).to(self.clip.device)
        self._cached_text = None
        return self

    # ---- prediction ----------------------------------------------------------------------------------
    @torch.no_grad()
    def text_features(self):
        """Class features [C, D] under the learner's own prompts, L2-normalised; kept until a parameter, the class
        names or the precision change."""
        stamp = [p.detach().clone() for p in self.parameters()]
        old = self._cached_text
        if old is None or old[0] != self.clip.precision or not all(map(torch.equal, stamp, old[1])):
            self._cached_text = (self.clip.precision, stamp, self.encode_classes())
        return self._cached_text[2]

    def encode_classes(self):
        """Class features [C, D] computed afresh."""
        return self.clip.encode_text(self.packed, self.learner().text)

    @torch.no_grad()
    def predict(self, images):
        """Logits [B, C] (cosine times logit_scale), float32.

        images: one PIL image, a list of them, or a float tensor [B, 3, S, S] that is model input already
        (normalised with clip.mean and clip.std; clip.preprocess makes it)."""
        x = images_to_tensor(self.clip, images)
        return torch.cat([self._predict(part) for part in x.split(self.image_batch)])

    def _predict(self, x):                                                             # [N,3,S,S] -> [N,C]
        vision = self.learner().vision if self.learner is not None else None
        return self.clip.logit_scale * self.clip.encode_image(x, vision) @ self.text_features().mT

    # ---- training and files --------------------------------------------------------------------------
    def fit(self, train_set, *, checkpoint=None, progress=True, **settings):
        """Train the prompts on `train_set` with the paper's recipe; `settings` change fields of `TrainConfig`.

        checkpoint: a file to save to every few seconds and to go on from. Returns self; `self.history` has one
        dict per epoch. The classes of `train_set` must be the method's, in the same order."""
        if self.recipe is None:
            raise TypeError(f"{self.name} is not trained; just predict" + (
                f", or load prompts of {' or '.join(self.accepts)}" if self.accepts else ""))
        if list(train_set.class_names) != self.class_names:
            raise ValueError(f"{self.name}: the training set has {len(train_set.class_names)} classes "
                             f"({train_set.class_names[0]}, …) but the method was built for {len(self.class_names)} "
                             f"({self.class_names[0]}, …); build it with train_set.class_names")
        defaults = {"seed": self.config.seed} if hasattr(self.config, "seed") else {}
        config = replace_settings(self.recipe, defaults | settings, f"{self.name}.fit")
        self.history = training.fit(self.parameters(), self.loss, train_set, config, self.clip,
                                    checkpoint=checkpoint, progress=progress, name=self.name)
        self.trained_on = getattr(train_set, "name", "")
        return self

    def save(self, path):
        """Write the prompts to a safetensors file that says what they belong to. Returns the path."""
        return files.save(self, path)

    def load(self, path="auto", **choice):
        """Read prompts. path: a file that `save` wrote, or "auto" for those shipped for this backbone; `choice`
        (trained_on="imagenet", seed=1) narrows "auto" down. Another backbone, method or shape raises. Returns self."""
        files.load(self, path, **choice)
        return self


@dataclass
class Adapted:
    """What tuning B episodes gave."""

    params: dict[str, Tensor]                             # name -> tuned learner parameters [B, ...]
    history: dict[str, Tensor] = field(default_factory=dict)   # loss name -> [steps, B]
    selected: Tensor | None = None                        # indices of the confident views [B, k], ascending entropy
    original: Tensor | None = None                        # view 0 as `logits` takes it: [B, 1, ...]


class TestTimeMethod(Method):
    """A method that tunes its prompts on each test image (TPT, sec. 3). The config of a subclass has
    n_views, selection, steps, lr, weight_decay, augmix, seed and episodes."""

    __test__ = False                                      # the name begins with Test; not one of pytest's

    def inputs(self, views):
        """What of the views [B,V,3,S,S] `logits` consumes; a frozen image side gives features [B,V,D] instead."""
        return views

    def objective(self, chosen, params):
        """Losses of the selected views [B,k,...] under per-episode `params`: dict of [B]; "loss" is minimised."""
        return {"loss": marginal_entropy(self.logits(chosen, params))}

    def first_logits(self, x):
        """Logits [B,V,C] of all views under the prompts before tuning; no gradient, cached class features."""
        flat = x.flatten(0, 1)                                                         # [B*V, ...]
        logits = torch.cat([self._predict(part) for part in flat.split(self.image_batch)])
        return logits.unflatten(0, x.shape[:2])

    def adapt(self, views):
        """Tune one private copy of the prompts per image on its own views [B,V,3,S,S], view 0 the image. -> Adapted.

        Views are selected first, without gradient; only the selected ones are run with it (same gradient, less
        work). AdamW is elementwise, so one optimiser over leaves [B, ...] is B optimisers."""
        c = self.config
        with torch.no_grad():
            x = self.inputs(views)
            selected = select_confident(self.first_logits(x), c.selection)             # [B, k]
            chosen = take_views(x, selected)                                   # [B, k, ...]
        params, history = self.start(views), []
        with torch.enable_grad():
            optimizer = torch.optim.AdamW(list(params.values()), lr=c.lr, weight_decay=c.weight_decay)
            for _ in range(c.steps):
                losses = self.objective(chosen, params)
                optimizer.zero_grad()
                losses["loss"].sum().backward()
                optimizer.step()
                history.append({k: v.detach() for k, v in losses.items()})
        stacked = {k: torch.stack([h[k] for h in history]) for k in history[0]} if history else {}
        return Adapted({k: v.detach() for k, v in params.items()}, stacked, selected, x[:, :1])

    def start(self, views):
        """Fresh leaves [B, ...] to tune, one set per episode."""
        return self.learner.episodes(len(views))

    @torch.no_grad()
    def predict_views(self, views):
        """views [B,V,3,S,S], view 0 the image itself -> logits [B,C] of view 0 after tuning on all views."""
        if views.ndim != 5:
            raise ValueError(f"{self.name}: views have shape {tuple(views.shape)}; expected [B, V, 3, S, S]")
        adapted = self.adapt(views)
        return self.logits(adapted.original, adapted.params)[:, 0]

    @torch.no_grad()
    def predict(self, images):
        """Logits [B, C]; images as in `Method.predict`. The views of an image are drawn from its content and
        `config.seed` alone, so neither order nor batching changes a prediction."""
        items = list(images_to_tensor(self.clip, images)) if isinstance(images, Tensor) else check_images(images)
        size = self.config.episodes or self.default_episodes()
        return torch.cat([self.predict_views(torch.stack([self.make_views(i) for i in items[s:s + size]]))
                          for s in range(0, len(items), size)])

    def make_views(self, image):
        """Model input [V,3,S,S] for one PIL image or one tensor [3,S,S]; view 0 is the image itself."""
        c = self.config
        return make_views(image, c.n_views, self.clip, augmix=c.augmix,
                          seed=content_seed(image, c.seed)).to(self.clip.device)

    def default_episodes(self):
        """How many episodes to run at once: as many as keep the saved text activations near a memory budget."""
        cuda = self.clip.device.type == "cuda"
        budget = 0.4 * torch.cuda.mem_get_info(self.clip.device)[0] if cuda else 1.5e9    # bytes
        per_token = 4 * 24 * self.clip.text_width * self.clip.text_layers              # fp32, ~24 widths a layer
        tokens = 6 * len(self.class_names) + 8                                         # packed: a name, ".", EOT
        return int(max(1, min(32, budget // (per_token * tokens))))
