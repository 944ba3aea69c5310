"""Every objective against the equations of the papers as loops over plain numbers (METHODS 5.6 to 5.9)."""

import math

import pytest
import torch
from rounding import U, largest
from torch.autograd import gradcheck

from minipsync.methods.promptalign import moment_alignment, view_moments
from minipsync.methods.promptsync import discrimination, prototype_alignment
from minipsync.methods.tpt import (
    marginal_entropy,
    mean_log_probability,
    select_confident,
    take_views,
    view_entropy,
)

PARTS = ("text", "vision", "cls")
B, V, C, K, A, D = 2, 5, 4, 3, 4, 6


def draw(*shape, seed=0, grad=False, dtype=torch.float64):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).requires_grad_(grad)


def close(ours, literal, tolerance=1e-12):
    """Same shape and numbers as the nested list `literal`. Both are float64: 1e-12 is 10,000 roundings."""
    torch.testing.assert_close(ours.detach().double(), torch.tensor(literal, dtype=torch.float64),
                               rtol=tolerance, atol=tolerance)


# ---- the equations, literally ----
def softmax(row):
    e = [math.exp(x - max(row)) for x in row]
    return [x / sum(e) for x in e]


def entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


def mean_prediction(logits):
    """logits V x C -> p_bar of length C."""
    views = [softmax(row) for row in logits]
    return [sum(p[c] for p in views) / len(views) for c in range(len(views[0]))]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def cos(a, b):
    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def mass(samples, weights, prototype, tau):
    return sum(w * math.exp(cos(x, prototype) / tau) for x, w in zip(samples, weights, strict=True))


def literal_discrimination(h, p, w, tau):
    """L_D of one episode. h[part][k][a], p[part][k]: vectors; w[part][k][a]: weights."""
    total, classes = 0.0, range(len(next(iter(p.values()))))
    for k in classes:
        positive = negative = 0.0
        for m in h:
            positive += mass(h[m][k], w[m][k], p[m][k], tau)
            for j in classes:
                if j != k:
                    negative += math.exp(cos(p[m][k], p[m][j]) / tau)
                    negative += mass(h[m][k], w[m][k], p[m][j], tau)
                    negative += mass(h[m][j], w[m][j], p[m][k], tau)
        total += math.log(positive / negative)
    return -total / len(classes)


def literal_alignment(h, p, p_bar):
    """L_A of one episode. h[part][0 or c], p[part][c]: vectors; p_bar[c]."""
    total = 0.0
    for c, weight in enumerate(p_bar):
        for m in h:
            x = h[m][c] if len(h[m]) > 1 else h[m][0]
            distance = sum((a - b) ** 2 for a, b in zip(x, p[m][c], strict=True))
            total += weight * (math.log(1 + distance) - math.log((1 + cos(x, p[m][c])) / 2))
    return total


def source_batch(seed=0, grad=False, dtype=torch.float64, tokens=A):
    """Samples, prototypes and uneven weights of three parts, as `discrimination` takes them."""
    samples = {m: draw(B, K, tokens, D, seed=seed + i, grad=grad, dtype=dtype) for i, m in enumerate(PARTS)}
    prototypes = {m: draw(B, K, D, seed=seed + 10 + i, dtype=dtype) for i, m in enumerate(PARTS)}
    weights = {m: draw(B, K, tokens, seed=seed + 20 + i).softmax(-1).to(dtype) for i, m in enumerate(PARTS)}
    return samples, prototypes, weights


def test_image(seed=0, grad=False, dtype=torch.float64):
    """Samples (text: one per class), prototypes and p_bar, as `prototype_alignment` takes them."""
    samples = {m: draw(B, C if m == "text" else 1, D, seed=seed + i, grad=grad, dtype=dtype)
               for i, m in enumerate(PARTS)}
    prototypes = {m: draw(C, D, seed=seed + 10 + i, dtype=dtype) for i, m in enumerate(PARTS)}
    return samples, prototypes, draw(B, C, seed=seed + 20).softmax(-1).to(dtype)


test_image.__test__ = False


# ---- entropy ----
def test_entropies_are_the_equations():
    logits = draw(B, V, C) * 3
    rows = logits.tolist()
    close(view_entropy(logits), [[entropy(softmax(v)) for v in views] for views in rows])
    close(mean_log_probability(logits), [[math.log(x) for x in mean_prediction(views)] for views in rows])
    close(marginal_entropy(logits), [entropy(mean_prediction(views)) for views in rows])


def test_entropy_knows_its_ends():
    uniform, sure = torch.zeros(1, V, C), torch.zeros(1, V, C).index_fill(-1, torch.tensor([1]), 1000.0)
    few = 16 * U                               # float32; logits whose differences are exact, numbers below 4
    close(marginal_entropy(uniform), [math.log(C)], few)
    close(marginal_entropy(sure), [0.0], few)
    disagree = torch.eye(2)[None] * 1000                       # two sure views of different classes
    close(marginal_entropy(disagree), [math.log(2)], few)
    close(view_entropy(disagree), [[0.0, 0.0]], few)


def test_entropy_gradient():
    assert gradcheck(marginal_entropy, draw(B, V, C, grad=True))
    assert gradcheck(view_entropy, draw(B, V, C, grad=True))


def test_entropy_invariances():
    logits = draw(B, V, C)
    h, views, classes = marginal_entropy(logits), [3, 0, 4, 1, 2], [2, 0, 3, 1]
    for same in (logits[:, views], logits[..., classes], logits.repeat(1, 3, 1), logits + 7):
        torch.testing.assert_close(marginal_entropy(same), h)
    torch.testing.assert_close(marginal_entropy(logits.flip(0)), h.flip(0))
    assert (h >= view_entropy(logits).mean(-1)).all()                        # the entropy is concave


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_entropy_of_extreme_logits(scale):
    logits = (draw(B, V, C, dtype=torch.float32) * scale).requires_grad_()
    h = marginal_entropy(logits)
    h.sum().backward()
    # log p <= 0 for each view, as a sum of exponentials is no less than its largest term. What the mean over
    # the views rounds are numbers up to log V.
    assert h.isfinite().all() and (h >= -16 * U).all() and logits.grad.isfinite().all()
    assert view_entropy(logits).isfinite().all()
    if scale < 1e30:
        # log p is off by U times the largest logit, when the sum is taken and when it is subtracted, and the
        # entropy by (1 + H) times as much
        error = 2 * U * logits.abs().max().item() * (1 + math.log(C))
        close(h, [entropy(mean_prediction(v)) for v in logits.tolist()], error)


@pytest.mark.parametrize("lowest", [-torch.inf, -3e38])
def test_an_impossible_class_counts_nothing(lowest):
    logits = torch.cat([draw(B, V, C), torch.full((B, V, 1), lowest)], -1).float().requires_grad_()
    h = marginal_entropy(logits)
    assert largest(h, marginal_entropy(logits[..., :C])) < 64 * U       # some 20 operations, numbers below 4
    assert largest(view_entropy(logits), view_entropy(logits[..., :C])) < 64 * U
    (gradient,) = torch.autograd.grad(h.sum(), logits)
    assert gradient.isfinite().all() and not gradient[..., C].any()


def test_a_step_down_the_entropy_makes_the_mean_prediction_surer():
    logits = draw(B, V, C, grad=True)
    h = marginal_entropy(logits)
    (gradient,) = torch.autograd.grad(h.sum(), logits)
    moved = logits - 0.1 * gradient
    assert (marginal_entropy(moved) < h).all()
    top = mean_log_probability(logits).argmax(-1, keepdim=True)
    assert (mean_log_probability(moved).gather(-1, top) > mean_log_probability(logits).gather(-1, top)).all()


# ---- selection ----
def test_selection_is_ascending_entropy():
    logits = draw(B, 20, C) * 3
    h = [[entropy(softmax(v)) for v in views] for views in logits.tolist()]
    order = [sorted(range(20), key=row.__getitem__) for row in h]
    for fraction, k in ((0.1, 2), (0.3, 6), (0.01, 1), (0.99, 19), (1.0, 20)):
        assert select_confident(logits, fraction).tolist() == [row[:k] for row in order]


def test_selection_counts():
    """int(V * fraction) as TPT counts, also where binary fractions fall just short; at least one."""
    for n, fraction, k in ((64, 0.1, 6), (128, 0.1, 12), (100, 0.29, 29), (3, 0.1, 1), (1, 1.0, 1)):
        assert select_confident(draw(1, n, C), fraction).shape == (1, k)


def test_ties_keep_the_order_of_the_views():
    assert select_confident(torch.ones(1, 30, C), 0.5).tolist() == [list(range(15))]


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5])
def test_bad_fraction(fraction):
    with pytest.raises(ValueError, match=rf"fraction={fraction}.*\(0, 1\]"):
        select_confident(draw(1, 4, C), fraction)


def test_take_views():
    x, index = draw(B, V, 2, 3), torch.tensor([[4, 0], [1, 1]])
    taken = take_views(x, index)
    assert taken.tolist() == [[x[b, v].tolist() for v in index[b]] for b in range(B)]


# ---- PromptAlign ----
def token_batch(grad=False, dtype=torch.float64):
    tokens = [draw(B, V, 3, D, seed=s, grad=grad, dtype=dtype) for s in range(2)]
    means = [draw(3, D, seed=5 + s, dtype=dtype) for s in range(2)]
    return tokens, means, [draw(3, D, seed=7 + s, dtype=dtype).abs() for s in range(2)]


def test_moment_alignment_is_the_released_code():
    tokens, means, variances = token_batch()
    want = [0.0] * B
    for layer in range(2):
        for b in range(B):
            for t in range(3):
                for d in range(D):
                    x = [float(tokens[layer][b, v, t, d]) for v in range(V)]
                    mean = sum(x) / V
                    variance = sum((a - mean) ** 2 for a in x) / V                        # biased
                    want[b] += 0.5 * abs(mean - float(means[layer][t, d])) / (3 * D)
                    want[b] += 0.5 * abs(variance - float(variances[layer][t, d])) / (3 * D)
    close(moment_alignment(tokens, means, variances), want)


def test_moment_alignment_gradient():
    _, means, variances = token_batch()
    assert gradcheck(lambda *x: moment_alignment(x, means, variances), token_batch(grad=True)[0])


def test_moment_alignment_invariances():
    tokens, means, variances = token_batch()
    loss = moment_alignment(tokens, means, variances)
    for change in (lambda x: x[:, [3, 0, 4, 1, 2]], lambda x: x.repeat(1, 2, 1, 1)):
        torch.testing.assert_close(moment_alignment([change(x) for x in tokens], means, variances), loss)
    own = [view_moments(x[:1]) for x in tokens]
    close(moment_alignment([x[:1] for x in tokens], [m[0] for m, _ in own], [v[0] for _, v in own]), [0.0])


def test_moment_alignment_wants_one_statistic_per_layer():
    tokens, means, variances = token_batch()
    with pytest.raises(ValueError):
        moment_alignment(tokens, means[:1], variances)


def test_a_step_down_the_moment_alignment_nears_the_source():
    tokens, means, variances = token_batch(grad=True)
    gradients = torch.autograd.grad(moment_alignment(tokens, means, variances).sum(), tokens)
    moved = [x - 0.1 * g for x, g in zip(tokens, gradients, strict=True)]
    for before, after, mean, variance in zip(tokens, moved, means, variances, strict=True):
        for ours, ours_moved, source in zip(view_moments(before), view_moments(after), (mean, variance),
                                            strict=True):
            assert ((ours_moved - source).abs().mean((-2, -1)) < (ours - source).abs().mean((-2, -1))).all()


# ---- PromptSync: discrimination ----
@pytest.mark.parametrize("parts", [PARTS, ("text",), ("vision", "cls")])
@pytest.mark.parametrize("scale", [1.0, 12.5])
def test_discrimination_is_the_equation(parts, scale):
    h, p, w = ({m: x[m] for m in parts} for x in source_batch())
    want = [literal_discrimination(*({m: x[b].tolist() for m, x in part.items()} for part in (h, p, w)),
                                   tau=1 / scale) for b in range(B)]
    close(discrimination(h, p, w, scale), want)


def test_discrimination_with_even_weights():
    h, p, _ = source_batch()
    even = {m: torch.full((B, K, A), 1 / A, dtype=torch.float64) for m in PARTS}
    torch.testing.assert_close(discrimination(h, p), discrimination(h, p, even))


def test_discrimination_gradient():
    _, p, w = source_batch()
    h = tuple(source_batch(grad=True)[0].values())
    assert gradcheck(lambda *x: discrimination(dict(zip(PARTS, x, strict=True)), p, w, 5.0), h)


@pytest.mark.parametrize("filler", [0.0, 1.0])
def test_padding_is_no_sample(filler):
    """Weight 0 equals fewer samples, in value and in gradient, whatever stands there."""
    h, p, _ = source_batch(grad=True)
    padding = torch.full((B, K, 2, D), filler, dtype=torch.float64)
    w = {m: torch.tensor([1, 1, 1, 1, 0, 0], dtype=torch.float64).expand(B, K, A + 2) / A for m in PARTS}
    padded = discrimination({m: torch.cat([x, padding], 2) for m, x in h.items()}, p, w)
    plain = discrimination(h, p)
    torch.testing.assert_close(padded, plain)
    for ours, want in zip(torch.autograd.grad(padded.sum(), list(h.values())),
                          torch.autograd.grad(plain.sum(), list(h.values())), strict=True):
        torch.testing.assert_close(ours, want)


def test_discrimination_invariances():
    h, p, w = source_batch()
    loss = discrimination(h, p, w)
    classes, order = [2, 0, 1], [1, 3, 0, 2]
    for change in (lambda x: x[:, classes], lambda x: x[:, :, order] if x.shape[2] == A else x):
        changed = [{m: change(x) for m, x in part.items()} for part in (h, p, w)]
        torch.testing.assert_close(discrimination(*changed), loss)
    longer = {m: 3 * x for m, x in h.items()}, {m: 5 * x for m, x in p.items()}
    torch.testing.assert_close(discrimination(*longer, w), loss)                        # s is the cosine
    alone = discrimination(*({m: x[1:] for m, x in part.items()} for part in (h, p, w)))
    torch.testing.assert_close(alone, loss[1:])                                   # one episode = one loss


@pytest.mark.parametrize("scale", [100.0, 1e4])
def test_discrimination_of_extreme_scales(scale):
    h, p, w = source_batch(dtype=torch.float32, grad=True)
    loss = discrimination(h, p, w, scale)
    assert loss.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss.sum(), list(h.values())))


def test_one_class_has_no_negatives():
    h, p, w = ({m: x[:, :1] for m, x in part.items()} for part in source_batch())
    with pytest.raises(ValueError, match="1 class.*classes_per_step"):
        discrimination(h, p, w)


@pytest.mark.parametrize("part", PARTS)
def test_a_step_down_the_discrimination_parts_the_classes(part):
    """Each sample comes nearer its own prototype, or further from the others, on average over the samples."""
    h, p, w = ({part: x[part]} for x in source_batch(grad=True))
    loss = discrimination(h, p, w, 1.0)
    (gradient,) = torch.autograd.grad(loss.sum(), h[part])
    moved = {part: h[part] - 0.1 * gradient}
    assert (discrimination(moved, p, w, 1.0) < loss).all()

    def similarities(x):
        """(own [B], others [B]): mean cosine to the own prototype and to the others."""
        s = torch.cosine_similarity(x[:, :, :, None], p[part][:, None, None], dim=-1)          # (B, K, A, K)
        same = torch.eye(K, dtype=torch.bool)[:, None].expand(K, A, K)
        return s[:, same].mean(-1), s[:, ~same].mean(-1)

    own, others = similarities(h[part])
    own_moved, others_moved = similarities(moved[part])
    assert (own_moved > own).all() and (others_moved < others).all()


# ---- PromptSync: alignment ----
@pytest.mark.parametrize("parts", [PARTS, ("text",), ("vision", "cls")])
def test_prototype_alignment_is_the_equation(parts):
    samples, p, p_bar = test_image()
    samples = {m: samples[m] for m in parts}
    want = [literal_alignment({m: samples[m][b].tolist() for m in parts}, {m: p[m].tolist() for m in parts},
                              p_bar[b].tolist()) for b in range(B)]
    close(prototype_alignment(samples, p, p_bar), want)


def test_prototype_alignment_gradient():
    _, p, p_bar = test_image()
    samples = test_image(grad=True)[0]
    assert gradcheck(lambda *x: prototype_alignment(dict(zip(PARTS, x, strict=True)), p, p_bar),
                     tuple(samples.values()))


def test_prototype_alignment_is_zero_at_the_prototype():
    _, p, p_bar = test_image()
    at_home = {"text": p["text"].expand(B, C, D), "vision": p["vision"][None, 2:3].expand(B, 1, D)}
    sure = torch.eye(C, dtype=torch.float64)[[2, 2]]
    close(prototype_alignment(at_home, p, sure), [0.0, 0.0])
    assert (prototype_alignment(at_home, p, p_bar) > 0).all()


def test_prototype_alignment_invariances():
    samples, p, p_bar = test_image()
    loss, order = prototype_alignment(samples, p, p_bar), torch.tensor([2, 0, 3, 1])
    moved, home = samples | {"text": samples["text"][:, order]}, {m: x[order] for m, x in p.items()}
    torch.testing.assert_close(prototype_alignment(moved, home, p_bar[:, order]), loss)
    per_class = {m: x.expand(B, C, D) for m, x in samples.items()}
    torch.testing.assert_close(prototype_alignment(per_class, p, p_bar), loss)
    alone = prototype_alignment({m: x[1:] for m, x in samples.items()}, p, p_bar[1:])
    torch.testing.assert_close(alone, loss[1:])                                   # one episode = one loss


@pytest.mark.parametrize("length", [-1e4, -1.0, 0.0, 1e4])
def test_prototype_alignment_is_finite(length):
    """Also where h = -p (log 0) and where h is the zero vector (no angle)."""
    p, p_bar = {"cls": torch.eye(C)}, torch.full((B, C), 1 / C)
    h = {"cls": (length * torch.eye(C)[:B, None]).requires_grad_()}                               # (B, 1, C)
    loss = prototype_alignment(h, p, p_bar)
    loss.sum().backward()
    assert loss.isfinite().all() and h["cls"].grad.isfinite().all()


def test_a_step_down_the_alignment_nears_the_likely_class():
    samples, p, _ = test_image(grad=True)
    p_bar = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.01, 0.01, 0.97, 0.01]], dtype=torch.float64)
    likely = p_bar.argmax(-1)
    loss = prototype_alignment(samples, p, p_bar)
    for part, gradient in zip(PARTS, torch.autograd.grad(loss.sum(), list(samples.values())), strict=True):
        index = likely if part == "text" else torch.zeros(B, dtype=torch.long)
        before = samples[part][torch.arange(B), index]                                               # (B, D)
        after = before - 0.1 * gradient[torch.arange(B), index]
        home = p[part][likely]
        assert ((after - home).norm(dim=-1) < (before - home).norm(dim=-1)).all()
        assert (torch.cosine_similarity(after, home) > torch.cosine_similarity(before, home)).all()


# ---- precision ----
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(half):
    def cast(x, dtype):
        if isinstance(x, dict):
            return {m: v.to(half).to(dtype) for m, v in x.items()}
        return [v.to(half).to(dtype) for v in x] if isinstance(x, list) else x.to(half).to(dtype)

    cases = {marginal_entropy: (draw(B, V, C),), view_entropy: (draw(B, V, C),),
             moment_alignment: token_batch(), discrimination: source_batch(),
             prototype_alignment: test_image()}
    for loss, inputs in cases.items():
        low = loss(*(cast(x, half) for x in inputs))
        assert low.dtype == torch.float32, loss
        assert torch.equal(low, loss(*(cast(x, torch.float32) for x in inputs))), loss      # the same numbers
