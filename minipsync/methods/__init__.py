"""One paper, one file; `build(name, clip, class_names, **settings)` makes any of them."""

from .base import REGISTRY, Adapted, Method, TestTimeMethod, build, register
from .cocoop import CoCoOp
from .coop import CoOp
from .ivlp import IVLP
from .maple import MaPLe
from .maple_tpt import MaPLeTPT
from .tpt import TPT
from .zero_shot import ZeroShot

__all__ = ["IVLP", "REGISTRY", "TPT", "Adapted", "CoCoOp", "CoOp", "MaPLe", "MaPLeTPT", "Method",
           "TestTimeMethod", "ZeroShot", "build", "register"]
