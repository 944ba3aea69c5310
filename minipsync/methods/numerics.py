"""Keeping numbers finite: losses in float32, bounded logarithms, and steps that float16 cannot spoil."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """At least float32, since losses are never computed in half precision; float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def bounded(log_p: Tensor) -> Tensor:
    """Replace log-probabilities of -inf: -inf * 0 would be nan in an entropy, and in its gradient."""
    return log_p.clamp(min=torch.finfo(log_p.dtype).min)


def loss_scale(precision: str) -> float:
    """The factor on a loss before backward: 1000 with float16, as the official codes' GradScaler(1000)."""
    return 1000.0 if precision == "fp16" else 1.0


def careful_step(optimizer: torch.optim.Optimizer, params: dict[str, Tensor]) -> None:
    """Do `optimizer.step()` on leaves [B, ...], but not for an image whose gradient is not finite.

    Such an image (float16 overflows) keeps its prompts, as the official codes' GradScaler skips its step
    (docs/METHODS.md, 6).
    """
    gradients = [p.grad for p in params.values() if p.grad is not None]
    finite = torch.stack([g.flatten(1).isfinite().all(1) for g in gradients]).all(0)                # [B]
    before = None if finite.all() else {k: p.detach().clone() for k, p in params.items()}
    optimizer.step()
    if before is not None:
        with torch.no_grad():
            for k, p in params.items():
                p[~finite] = before[k][~finite]
