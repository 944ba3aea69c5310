"""Zero-shot CLIP (Radford et al. 2021, arXiv:2103.00020, sec. 3.1): no learning, only words.

A class is the sentence "a photo of a {name}."; an image belongs to the class whose feature t_c is nearest:

    p(c | x) = softmax_c( exp(s) * cos(f(x), t_c) )

Several templates: t_c = normalise( mean over templates of normalise( text(template, c) ) ).
"""

from typing import Literal

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.text import pack_texts
from ..settings import Settings
from .base import Method, Params
from .registry import register

ENSEMBLES = {                                             # open_clip ships OpenAI's two lists (METHODS 2)
    "7": tuple(t("{}") for t in open_clip.SIMPLE_IMAGENET_TEMPLATES),
    "80": tuple(t("{}") for t in open_clip.OPENAI_IMAGENET_TEMPLATES),
}


class ZeroShotConfig(Settings, title="zero_shot"):
    """Defaults: the CLIP row of the TPT and PromptAlign tables, one template for every dataset."""

    template: str | tuple[str, ...] = "a photo of a {}."
    """a text with {} where the name goes, or several, such as `data.templates`"""
    ensemble: Literal["none", "7", "80"] = "none"
    """a list of templates; CoOp's ZeroshotCLIP2 has "7", CLIP's notebook has "80" templates"""
    append_template: bool = False
    """use template beside the ensemble; ZeroshotCLIP2 does, except on ImageNet"""

    def check(self) -> None:
        self.require(self.template, "template", "at least one text")
        self.require(self.ensemble != "none" or not self.append_template, "append_template",
                     "an ensemble, '7' or '80', that it is appended to")
        default = type(self).model_fields["template"].default
        self.require(self.ensemble == "none" or self.append_template or self.template == default, "template",
                     "no template of its own beside an ensemble, unless append_template=True adds it")
        for template in self.templates:
            if "{}" not in template:
                raise ValueError(f"template={template!r} does not fit; expected a text with {{}} where the "
                                 "name goes")

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates in use."""
        own = (self.template,) if isinstance(self.template, str) else self.template
        if self.ensemble == "none":
            return own
        return ENSEMBLES[self.ensemble] + (own if self.append_template else ())


@register
class ZeroShot(Method):
    """CLIP with hand-written prompts."""

    name, Config = "zero_shot", ZeroShotConfig

    def encode_classes(self) -> Tensor:
        """t_c [C, D]: the feature of each class's sentence, or the mean over several templates."""
        names = [name.replace("_", " ") for name in self.class_names]
        features = [self.clip.encode_text(pack_texts([t.replace("{}", n) for n in names]))      # [C, D] each
                    for t in self.config.templates]
        return features[0] if len(features) == 1 else F.normalize(torch.stack(features).mean(0), dim=-1)

    def logits(self, images: Tensor, params: Params | None = None) -> Tensor:
        """exp(s) cos(f(x), t_c): images [N, 3, S, S] -> [N, C]."""
        return self.own_logits(images)
