"""What every method shares: class names in, images in, logits out.

`Method` holds a frozen CLIP, a class list, a config and, mostly, a prompt learner (learner.py). Methods that
tune their prompts on the test image derive from `TestTimeMethod` (tpt.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .. import training
from ..clip.encoders import Clip
from ..clip.text import PackedText
from ..data.few_shot import learned_pictures
from ..data.names import check_class_names, warn_of_twins
from ..settings import Settings
from . import official, prompt_files
from .inputs import check_images, check_tensor, check_train_set, template_as_context
from .learner import Learner
from .memory import in_batches
from .module import OnSharedClip
from .prediction import Images, Prediction

REGISTRY: dict[str, type["Method"]] = {}           # what `register` made known, by name
Params = dict[str, Tensor]                # learner parameters by name, [...] or, with episodes, [B, ...]


class Method(OnSharedClip):
    """A classifier over `class_names` made of a frozen CLIP and prompts.

    name:    what `build` calls it.
    Config:  its settings; unknown or ill-typed ones raise ValueError and list the good ones.
    recipe:  the training settings of the paper, or None where nothing is trained.
    accepts: names of the methods whose saved prompts `load` takes, beside its own.
    needs:   the part of a source domain that it uses, "moments" or "prototypes"; "" for none.
    prompt_settings: fields of Config that shape the prompts themselves; None: all of them do.
    """

    name: ClassVar[str] = ""
    Config: ClassVar[type[Settings]]
    recipe: ClassVar[training.TrainConfig | None] = None
    accepts: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[str] = ""
    prompt_settings: ClassVar[tuple[str, ...] | None] = None
    image_batch: int = 128             # images per call of an encoder: bounds memory, not the result
    max_batch: int | None = None       # images predicted together, at most; lowered where memory runs out

    def __init__(self, clip: Clip, class_names: Sequence[str], config: Any = None, **settings: Any):
        super().__init__(clip)
        settings = template_as_context(self.Config, settings, self.name)
        if config is not None and type(config) is not self.Config:
            raise TypeError(f"{self.name}: config is a {type(config).__name__}, not {self.name}'s Config")
        self.config: Any = self.Config(**settings) if config is None else config.replace(**settings)
        self.class_names = check_class_names(class_names)
        self.learner: Any = self.make_learner()      # None: words alone
        if self.learner is not None:
            self.learner.to(clip.device)
        self.trained_on, self.prompts_from = "", ""  # data set and file of the prompts
        self.history: list[dict] = []                # of their training, a dict per epoch
        self.learned_from: dict = {}                 # fingerprint of the training pictures, and the recipe
        self.set_class_names(self.class_names)

    # ---- what a method says for itself ----
    def make_learner(self) -> Learner | None:
        """Make the prompt learner (see learner.py); None for a method without one."""
        return None

    def logits(self, images: Tensor, params: Params | None = None) -> Tensor:
        """Differentiable logits: images [N, 3, S, S] -> [N, C].

        params: one set of prompts per episode, in place of the learner's own; then images [B, V, 3, S, S] ->
        [B, V, C].
        """
        self.check_device()
        prompts = self.learner(params)
        text = self.clip.encode_text(self.packed, prompts.text)                        # [C, D] or [B, C, D]
        image = self.clip.encode_image(images, prompts.vision)                         # [N, D] or [B, V, D]
        return self.clip.logit_scale * image @ text.mT

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy, what `fit` lowers: images [N, 3, S, S], labels [N] -> scalar."""
        return F.cross_entropy(self.logits(images), labels)

    # ---- class names ----
    def set_class_names(self, names: Sequence[str]) -> Self:
        """Classify among other classes, with the same prompts. Returns self.

        Raises ValueError for class-specific prompts, which cannot, and for a name that is too long.
        """
        names = check_class_names(names)
        if getattr(self.learner, "n_classes", None) is not None and names != self.class_names:
            raise ValueError(f"{self.name}: class-specific prompts belong to the classes they were made for "
                             f"({self.class_names[:3]}…), not to {names[:3]}…; use class_specific=False")
        if self.learner is not None:
            self._packed = self.learner.packing(names)
        warn_of_twins(names)
        self.class_names = names
        self._text: tuple | None = None
        return self

    @property
    def packed(self) -> PackedText:
        """The classes' texts as packed tokens, on the CLIP's device."""
        self._packed = self._packed.to(self.clip.device)
        return self._packed

    @torch.no_grad()
    def text_features(self) -> Tensor:
        """Class features [C, D] under the learner's own prompts, L2-normalised.

        They are kept until a parameter, the class names, the precision or the device change."""
        self.check_device()
        place = (self.clip.precision, self.clip.device)
        if self._text is None or self._text[0] != place or not self.prompts_are(self._text[1]):
            self._text = (place, self.copy_prompts(), self.encode_classes())
        return self._text[2]

    def encode_classes(self) -> Tensor:
        """Class features [C, D], computed afresh."""
        return self.clip.encode_text(self.packed, self.learner().text)

    # ---- prediction ----
    @torch.no_grad()
    def predict(self, images: Images) -> Prediction:
        """Classify images: logits [B, C] (cosine times logit_scale), float32.

        images: one PIL image, a list of them, or a float tensor [B, 3, S, S] that is model input already
        (normalised with clip.mean and clip.std; clip.preprocess makes it). Raises TypeError and ValueError
        for anything else, and for a picture that cannot be decoded.
        """
        self.check_device()
        items = check_tensor(self.clip, images) if isinstance(images, Tensor) else check_images(images)
        parts = in_batches(self, self.predict_batch, items, self.batch_size())
        untuned = [part.untuned for part in parts if part.untuned is not None]
        return Prediction(torch.cat([part.logits for part in parts]), torch.cat(untuned) if untuned else None)

    def batch_size(self) -> int:
        """How many images `predict_batch` gets at once: it bounds memory and changes no prediction."""
        return self.image_batch

    def predict_batch(self, items: list[Image.Image] | Tensor) -> Prediction:
        """Classify a few images, checked by `predict`: PIL images in RGB or model input [N, 3, S, S]."""
        x = items if isinstance(items, Tensor) else self.clip.preprocess(items)
        return Prediction(self.own_logits(x))

    def own_logits(self, x: Tensor) -> Tensor:
        """Logits under the learner's own prompts, with the class features kept: [N, 3, S, S] -> [N, C]."""
        vision = self.learner().vision if self.learner is not None else None
        return self.clip.logit_scale * self.clip.encode_image(x, vision) @ self.text_features().mT

    # ---- training and files ----
    def fit(self, train_set: Any, *, checkpoint: str | Path | None = None, progress: bool = True,
            **settings: Any) -> Self:
        """Train the prompts on `train_set` with the paper's recipe; `settings` are fields of `TrainConfig`.

        checkpoint: a file to save to every few seconds and to go on from. `self.history` gets one dict per
        epoch. Returns self. Raises TypeError for a method that is not trained, ValueError for a training set
        of other classes than the method's or in another order.
        """
        check_train_set(self, train_set)
        assert self.recipe is not None                                             # check_train_set
        defaults = {"seed": self.config.seed} if hasattr(self.config, "seed") else {}
        config = self.recipe.replace(**defaults | settings)
        learned_from = learned_pictures(train_set, config.shots, config.seed)
        about = {"method": self.name, "config": self.config.model_dump(), "classes": self.class_names,
                 "data": [getattr(train_set, "name", ""), learned_from]}
        self.history = training.fit(self.parameters(), self.loss, train_set, config, self.clip,
                                    checkpoint=checkpoint, progress=progress, name=self.name, about=about)
        self.trained_on, self.prompts_from = getattr(train_set, "name", ""), ""
        self.learned_from = {"pictures": learned_from, "recipe": config.model_dump()}
        return self

    def save(self, path: str | Path) -> Path:
        """Write the prompts to a safetensors file that says what they belong to. Returns the path."""
        return prompt_files.save(self, path)

    def load(self, path: str | Path = "auto", **choice: Any) -> Self:
        """Read prompts from a file that `save` wrote, or "auto": those shipped for this backbone, or a folder
        of such files, of which the one that was trained with this method's settings is taken.

        `choice` (trained_on="imagenet", seed=1) narrows "auto" and a folder down; without a seed it is the
        config's, and for a method that only takes prompts the lowest. Raises ValueError for prompts of
        another backbone, method or shape, FileNotFoundError that says why where none fit. Returns self.
        """
        prompt_files.load(self, path, **choice)
        return self

    def load_official(self, path: str | Path) -> Self:
        """Read the prompts of an official checkpoint (model.pth.tar-50) of CoOp, CoCoOp, MaPLe or IVLP.

        Only tensors are unpickled, to float32. That backbone, classes and words are this method's is yours to
        know: they are not in the file. Returns self.
        """
        official.load_official(self, path)
        return self
