"""One paper, one file; `build(name, clip, class_names, **settings)` makes any of them."""

# ruff: noqa: I001  (in the order of the papers, which is also the order of REGISTRY)
from .base import Method
from .registry import REGISTRY, build, register
from .prediction import Prediction
from .zero_shot import ZeroShot
from .coop import CoOp
from .cocoop import CoCoOp
from .maple import MaPLe
from .ivlp import IVLP
from .test_time import Adapted
from .tpt import TPT, TestTimeMethod
from .maple_tpt import MaPLeTPT
from .promptalign import PromptAlign
from .promptsync import PromptSync, PromptSyncStar
from .confident_views import ConfidentViews          # controls, which tune nothing
from .nearest_mean import NearestMean
from .tip_adapter import TipAdapter

__all__ = [
    "IVLP", "REGISTRY", "TPT", "Adapted", "CoCoOp", "CoOp", "ConfidentViews", "MaPLe", "MaPLeTPT", "Method",
    "NearestMean", "Prediction", "PromptAlign", "PromptSync", "PromptSyncStar", "TestTimeMethod", "TipAdapter",
    "ZeroShot", "build", "register",
]
