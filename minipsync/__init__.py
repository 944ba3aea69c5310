"""minipsync: prompt learning for CLIP, from CoOp to PromptSync, to read and to reproduce.

    import minipsync as mp
    bench = mp.benchmark("mini")
    data = bench.dataset("sketch")
    method = bench.build("promptsync", data)
    result = mp.evaluate(method, data, limit=100)
"""

from .clip.weights import load_clip
from .data import Dataset, folder, webdataset
from .evaluation import protocols
from .evaluation.benchmark import benchmark
from .evaluation.evaluate import compare, evaluate
from .evaluation.headroom import headroom
from .methods import build
from .notebook.parameters import check_parameters

__version__ = "0.2.0"
__all__ = ["Dataset", "benchmark", "build", "check_parameters", "compare", "evaluate", "folder", "headroom",
           "load_clip", "protocols", "webdataset"]
