"""The settings of PromptSync: a field for each point that the paper leaves open, (n) as in METHODS 5.9.3."""

from dataclasses import dataclass
from typing import Literal

from ..settings import require
from ..source.prototypes import PARTS
from ..views.crops import ViewConfig
from ..views.wordnet import RELATIONS
from .inputs import check_test_time


@dataclass(frozen=True)
class PromptSyncConfig:
    """[paper]: the text says so. [ours]: it does not; numbers are chosen on the validation domain."""

    # the objective
    entropy: bool = True                  # L_ent on; Table 5 lists it, the algorithm does not (16) [ours]
    alignment: bool = True                # L_A on [paper]
    discrimination: bool = True           # L_D on [paper]
    lambda_a: float = 1.0                 # weight of L_A beside L_ent (15) [ours]
    lambda_d: float = 1.0                 # weight of g_D in the average (15) [ours]
    parts: tuple[str, ...] = PARTS        # prototypes in L_A and L_D (6, 30) [ours]
    tau: float | None = None              # temperature of L_D; None: the model's, 1 / logit_scale (9) [ours]
    weights: Literal["all", "top1"] = "all"            # p_bar of all classes, or of the likeliest (28) [both]
    weights_gradient: bool = False        # does p_bar in L_A carry gradient? [ours]
    prototype_of: Literal["views", "image"] = "views"  # h_x in L_A: mean over F, or view 0 (12) [both]
    outside: Literal["source", "nearest"] = "source"   # p_bar over source classes, or over target classes,
    #                                       each of which counts for its nearest source class (14) [ours]
    # the iteration
    alpha: float = 1e-3                   # rate of the meta-train step (17) [ours]
    lr: float = 5e-3                      # beta, rate of the final update (17) [ours]
    optimizer: Literal["adamw", "sgd"] = "adamw"       # of the update, fresh for each image (17, 19) [ours]
    weight_decay: float = 0.01            # as TPT and PromptAlign; the formula has none (17) [ours]
    steps: int = 1                        # n, whose gradients are averaged [paper: n >= 1]
    advance: bool = False                 # does theta move by -alpha g inside the n steps? (18) [ours]
    second_order: bool = False            # gradient through theta' (18) [ours]
    tune: Literal["all", "prompts"] = "all"            # all MaPLe tensors, or no couplings (2) [ours]
    # the source batch of L_D
    refresh: Literal["image", "once"] = "image"        # drawn anew per image, or PromptSync* (24) [ours]
    classes_per_step: int = 16            # K; 0 = all (10) [ours]
    source_views: int = 2                 # augmented views per class, A(c) (8) [ours]
    text_variants: int = 4                # texts per class, the name included (21) [ours]
    relations: tuple[str, ...] = tuple(RELATIONS)      # WordNet's synonyms, meronyms, antonyms [paper]
    prototype_views: int = 4              # augmented views per source image in p_c (7, 8) [ours]
    shots: int | None = 16                # source images per class; None: all (22) [paper, for the prompts]
    cache_mb: int = 512                   # source images kept in memory
    # the learner: MaPLe's, as trained
    coupled: bool = True                  # MaPLe; False: IVLP's independent prompts (1) [ours]
    n_ctx: int = 2                        # [paper]
    depth: int = 3                        # [paper]
    init: str | None = "a photo of a"     # as MaPLe
    # the views
    n_views: int = 127                    # augmented views, beside the image itself [paper; (11)]
    selection: float = 0.1                # F: 12 of 128, under theta' (11) [ours]
    crop_scale: tuple[float, float] = (0.08, 1.0)      # random crops [paper], TPT's range [ours]
    background: float = 0.5               # share of views with another background [paper] (20) [ours]
    corruption: float = 0.5               # share of views with a corruption [paper] (20) [ours]
    corruption_severity: int = 3          # 1 … 3 of ImageNet-C's five (20) [ours]
    seed: int = 1                         # of the views and the source batch
    episodes: int | None = None           # images at a time, no matter for the result; None = by memory

    def __post_init__(self):
        check_test_time("promptsync", self)
        for name in ("lambda_a", "lambda_d", "alpha", "prototype_views", "classes_per_step", "cache_mb"):
            require(getattr(self, name) >= 0, "promptsync", name, getattr(self, name), "0 or more")
        for name in ("source_views", "text_variants", "depth"):
            require(getattr(self, name) >= 1, "promptsync", name, getattr(self, name), "1 or more")
        require(self.classes_per_step != 1, "promptsync", "classes_per_step", 1, "2 or more, or 0 for all")
        require(self.tau is None or self.tau > 0, "promptsync", "tau", self.tau, "a positive number, or None")
        require(self.parts and set(self.parts) <= set(PARTS), "promptsync", "parts", self.parts,
                f"some of {', '.join(PARTS)}")
        require(self.entropy or self.alignment or self.discrimination, "promptsync", "entropy", False,
                "True where alignment and discrimination are off: nothing would be minimised")
        require(not (self.second_order and self.refresh == "once"), "promptsync", "second_order", True,
                "False with refresh='once', where g_D is a constant")
        self.view_config                  # noqa: B018  (checks the settings of the views)

    @property
    def view_config(self):
        """How test views and source views are augmented."""
        return ViewConfig(crop_scale=self.crop_scale, background=self.background, corruption=self.corruption,
                          corruption_severity=self.corruption_severity)


@dataclass(frozen=True)
class PromptSyncStarConfig(PromptSyncConfig):
    """PromptSync*: faster, slightly less accurate [paper]; read as one g_D for all images (24) [ours]."""

    refresh: Literal["image", "once"] = "once"
