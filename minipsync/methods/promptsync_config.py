"""The settings of PromptSync: a field for each point that what we read of it leaves open, (n) as in METHODS
5.9.3."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ..settings import Probability, Share, some_of
from ..source.prototypes import PARTS
from ..views.crops import CropScale, ViewConfig
from ..views.wordnet import RELATIONS
from .maple import MaPLeConfig
from .test_time import TestTimeConfig


class PromptSyncConfig(TestTimeConfig, MaPLeConfig, title="promptsync"):
    """PromptSync's settings: [paper] means that what was read of the paper says so, [ours] that it does not.

    Our numbers were chosen on the validation domain; n_ctx, depth and init are those of the loaded MaPLe.
    """

    # the objective
    entropy: bool = True
    """L_ent is on; Table 5 lists it, the algorithm does not (16) [ours]"""
    alignment: bool = True
    """L_A is on [paper]"""
    discrimination: bool = True
    """L_D is on [paper]"""
    lambda_a: NonNegativeFloat = 1.0
    """weight of L_A beside L_ent (15) [ours]"""
    lambda_d: NonNegativeFloat = 1.0
    """weight of g_D in the average (15) [ours]"""
    parts: Annotated[tuple[str, ...], some_of(PARTS)] = PARTS
    """prototypes in L_A and L_D (6, 30) [ours]"""
    tau: PositiveFloat | None = None
    """temperature of L_D; None: the model's, 1 / logit_scale (9) [ours]"""
    weights: Literal["all", "top1"] = "all"
    """p_bar of all classes, or of the likeliest alone (28) [both]"""
    p_bar_of: Literal["views", "views and image"] = "views"
    """p_bar is the mean over the views F, or over F and the image itself, which counts once; the abstract has
    "the test sample and filtered augmented views" (31) [both]"""
    weights_gradient: bool = False
    """p_bar in L_A carries gradient [ours]"""
    prototype_of: Literal["views", "image"] = "views"
    """h_x in L_A: the mean over the views F, or the image itself, view 0 (12) [both]"""
    outside: Literal["source", "nearest"] = "source"
    """p_bar over the source classes, or over the target classes, each of which counts for its nearest source
    class (14) [ours]"""
    # the iteration
    alpha: NonNegativeFloat = 1e-3
    """rate of the meta-train step (17) [ours]"""
    lr: PositiveFloat = 5e-3
    """beta, rate of the final update (17) [ours]"""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """of the final update, fresh for each image (17, 19) [ours]"""
    weight_decay: NonNegativeFloat = 0.01
    """of the optimiser, as TPT and PromptAlign; the formula has none (17) [ours]"""
    steps: NonNegativeInt = 1
    """n, steps whose gradients are averaged; 0: no tuning [paper: n >= 1]"""
    advance: bool = False
    """theta moves by -alpha g inside the n steps (18) [ours]"""
    second_order: bool = False
    """the gradient goes through theta', too (18) [ours]"""
    tune: Literal["all", "prompts"] = "all"
    """all MaPLe tensors, or the prompts without the couplings (2) [ours]"""
    # the source batch of L_D
    refresh: Literal["image", "once"] = "image"
    """the source batch is drawn anew per image, or once: PromptSync* (24) [ours]"""
    classes_per_step: NonNegativeInt = 16
    """K, classes in a source batch; 0: all (10) [ours]"""
    source_views: PositiveInt = 2
    """augmented views per class in a source batch, A(c) (8) [ours]"""
    text_variants: PositiveInt = 4
    """texts per class, the name included (21) [ours]"""
    relations: Annotated[tuple[str, ...], some_of(RELATIONS)] = tuple(RELATIONS)
    """WordNet's relations that give the texts: synonyms, meronyms, antonyms [paper]"""
    prototype_views: NonNegativeInt = 4
    """augmented views per source image in a prototype p_c (7, 8) [ours]"""
    shots: PositiveInt | None = 16
    """source images per class; None: all (22) [paper, for the prompts]"""
    cache_mb: NonNegativeInt = 512
    """MiB of source images to keep in memory"""
    # the learner, beside n_ctx, depth and init
    coupled: bool = True
    """MaPLe's prompts; False: IVLP's independent ones (1) [ours]"""
    # the views
    n_views: PositiveInt = 127
    """augmented views, beside the image itself [paper; (11)]"""
    selection: Share = 0.1
    """the share of the views that is F, those of lowest entropy under theta': 12 of 128 (11) [ours]"""
    crop_scale: CropScale = (0.08, 1.0)
    """smallest and largest share of the image in a random crop [paper]; the range is TPT's [ours]"""
    background: Probability = 0.5
    """share of the views with another background [paper] (20) [ours]"""
    corruption: Probability = 0.5
    """share of the views with a corruption [paper] (20) [ours]"""
    corruption_severity: Annotated[int, Field(ge=1, le=5)] = 3
    """severities are drawn from 1 to this, of ImageNet-C's five (20) [ours]"""
    seed: int = 1
    """seed of the few-shot choice of the source and of its views in the prototypes"""
    view_seed: int = Field(default_factory=lambda given: given["seed"])
    """seed of the test image's views and of the source batches; None: that of seed"""

    def check(self) -> None:
        self.require(self.classes_per_step != 1, "classes_per_step", "2 or more, or 0 for all")
        self.require(self.entropy or self.alignment or self.discrimination, "entropy",
                     "True where alignment and discrimination are off: nothing would be minimised")
        self.require(not (self.second_order and self.refresh == "once"), "second_order",
                     "False with refresh='once', where g_D is a constant")

    @property
    def view_config(self) -> ViewConfig:
        """How test views and source views are augmented."""
        return ViewConfig(crop_scale=self.crop_scale, background=self.background, corruption=self.corruption,
                          corruption_severity=self.corruption_severity)


class PromptSyncStarConfig(PromptSyncConfig, title="promptsync_star"):
    """PromptSync*: faster, slightly less accurate [paper]; read as one g_D for all images (24) [ours]."""

    refresh: Literal["image", "once"] = "once"
    """the source batch is drawn once, or anew per image: PromptSync (24) [ours]"""
