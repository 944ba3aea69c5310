"""The source side of PromptAlign: token statistics, computed, loaded or taken from the package."""

from ..data.content import of_dataset
from ..source.moments import SourceStatistics
from .episodes import TestTimeMethod


class StatisticsMethod(TestTimeMethod):
    """A test-time method that knows the `statistics` of its source under the present prompts; `blocks` says
    of which vision blocks it needs them."""

    keeps = "statistics"

    @property
    def statistics(self) -> SourceStatistics | None:
        """Those of the source under the present prompts."""
        return self._statistics

    @statistics.setter
    def statistics(self, value):
        if value is not None:
            if value.prompts and (reason := value.misfit(self.clip, self.learner)):
                raise ValueError(f"{self.name}: {reason}; method.prepare(source_set) computes fitting ones")
            tokens = len(self.clip.model.visual.positional_embedding) + self.config.n_ctx
            shape, need = tuple(value.means.shape), (len(self.blocks), tokens, self.clip.vision_width)
            if len(value.means) <= max(self.blocks) or shape[1:] != need[1:]:
                raise ValueError(f"{self.name}: source statistics of shape {shape}, expected {need} or more "
                                 "layers: layers, tokens with prompts, channels")
        self._statistics, self._made_for = value and value.to(self.device), self.copy_prompts()

    def own_tensors(self):
        own = [self._statistics.means, self._statistics.variances] if self._statistics is not None else []
        return super().own_tensors() + own

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        if self._statistics is not None:                         # method.to(device) takes them along
            self._statistics = self._statistics.to(next(self.parameters()).device)
        return self

    def check_source(self):
        """ValueError that says what is missing or out of date, and how to get it."""
        self.check_device()
        if self.statistics is None:
            raise ValueError(f"{self.name} has no source statistics for these prompts; "
                             "method.prepare(source_set) computes them, "
                             "method.load(path, statistics=file) reads them")
        if not self.prompts_are(self._made_for):
            raise ValueError(f"{self.name}: the prompts are not those that the source statistics were made "
                             "for, they have changed since; method.prepare(source_set) computes fitting ones")

    def prepare(self, source_set, *, checkpoint=None, progress=True):
        """Compute the statistics of `source_set` (the paper: ImageNet's training set) with the present
        prompts; `method.statistics.save(path)` keeps them. checkpoint: see `one_pass`. Returns self."""
        self.check_device()
        self.statistics = SourceStatistics.collect(self.clip, self.learner, source_set,
                                                   checkpoint=checkpoint, progress=progress)
        return self

    def fit(self, train_set, *, progress=True, **settings):
        """Train the prompts as MaPLe does, then `prepare` with the same set."""
        super().fit(train_set, progress=progress, **settings)
        return self.prepare(train_set, progress=progress)

    def load(self, path="auto", *, statistics=None, folder=None, source=None, **choice):
        """Read prompts, as `Method.load`, and the statistics that belong to them.

        statistics: a file; None: one in `folder` or in the package that was made for these prompts on the
        data set that they were trained on, else they are computed from the data set `source`, if it is
        given. Returns self."""
        super().load(path, **choice)
        if statistics is not None:
            self.statistics = SourceStatistics.load(statistics, self.clip, self.learner)
        else:
            self.use_source(folder, source)
        return self

    def find_source(self, folder=None, source_set=None):
        """The statistics in `folder` or in the package that belong to the present prompts, and, if it is
        given, to the pictures of `source_set`; or None."""
        source = {"source": self.trained_on} if self.trained_on else {}
        source |= {"content": of_dataset(source_set, folder)} if source_set is not None else {}
        return SourceStatistics.find(self.clip, self.learner, folder, **source)

    def use_source(self, folder=None, source_set=None):
        """Take what `find_source` finds; where that is nothing, compute it from `source_set`, if given."""
        self.statistics = self.find_source(folder, source_set)
        if self.statistics is None and source_set is not None:
            self.prepare(source_set)
        return self
