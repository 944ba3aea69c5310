"""The source side of PromptSync: prototypes and source images, computed, loaded or taken from the package."""

import hashlib

from ..data.content import of_dataset
from ..data.mini import Mini
from ..source.prototypes import Prototypes, SourceSampler, text_prototypes
from ..training import few_shot_images, learned_pictures
from .episodes import TestTimeMethod
from .prompts import CoupledPrompt, IndependentPrompt


class PrototypeMethod(TestTimeMethod):
    """A test-time method that knows its source: `prototypes` of its classes, and `source`, a sampler of its
    images. Both belong to the present prompts, and go when others are loaded."""

    keeps = "prototypes"

    def __init__(self, clip, class_names, config=None, **settings):
        super().__init__(clip, class_names, config, **settings)
        self.use(None)

    @property
    def accepts(self):
        return ("maple" if self.config.coupled else "ivlp", "promptsync", "promptsync_star")

    @property
    def fingerprint(self):
        """Which source images L_D draws: records are keyed by it, beside the prototypes themselves."""
        data = getattr(self.source, "dataset", None)
        if data is None or not self.config.discrimination:
            return None
        ids = "\n".join([of_dataset(data), *map(data.image_id, range(len(data)))])
        return hashlib.sha256(ids.encode()).hexdigest()[:12]

    def make_learner(self):
        c = self.config
        if c.coupled:
            return CoupledPrompt(self.clip, c.n_ctx, c.depth, c.init, seed=c.seed)
        return IndependentPrompt(self.clip, c.n_ctx, c.depth, c.n_ctx, c.depth, c.init, seed=c.seed)

    def own_tensors(self):
        own = [self.prototypes.text, self.prototypes.vision, self.prototypes.cls] if self.prototypes else []
        return super().own_tensors() + own

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._constant = None
        if self.prototypes is not None:                          # method.to(device) takes the source along
            self.prototypes = self.prototypes.to(next(self.parameters()).device)
        return self

    @property
    def source_packed(self):
        """The source classes' texts as packed tokens, on the CLIP's device."""
        self._source_packed = self._source_packed.to(self.clip.device)
        return self._source_packed

    def use(self, prototypes, source_set=None):
        """Take these prototypes, and draw source samples from `source_set` (without one L_D must be off)."""
        names = source_set.class_names if source_set is not None else None
        if prototypes is not None and (reason := prototypes.misfit(self.clip, self.learner, names)):
            raise ValueError(f"{self.name}: {reason}; method.prepare(source_set) computes fitting ones")
        self.prototypes = self.source = self._source_packed = self._constant = None
        self._made_for = self.copy_prompts()
        if prototypes is not None:
            self.prototypes = prototypes.to(next(self.parameters()).device)
            self._source_packed = self.learner.packing(prototypes.class_names)
        if source_set is not None:
            self.source = SourceSampler(source_set, self.clip, self.config.view_config, self.config.cache_mb)
        return self

    def prepare(self, source_set, *, prototypes=None, checkpoint=None, progress=True):
        """Compute the prototypes of `source_set`, at most `shots` images per class, under the present prompts
        (or take given ones), and draw the samples of L_D from the same images. Returns self.

        The paper: ImageNet, 16 images per class. `method.prototypes.save(path)` keeps the prototypes.
        checkpoint: see `one_pass`."""
        self.check_device()
        c = self.config
        source_set = source_set.subset(few_shot_images(source_set, c.shots, c.seed))
        if prototypes is None:
            recipe = self.recipe_of_prototypes()
            shots = recipe.pop("shots")
            prototypes = Prototypes.collect(self.clip, self.learner, source_set, progress=progress,
                                            checkpoint=checkpoint, **recipe)
            prototypes.recipe["shots"] = shots
        return self.use(prototypes, source_set)

    def recipe_of_prototypes(self):
        """The settings that prototypes are computed with. Their views are always PROMPTSYNC_VIEWS, however
        those of the test image are cut."""
        c = self.config
        return {"n_views": c.prototype_views, "n_variants": c.text_variants, "relations": list(c.relations),
                "seed": c.seed, "shots": c.shots}

    def fit(self, train_set, *, progress=True, **settings):
        """Train the prompts as MaPLe does, then `prepare` with the same set."""
        super().fit(train_set, progress=progress, **settings)
        return self.prepare(train_set, progress=progress)

    def load(self, path="auto", *, source=None, prototypes=None, folder=None, **choice):
        """Read prompts, as `Method.load`, and what belongs to them.

        prototypes: a file; None: those in `folder` or in the package that were made for these prompts and
        settings, else computed from `source`.
        source: the data set they are of; None: for the mini CLIP the one its prompts were trained on, from
        the package, for others no set (then L_D must be off). Returns self."""
        super().load(path, **choice)
        self.use(None)
        if prototypes is None:
            return self.use_source(folder, source)
        found, wanted = Prototypes.load(prototypes, self.clip, self.learner), self.recipe_of_prototypes()
        if found.recipe and found.recipe != wanted:
            raise ValueError(f"{self.name}: {prototypes} was made with {found.recipe}, the settings ask "
                             f"for {wanted}; build with those settings, or method.prepare(source_set)")
        return self.use_source(None, source, found)

    def find_source(self, folder=None, source_set=None):
        """The prototypes in `folder` or in the package that belong to the present prompts, and, if it is
        given, to the pictures of `source_set`; or None."""
        c, source = self.config, {"source": self.trained_on} if self.trained_on else {}
        source |= {"content": learned_pictures(source_set, c.shots, c.seed)} if source_set is not None else {}
        return Prototypes.find(self.clip, self.learner, folder, recipe=self.recipe_of_prototypes(), **source)

    def use_source(self, folder=None, source_set=None, prototypes=None):
        """Take `prototypes`, else what `find_source` finds, else what `source_set` gives; and draw source
        images from that set, for the mini CLIP by default from the one its prompts were trained on."""
        if source_set is None and self.clip.name == "mini" and self.trained_on in Mini.names:
            source_set = Mini().dataset(self.trained_on, split="train")
        found = self.find_source(folder, source_set) if prototypes is None else prototypes
        return self.use(found) if source_set is None else self.prepare(source_set, prototypes=found)

    def class_texts(self, prompts):
        """Features [B, C, D] of the target classes; features and prototypes [B, S, D] of the source's."""
        if not self.config.alignment:
            return self.clip.encode_text(self.packed, prompts.text), ()
        source = text_prototypes(self.clip, self.source_packed, prompts.text)
        if self.class_names == self.prototypes.class_names:                    # one pass does for both
            return source[0], source
        return self.clip.encode_text(self.packed, prompts.text), source

    def check_source(self):
        """ValueError that says what is missing or out of date, and how to get it."""
        self.check_device()
        c = self.config
        if not c.steps or not (c.alignment or c.discrimination):
            return
        mend = "method.prepare(source_set) computes them from the set that the prompts were trained on"
        if self.prototypes is None:
            raise ValueError(f"{self.name} has no source prototypes for these prompts; {mend}")
        if not self.prompts_are(self._made_for):
            raise ValueError(f"{self.name}: the prompts are not those that the source prototypes were made "
                             f"for, they have changed since; {mend}")
        if self.source is None and c.discrimination:
            raise ValueError(f"{self.name} has no source images, discrimination=True needs them; "
                             "method.prepare(source_set, prototypes=method.prototypes) keeps the prototypes")

    def default_episodes(self):
        c, batch = self.config, 0
        if c.refresh == "image" and c.discrimination and self.prototypes is not None:
            batch = (c.classes_per_step or len(self.prototypes.class_names)) * c.source_views
        return self.episodes_in_memory(batch + max(1, int((1 + c.n_views) * c.selection)))
