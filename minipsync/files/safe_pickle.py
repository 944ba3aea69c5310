"""Reading pickles from strangers: tensors and plain containers are built, everything else is a stand-in.

A checkpoint of the official trainers holds more than tensors: optimizers, schedulers, numpy's numbers. A
normal unpickler imports and calls whatever the file names. This one imports nothing, and calls only the
constructors listed below; every other name becomes a `StandIn`, an object that accepts everything and does
nothing. `torch.load(…, pickle_module=safe_pickle)` uses the module for both of torch's file formats.
"""

import collections
import pickle
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import torch

__all__ = ["ArrayStandIn", "StandIn", "Unpickler", "load"]


class StandIn:
    """Takes the place of an object that is not built.

    name:  what the file calls the object, "module.class".
    args:  what the file would have called it with.
    state: the attributes that the file would have given it.
    """

    name = ""
    args: tuple = ()
    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "StandIn":
        self = super().__new__(cls)                # a pickle may call __new__ without __init__
        self.args = args
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __iter__(self) -> Iterator:
        return iter(())

    def __call__(self, *args: Any, **kwargs: Any) -> "StandIn":
        return StandIn()

    def _ignore(self, *args: Any) -> None:
        """A pickle may fill the object as if it were a dict, a list or a set."""

    __setitem__ = append = extend = add = _ignore


class ArrayStandIn(StandIn):
    """Takes the place of a numpy array, which `read` makes of its state."""

    def read(self) -> "np.ndarray | np.generic | StandIn":
        """Return the array, or a stand-in if it does not hold numbers."""
        try:
            _, shape, kind, fortran, value = self.state
            found = _array(kind, value, tuple(reversed(shape)) if fortran else shape)
            return found.T if fortran and isinstance(found, np.ndarray) else found
        except (TypeError, ValueError):
            return StandIn()


class Constructor:
    """Wraps a function that a pickle may call, so that its instructions cannot change the function."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable):
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the file tries to change a constructor")


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """Do what torch._utils._rebuild_tensor does, without the hooks that the file may ask for."""
    return torch._utils._rebuild_tensor(storage, offset, tuple(size), tuple(stride))


def _parameter(data: Any, *_: Any) -> torch.Tensor:
    """Return the parameter's tensor itself."""
    if not isinstance(data, torch.Tensor):
        raise pickle.UnpicklingError("a parameter that is no tensor")
    return data


def _of_type(make: Any, kind: Any, args: Any, *_: Any) -> Any:
    """Do what torch._tensor._rebuild_from_type_v2 does, without the tensor's own attributes."""
    if not isinstance(make, Constructor):
        raise pickle.UnpicklingError("a tensor that is not made as tensors are")
    return make(*args)


def _bytes(text: str, encoding: str) -> bytes:
    """Return bytes that the pickle protocol of Python 2 wrote as text."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _array(kind: Any, value: Any, shape: tuple[int, ...] = ()) -> "np.ndarray | np.generic | StandIn":
    """Return an array, or a number for the shape (), from the stand-in for its dtype and its bytes."""
    code = kind.args[0] if isinstance(kind, StandIn) and kind.args else None
    if not (isinstance(code, str) and isinstance(value, bytes) and np.dtype(code).kind in "biuf"):
        return StandIn()
    order: Any = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "="
    dtype = np.dtype(code).newbyteorder(order if order in ("<", ">", "=") else "=")
    return np.frombuffer(value, dtype).reshape(shape).astype(dtype.newbyteorder("="))[()]


NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")        # numpy 1 and 2
CONSTRUCTORS: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _of_type,
    ("_codecs", "encode"): _bytes,
    **{(module, "scalar"): _array for module in NUMPY},
    **{(module, "_reconstruct"): lambda *_: ArrayStandIn() for module in NUMPY},
    **{(module, kind.__name__): kind for module in ("builtins", "__builtin__")     # Python 3 and 2
       for kind in (set, frozenset, list, dict, tuple, int, float, complex, bool, bytearray)},
}


class Unpickler(pickle.Unpickler):
    """`pickle.Unpickler` that finds nothing but `CONSTRUCTORS`, torch's dtypes and stand-ins."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in CONSTRUCTORS:
            return Constructor(CONSTRUCTORS[module, name])
        if module == "torch" and isinstance(found := vars(torch).get(name), torch.dtype):
            return found
        return type("StandIn", (StandIn,), {"name": f"{module}.{name}"})


def load(file: BinaryIO, **kwargs: Any) -> Any:
    """Read one object, as `pickle.load` does."""
    return Unpickler(file, **kwargs).load()
