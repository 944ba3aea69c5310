"""The checker of the coursework in notebooks/exercises: compares an answer with what the library computes."""
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def check(name: str, answer: Any, expected: Any, *, tolerance: float = 1e-4,
          mistakes: Mapping[str, Any] | None = None) -> None:
    """Compare an answer with what is expected: numbers, words, tensors or lists, or tuples of them.

    Raises AssertionError that says what is wrong, unless both agree within `tolerance`, relative and
    absolute. mistakes: {what to say: the value that this mistake leads to}. An answer that has one of these
    values is told so; others are told where they are furthest from what is expected."""
    if isinstance(expected, tuple):
        if not isinstance(answer, tuple | list) or len(answer) != len(expected):
            raise AssertionError(f"{name}: expected {len(expected)} values, got {_kind(answer)}")
        for i, (a, e) in enumerate(zip(answer, expected, strict=True)):
            own = {text: value[i] for text, value in (mistakes or {}).items()}
            check(f"{name}, value {i + 1} of {len(expected)}", a, e, tolerance=tolerance, mistakes=own)
        return
    if isinstance(expected, str):
        if not isinstance(answer, str) or answer != expected:
            said = [text for text, value in (mistakes or {}).items()
                    if isinstance(answer, str) and answer == value]
            raise AssertionError(f"{name}: {said[0] if said else f'{_kind(answer)}, expected {expected!r}'}")
        return
    given, wanted = _tensor(name, answer), _tensor(name, expected)
    if _close(given, wanted, tolerance):
        return
    for text, value in (mistakes or {}).items():
        wrong = _tensor(name, value)
        if not _close(wrong, wanted, tolerance) and _close(given, wrong, tolerance):
            raise AssertionError(f"{name}: {text}")
    if given.shape != wanted.shape:
        turned = given.ndim > 1 and given.transpose(-1, -2).shape == wanted.shape
        raise AssertionError(f"{name}: the shape is {list(given.shape)}, expected {list(wanted.shape)}"
                             + (": the last two axes are swapped" if turned else ""))
    if not given.isfinite().all():
        raise AssertionError(f"{name}: {int((~given.isfinite()).sum())} of {given.numel()} values are nan or "
                             "infinite; is there a logarithm of 0, or a division by 0?")
    gap = (given - wanted).abs()
    at = torch.unravel_index(gap.argmax(), gap.shape)
    where = f" at {[int(i) for i in at]}" if gap.ndim else ""
    count = int((gap > tolerance * (1 + wanted.abs())).sum())
    raise AssertionError(f"{name}: {float(given[at]):.6g}{where}, expected {float(wanted[at]):.6g}; "
                         f"{count} of {gap.numel()} values differ")


def _kind(x: Any) -> str:
    return "nothing; is there a `return`?" if x is None else f"{type(x).__name__} {str(x)[:60]}"


def _tensor(name: str, x: Any) -> Tensor:
    """x as a float64 tensor, detached."""
    try:
        return torch.as_tensor(x).detach().cpu().double()
    except (TypeError, ValueError, RuntimeError):
        raise AssertionError(f"{name}: expected a number or a tensor, got {_kind(x)}") from None


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)
