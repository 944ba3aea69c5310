"""One paper, one file; `build(name, clip, class_names, **settings)` makes any of them."""

from .base import REGISTRY, Adapted, Method, TestTimeMethod, build, register

__all__ = ["REGISTRY", "Adapted", "Method", "TestTimeMethod", "build", "register"]
