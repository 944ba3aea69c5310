"""Keeping numbers finite: losses in float32, bounded logarithms, and steps that float16 cannot spoil."""

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """At least float32, since losses are never computed in half precision; float64 stays."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def bounded(log_p: Tensor) -> Tensor:
    """Replace log-probabilities of -inf: -inf * 0 would be nan in an entropy, and in its gradient."""
    return log_p.clamp(min=torch.finfo(log_p.dtype).min)


def gradients(loss: Tensor, params: dict[str, Tensor], precision: str,
              create_graph: bool = False) -> dict[str, Tensor]:
    """Gradients of episodes' losses [B] for their parameters [B, ...], by name; 0 where one plays no part.

    With float16 the loss is multiplied by 1000 on the way, as by the official codes' GradScaler(1000).
    """
    scale = 1000.0 if precision == "fp16" else 1.0
    found = torch.autograd.grad(scale * loss.sum(), list(params.values()), create_graph=create_graph,
                                allow_unused=True, materialize_grads=True)
    return {name: gradient / scale for name, gradient in zip(params, found, strict=True)}


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
