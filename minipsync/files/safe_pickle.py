"""Pickles from strangers: tensors and plain containers are built, everything else becomes an inert stand-in.

A checkpoint of the official trainers holds more than tensors: optimizers, schedulers, numpy's scalars. To
unpickle them is to call whatever the file names. This unpickler imports nothing and calls nothing but the few
constructors below; any other name in the file stands for an object that takes whatever it is given and does
nothing. The module has what `torch.load(…, pickle_module=…)` asks for, which reads both of torch's formats.
"""

import collections
import pickle

import numpy as np
import torch

__all__ = ["ArrayStandIn", "StandIn", "Unpickler", "load"]


class StandIn:
    """In place of an object that is not built. `name` is what the file calls it; `args` and `state` are what
    the file would have made it of."""

    name = ""

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        self.state = state

    def __setitem__(self, key, value):
        pass

    def __iter__(self):
        return iter(())

    def __call__(self, *args, **kwargs):
        return StandIn()

    def append(self, item):
        pass

    def extend(self, items):
        pass

    def add(self, item):
        pass


class Constructor:
    """A function that a pickle may call, out of reach of its instructions that change objects."""

    __slots__ = ("_make",)

    def __init__(self, make):
        self._make = make

    def __call__(self, *args):
        return self._make(*args)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("the file tries to change a constructor")


def _tensor(storage, offset, size, stride, *_):
    """torch._utils._rebuild_tensor: without the hooks that the file may ask for."""
    return torch._utils._rebuild_tensor(storage, offset, tuple(size), tuple(stride))


def _parameter(data, *_):
    if not isinstance(data, torch.Tensor):
        raise pickle.UnpicklingError("a parameter that is no tensor")
    return data


def _of_type(make, kind, args, *_):
    """torch._tensor._rebuild_from_type_v2: a tensor with attributes of its own, which are left out."""
    if not isinstance(make, Constructor):
        raise pickle.UnpicklingError("a tensor that is not made as tensors are")
    return make(*args)


def _text(text, encoding):
    """How Python 2's protocol writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _numpy_scalar(kind, value=None):
    """A number, from a stand-in for its dtype and its bytes."""
    return _array(kind, value, ())


def _array(kind, value, shape):
    code = kind.args[0] if isinstance(kind, StandIn) and kind.args else None
    if not (isinstance(code, str) and isinstance(value, bytes) and np.dtype(code).kind in "biuf"):
        return StandIn()
    order = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "="
    kind = np.dtype(code).newbyteorder(order if order in ("<", ">", "=") else "=")
    return np.frombuffer(value, kind).reshape(shape).astype(kind.newbyteorder("="))[()]


class ArrayStandIn(StandIn):
    """In place of a numpy array, whose state says what it holds."""

    def read(self):
        """The array, or a stand-in if it holds no numbers."""
        try:
            _, shape, kind, fortran, value = self.state
            order = tuple(reversed(shape)) if fortran else shape
            found = _array(kind, value, order)
            return found.T if fortran and isinstance(found, np.ndarray) else found
        except (TypeError, ValueError):
            return StandIn()


CONSTRUCTORS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    ("_codecs", "encode"): _text,
    **{("numpy" + core, "scalar"): _numpy_scalar for core in (".core.multiarray", "._core.multiarray")},
    **{("numpy" + core, "_reconstruct"): lambda *_: ArrayStandIn() for core in (".core.multiarray",
                                                                         "._core.multiarray")},
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__")
       for kind in (set, frozenset, list, dict, tuple, int, float, complex, bool, bytearray)},
}


class Unpickler(pickle.Unpickler):
    """`pickle.Unpickler` for files from strangers; see the module."""

    def find_class(self, module, name):
        if (module, name) in CONSTRUCTORS:
            return Constructor(CONSTRUCTORS[module, name])
        if module == "torch" and isinstance(found := vars(torch).get(name), torch.dtype):
            return found
        return type("StandIn", (StandIn,), {"name": f"{module}.{name}"})


def load(file, **kwargs):
    """As `pickle.load`."""
    return Unpickler(file, **kwargs).load()
