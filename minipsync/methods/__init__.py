"""One paper, one file; `build(name, clip, class_names, **settings)` makes any of them."""

# ruff: noqa: I001  (in the order of the papers, which is also the order of REGISTRY)
from .base import REGISTRY, Method, build, register
from .episodes import Adapted, TestTimeMethod
from .zero_shot import ZeroShot
from .coop import CoOp
from .cocoop import CoCoOp
from .maple import MaPLe
from .ivlp import IVLP
from .tpt import TPT
from .maple_tpt import MaPLeTPT
from .promptalign import PromptAlign
from .promptsync import PromptSync, PromptSyncStar

__all__ = ["IVLP", "REGISTRY", "TPT", "Adapted", "CoCoOp", "CoOp", "MaPLe", "MaPLeTPT", "Method",
           "PromptAlign", "PromptSync", "PromptSyncStar", "TestTimeMethod", "ZeroShot", "build", "register"]
