"""What every method shares: class names in, images in, logits out.

`Method` holds a frozen CLIP, a class list, a config and (most of them) a prompt learner. What tunes its
prompts on the test image is a `TestTimeMethod` (episodes.py).
"""

import copy
import warnings
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from .. import training
from ..data.checks import some
from ..data.names import check_class_names, empty_classes, warn_of_twins
from ..files.tensors import first_line
from ..settings import Settings, did_you_mean
from . import prompt_files
from .inputs import check_images, images_to_tensor, template_as_context

REGISTRY: dict[str, type["Method"]] = {}


def register(cls):
    """Class decorator: make a method known to `build` under `cls.name`."""
    REGISTRY[cls.name] = cls
    return cls


def build(name, clip, class_names, **settings):
    """The method called `name` for these classes; `settings` are the fields of its `Config`."""
    if not isinstance(name, str) or name not in REGISTRY:
        raise ValueError(f"unknown method {name!r}; the methods are {', '.join(REGISTRY)}."
                         f"{did_you_mean(name, REGISTRY)}")
    return REGISTRY[name](clip, class_names, **settings)


class Method(nn.Module):
    """A classifier over `class_names` made of a frozen CLIP and prompts.

    Methods share the CLIP: `method.to(device)` moves what is the method's own, and only there, where its CLIP
    is, can it compute (`check_device`). `copy.deepcopy` shares the CLIP, too; a pickle holds it.

    name:    what `build` calls it.
    Config:  its settings; unknown or ill-typed ones raise ValueError and list the good ones.
    recipe:  the training settings of the paper, or None where nothing is trained.
    accepts: names of the methods whose saved prompts `load` takes, beside its own.
    keeps:   the attribute with what it keeps of its source ("statistics", "prototypes"); "" for nothing.
    prompt_settings: fields of Config that shape the prompts themselves; None: all of them do.
    """

    name: ClassVar[str] = ""
    Config: ClassVar[type[Settings]]
    recipe: ClassVar[training.TrainConfig | None] = None
    accepts: ClassVar[tuple[str, ...]] = ()
    keeps: ClassVar[str] = ""
    prompt_settings: ClassVar[tuple[str, ...] | None] = None
    image_batch: ClassVar[int] = 128                 # images per encoder call: bounds memory, not the result

    def __init__(self, clip, class_names, config=None, **settings):
        super().__init__()
        if not hasattr(clip, "encode_image"):
            raise TypeError(f"{self.name}: clip is a {type(clip).__name__}; expected load_clip(...)")
        self.__dict__["clip"] = clip                 # not a submodule: parameters() are the prompts alone
        settings = template_as_context(self.Config, settings, self.name)
        if config is not None and type(config) is not self.Config:
            raise TypeError(f"{self.name}: config is a {type(config).__name__}, not {self.name}'s Config")
        self.config = self.Config(**settings) if config is None else config.replace(**settings)
        self.class_names = check_class_names(class_names)
        self.learner = self.make_learner()
        if self.learner is not None:
            self.learner.to(clip.device)
        self.trained_on, self.prompts_from, self.history = "", "", []
        self.learned_from = {}                       # fingerprint of the training pictures, and the recipe
        self.at_most = None                          # images at a time, once memory has run out with more
        self.set_class_names(self.class_names)

    # ---- what a method says for itself ----
    def make_learner(self):
        """The prompt learner (see prompts.py), or None."""
        return None

    def logits(self, images, params=None):
        """Differentiable logits: images [N,3,S,S] -> [N,C].

        With `params` (name -> [B, ...], one set per episode, in place of the learner's parameters):
        images [B,V,3,S,S] -> [B,V,C]."""
        self.check_device()
        prompts = self.learner(params)
        text = self.clip.encode_text(self.packed, prompts.text)                        # [C, D] or [B, C, D]
        image = self.clip.encode_image(images, prompts.vision)                         # [N, D] or [B, V, D]
        return self.clip.logit_scale * image @ text.mT

    def loss(self, images, labels):
        """Mean cross-entropy, what `fit` lowers: images [N,3,S,S], labels [N] -> scalar."""
        return F.cross_entropy(self.logits(images), labels)

    # ---- devices ----
    def _apply(self, fn, recurse=True):
        if fn(torch.zeros(())).dtype != torch.float32:
            raise TypeError(f"{self.name}: prompts stay float32; .half() or .to(torch.bfloat16) would round "
                            "them for good: for half precision say load_clip(…, precision='fp16')")
        return super()._apply(fn, recurse)           # not the CLIP: other methods may share it

    def __deepcopy__(self, memo):
        memo[id(self.clip)] = self.clip              # frozen, so one is enough
        memo[id(self)] = other = type(self).__new__(type(self))
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other

    def own_tensors(self):
        """The tensors that must be where the CLIP is."""
        return list(self.parameters())

    @property
    def device(self):
        """Where the method's own tensors are; without any, where its CLIP is."""
        return next((t.device for t in self.own_tensors()), self.clip.device)

    def check_device(self):
        """ValueError that says what to move if something of the method is not where its CLIP is."""
        if wrong := {t.device for t in self.own_tensors()} - {self.clip.device}:
            mine, home = str(wrong.pop()), str(self.clip.device)
            raise ValueError(f"{self.name} is on {mine!r} and its CLIP on {home!r}; to move "
                             "a method leaves the CLIP, which others may share, where it is: say "
                             f"method.to({home!r}), or clip.to({mine!r}) for all that share it")

    @property
    def packed(self):
        """The classes' texts as packed tokens, on the CLIP's device."""
        self._packed = self._packed.to(self.clip.device)
        return self._packed

    def copy_prompts(self):
        """The parameters as they are now; `prompts_are` tells whether they have changed since."""
        return [p.detach().clone() for p in self.parameters()]

    def prompts_are(self, copies):
        """Are the parameters still these? Wherever the method was moved meanwhile."""
        return all(torch.equal(old.to(p), p) for old, p in zip(copies, self.parameters(), strict=True))

    # ---- class names ----
    def set_class_names(self, names):
        """Classify among other classes with the same prompts (class-specific ones cannot). Returns self."""
        names = check_class_names(names)
        if getattr(self.learner, "n_classes", None) is not None and names != self.class_names:
            raise ValueError(f"{self.name}: class-specific prompts belong to the classes they were made for "
                             f"({self.class_names[:3]}…), not to {names[:3]}…; use class_specific=False")
        if self.learner is not None:                 # raises for a name that is too long
            self._packed = self.learner.packing(names)
        warn_of_twins(names)
        self.class_names, self._text = names, None
        return self

    # ---- prediction ----
    @torch.no_grad()
    def text_features(self):
        """Class features [C, D] under the learner's own prompts, L2-normalised.

        Kept until a parameter, the class names, the precision or the device change."""
        self.check_device()
        place = (self.clip.precision, self.clip.device)
        if self._text is None or self._text[0] != place or not self.prompts_are(self._text[1]):
            self._text = (place, self.copy_prompts(), self.encode_classes())
        return self._text[2]

    def encode_classes(self):
        """Class features [C, D], computed afresh."""
        return self.clip.encode_text(self.packed, self.learner().text)

    @torch.no_grad()
    def predict(self, images):
        """Logits [B, C] (cosine times logit_scale), float32.

        images: one PIL image, a list of them, or a float tensor [B,3,S,S] that is model input already
        (normalised with clip.mean and clip.std; clip.preprocess makes it)."""
        self.check_device()
        tensor = isinstance(images, torch.Tensor)
        items = images_to_tensor(self.clip, images) if tensor else check_images(images)
        return torch.cat(self.in_batches(
            lambda part: self.own_logits(part if tensor else self.clip.preprocess(part)), items,
            self.image_batch))

    def own_logits(self, x):
        """[N,3,S,S] -> [N,C] under the learner's own prompts with the cached class features."""
        vision = self.learner().vision if self.learner is not None else None
        return self.clip.logit_scale * self.clip.encode_image(x, vision) @ self.text_features().mT

    def in_batches(self, run, items, size):
        """[run(part), …] for parts of `items` of at most `size`. Where memory runs out, half as many are
        tried, now and from then on; what `run` gives must not depend on what else is in a part.

        Raises torch.OutOfMemoryError that says what to lower if a single item is too much."""
        results, at = [], 0
        while at < len(items):
            part = items[at:at + min(size, self.at_most or size)]
            try:
                results.append(run(part))
                at += len(part)
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(part) == 1:
                    views = f"n_views={self.config.n_views}, " if hasattr(self.config, "n_views") else ""
                    raise torch.cuda.OutOfMemoryError(
                        f"{self.name}: memory ran out with one image at a time ({first_line(error)}); lower "
                        f"{views}method.image_batch={self.image_batch} or the number of classes "
                        f"({len(self.class_names)}), or take load_clip(…, precision='bf16')") from error
            # not in the except clause, where the error's frames still hold their tensors
            self.at_most = len(part) // 2
            torch.cuda.empty_cache()
            warnings.warn(f"{self.name}: memory ran out with {len(part)} images at a time; going on with "
                          f"{self.at_most}", stacklevel=4)
        return results

    def episodes_in_memory(self, views=0):
        """How many images with prompts of their own (and `views` views each) to run at once, so that what
        backward keeps stays within a memory budget: 1.5 GB, on a GPU 40 % of what is free; 1 to 32."""
        clip, cuda = self.clip, self.clip.device.type == "cuda"
        budget = 0.4 * torch.cuda.mem_get_info(clip.device)[0] if cuda else 1.5e9
        channels = len(self.packed.ids) * clip.text_width * clip.text_layers
        if views:
            tokens = len(clip.model.visual.positional_embedding)
            channels += views * tokens * clip.vision_width * clip.vision_layers
        return int(max(1, min(32, budget // (4 * 30 * channels))))             # ~30 floats kept per channel

    # ---- training and files ----
    def fit(self, train_set, *, checkpoint=None, progress=True, **settings):
        """Train the prompts on `train_set` with the paper's recipe; `settings` are fields of `TrainConfig`.

        checkpoint: a file to save to every few seconds and to go on from. `self.history` gets one dict per
        epoch. The classes of `train_set` must be the method's, in the same order. Returns self."""
        if self.recipe is None:
            load = f", or load the prompts of {' or '.join(self.accepts)}" if self.accepts else ""
            raise TypeError(f"{self.name} is not trained; just predict{load}")
        if list(train_set.class_names) != self.class_names:
            raise ValueError(f"{self.name}: the training set has {len(train_set.class_names)} classes "
                             f"({train_set.class_names[0]}, …), the method {len(self.class_names)} "
                             f"({self.class_names[0]}, …); build it with train_set.class_names")
        if empty := empty_classes(train_set):
            warnings.warn(f"{self.name}: the training set has no picture of {len(empty)} of its "
                          f"{len(self.class_names)} classes ({some(empty)}); prompts learn nothing of those",
                          stacklevel=2)
        self.check_device()
        defaults = {"seed": self.config.seed} if hasattr(self.config, "seed") else {}
        config = self.recipe.replace(**defaults | settings)
        learned_from = training.learned_pictures(train_set, config.shots, config.seed)
        about = {"method": self.name, "config": self.config.model_dump(), "classes": self.class_names,
                 "data": [getattr(train_set, "name", ""), learned_from]}
        self.history = training.fit(self.parameters(), self.loss, train_set, config, self.clip,
                                    checkpoint=checkpoint, progress=progress, name=self.name, about=about)
        self.trained_on, self.prompts_from = getattr(train_set, "name", ""), ""
        self.learned_from = {"pictures": learned_from, "recipe": config.model_dump()}
        return self

    def save(self, path):
        """Write the prompts to a safetensors file that says what they belong to. Returns the path."""
        return prompt_files.save(self, path)

    def load(self, path="auto", **choice):
        """Read prompts from a file that `save` wrote, or "auto": those shipped for this backbone, or a folder
        of such files, of which the one that was trained with this method's settings is taken.

        `choice` (trained_on="imagenet", seed=1) narrows "auto" and a folder down; without a seed it is the
        config's, and for a method that only takes prompts the lowest. Prompts of another backbone, method or
        shape raise ValueError, and where none fit FileNotFoundError says why. Returns self."""
        prompt_files.load(self, path, **choice)
        return self


    def load_official(self, path):
        """Read the prompts of an official checkpoint (model.pth.tar-50) of CoOp, CoCoOp, MaPLe or IVLP.

        Only tensors are unpickled; half precision becomes float32. Which backbone, classes and words it was
        trained with is not in the file: that they are this method's is yours to know. Returns self."""
        prompt_files.load_official(self, path)
        return self


def out_of_memory(error):
    """Does this error say that the memory of a device, or of the machine, was not enough?"""
    words = ("out of memory", "can't allocate memory", "_ALLOC_FAILED")        # CUDA and MPS; CPU; cuBLAS
    kinds = (torch.cuda.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(word in str(error) for word in words)
