"""The objectives of test-time prompt tuning, as plain functions of tensors.

Every function works per episode (one test image = one episode, leading axis B) and returns `[B]`; nothing
here knows about CLIP or prompts. Half-precision input is computed in float32; float64 stays float64.

| function | paper | equation |
|---|---|---|
| `marginal_entropy`, `select_confident` | TPT (Shu et al. 2022) | eq. 3, 4: entropy of the mean prediction |
| `moment_alignment` | PromptAlign (Abdul Samadh et al. 2023) | eq. 5 as in the released code (METHODS 5.8) |
| `discrimination`, `prototype_alignment` | PromptSync (Khandelwal 2024) | L_D, L_A (METHODS 5.9.2, 5.9.4) |
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def _full(x: Tensor) -> Tensor:
    """At least float32: losses are never computed in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _bounded(log_p: Tensor) -> Tensor:
    """No log-probability of -inf: -inf * 0 would be nan in an entropy, and in its gradient."""
    return log_p.clamp(min=torch.finfo(log_p.dtype).min)


# --- entropy ------------------------------------------------------------------------------------------------
def view_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of each view's prediction. logits [..., C] -> [...]."""
    log_p = _bounded(_full(logits).log_softmax(-1))
    return -(log_p.exp() * log_p).sum(-1)


def select_confident(logits: Tensor, fraction: float) -> Tensor:
    """Indices of the `int(V * fraction)` views (at least one) of lowest entropy, most confident first.

    logits [..., V, C] -> int64 [..., k]. Ties keep the order of the views. TPT eq. 4 with the percentile as
    a count.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction!r}: expected a share of the views in (0, 1]; 0.1 keeps 6 of 64")
    n_views = logits.shape[-2]
    k = max(1, int(n_views * fraction + 1e-9))             # 1e-9: 0.29 * 100 is 28.999… in binary
    return view_entropy(logits.detach()).argsort(dim=-1, stable=True)[..., :k]


def take_views(x: Tensor, index: Tensor) -> Tensor:
    """Keep the chosen views of each episode. x [B, V, ...], index [B, k] -> [B, k, ...]."""
    return x[torch.arange(len(x), device=x.device)[:, None], index]


def mean_log_probability(logits: Tensor) -> Tensor:
    """log of the mean prediction over views, computed in log space. logits [..., V, C] -> [..., C].

    logits - logsumexp(logits), as TPT's code, and not the more exact log_softmax: near zero entropy the
    gradient is rounding error, Adam turns its sign into a full step, and the official numbers contain it.
    """
    logits = _full(logits)
    log_p = _bounded(logits - logits.logsumexp(-1, keepdim=True))
    return log_p.logsumexp(-2) - math.log(logits.shape[-2])


def marginal_entropy(logits: Tensor) -> Tensor:
    """H(p_bar), p_bar the mean prediction over the views. logits [B, V, C] -> [B] nats. TPT eq. 3."""
    log_p = mean_log_probability(logits)
    return -(log_p.exp() * log_p).sum(-1)


# --- PromptAlign --------------------------------------------------------------------------------------------
def view_moments(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over the views at each token and channel. [B, V, T, W] -> 2 x [B, T, W]."""
    tokens = _full(tokens)
    return tokens.mean(-3), tokens.var(-3, correction=0)


def moment_alignment(tokens: Sequence[Tensor], means: Sequence[Tensor],
                     variances: Sequence[Tensor]) -> Tensor:
    """L1 distance of the views' token moments to the source's, summed over the given layers -> [B].

    tokens: one [B, V, T, W] per layer; means, variances: one [T, W] per layer. For each layer
    0.5 * mean|mu - mu_source| + 0.5 * mean|var - var_source| over the T * W entries: PromptAlign's released
    code; the division by the number of layers and the weight of 100 are left to the caller.
    """
    total = 0.0
    for x, source_mean, source_var in zip(tokens, means, variances, strict=True):
        mean, var = view_moments(x)                                                                # (B, T, W)
        total = total + 0.5 * (mean - source_mean).abs().mean((-2, -1))
        total = total + 0.5 * (var - source_var).abs().mean((-2, -1))
    return total


# --- PromptSync ---------------------------------------------------------------------------------------------
def _log_mass(samples: Tensor, prototypes: Tensor, weights: Tensor, scale: Tensor | float) -> Tensor:
    """log sum_a w_a exp(scale * cos(h_a of class k, p_j)) -> [B, K, K], row k, column j."""
    cosine = torch.einsum("bkad,bjd->bkja", F.normalize(samples, dim=-1), F.normalize(prototypes, dim=-1))
    return (scale * cosine + weights.log()[:, :, None, :]).logsumexp(-1)


def discrimination(samples: Mapping[str, Tensor], prototypes: Mapping[str, Tensor],
                   weights: Mapping[str, Tensor] | None = None, scale: Tensor | float = 100.0) -> Tensor:
    """PromptSync's prototype discrimination L_D = -(1/K) sum_k log(L_pos(k) / L_neg(k)) -> [B].

    For every part (text, vision, cls), K classes, and A(k) augmented samples of class k:
      samples    [B, K, A, D]   h_a, not necessarily of unit length (s is the cosine)
      prototypes [B, K, D]      p_k
      weights    [B, K, A]      w_a, summing to 1 over A; 0 pads a class with fewer samples. Default 1 / A.
    L_pos(k) = sum_parts sum_{a in A(k)} w_a exp(s(h_a, p_k) / tau)
    L_neg(k) = sum_parts sum_{j != k} [ exp(s(p_k, p_j) / tau) + sum_{a in A(k)} w_a exp(s(h_a, p_j) / tau)
                                        + sum_{b in A(j)} w_b exp(s(p_k, h_b) / tau) ]
    `scale` = 1 / tau. One K x K matrix per part, M[k, j] = log sum_{a in A(k)} w_a exp(s(h_a, p_j) / tau),
    holds all terms with samples: its diagonal is L_pos, its rows and its columns are the last two terms of
    L_neg. Everything stays in log space: exp(100) does not fit float32. ValueError for K < 2: no negatives.
    """
    positive, negative = [], []
    for part, h in samples.items():
        h, p = _full(h), _full(prototypes[part])
        n_classes, n_samples = h.shape[1], h.shape[2]
        if n_classes < 2:
            raise ValueError("discrimination over 1 class: expected at least 2, raise classes_per_step")
        w = h.new_full(h.shape[:3], 1 / n_samples) if weights is None else weights[part].to(h)
        mass = _log_mass(h, p, w, scale)                                                           # (B, K, K)
        between = scale * F.normalize(p, dim=-1) @ F.normalize(p, dim=-1).mT                       # (B, K, K)
        other = torch.stack([between, mass, mass.mT])                                           # (3, B, K, K)
        same = torch.eye(n_classes, dtype=torch.bool, device=h.device)
        positive.append(mass.diagonal(dim1=-2, dim2=-1))                                              # (B, K)
        negative.append(other.masked_fill(same, -torch.inf).logsumexp(dim=(0, 3)))                    # (B, K)
    log_pos, log_neg = torch.stack(positive).logsumexp(0), torch.stack(negative).logsumexp(0)
    return -(log_pos - log_neg).mean(-1)


def prototype_alignment(samples: Mapping[str, Tensor], prototypes: Mapping[str, Tensor],
                        weights: Tensor) -> Tensor:
    """PromptSync's prototype alignment L_A = sum_c p_bar[c] sum_parts (L_amp + L_ang) -> [B].

    samples: part -> [B, 1, D] (one prototype of the test image for all classes) or [B, C, D] (one per class:
    the text part); prototypes: part -> [C, D]; weights: p_bar [B, C].
    L_amp = log(1 + |h - p_c|^2), L_ang = -log((1 + cos(h, p_c)) / 2); both are 0 where h = p_c.
    """
    distance = 0.0
    for part, h in samples.items():
        h, p = _full(h), _full(prototypes[part])
        amplitude = torch.log1p((h - p).square().sum(-1))                                             # (B, C)
        cosine = F.cosine_similarity(h, p.expand(len(h), *p.shape), dim=-1)                           # (B, C)
        distance = distance + amplitude - torch.log(((1 + cosine) / 2).clamp(min=1e-6))
    return (weights * distance).sum(-1)
