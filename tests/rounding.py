"""What float32 may do to a result: where the bounds in these tests come from.

1. One operation. float32 rounds every result by at most U = 2^-24 of it.
2. One sum of n products. In whatever order a processor adds them up, and however many threads share the work,
   it is the exact sum of products that are off by at most n U each. That takes n errors of one sign; rounding
   errors are as good as independent, and then sqrt(n) U holds (Higham and Mary 2019).
3. One network. So each layer gives exactly what weights off by sqrt(n) U would give, and the whole network
   what one with such weights gives. How much that is of the result is decided by its *condition*: relative
   change of the result per relative change of the weights. Nobody has to guess it: `condition` and `moves`
   measure, and test_rounding.py holds FEATURES and GRADIENTS to every CLIP of these tests. Real processors
   add in blocks and stay ten times and more below these bounds; mistakes are a thousand times above.
4. One choice. What is largest, which views are most confident, the sign of a gradient: there rounding moves
   nothing or everything. Such a case has a margin that is asserted (`assert_apart`), or what is compared is
   what depends smoothly on the input (`GradientDescent`).

Two results are the same bit for bit (torch.equal) if the same operations ran on tensors of the same shapes in
one process: not those of an image alone and of the same image in a batch, where other kernels add in another
order. Two float32 results are apart by both their errors, hence a factor 2 where neither is the exact one.
pytest.approx and assert_close without a tolerance (1e-6 and 1e-7) are for float64: room for 1e8 roundings.
"""

import copy

import torch

U = 2.0**-24            # unit roundoff of float32
FEATURES = 6.0          # condition of features and tokens of the CLIPs here: measured 1.3 to 4.9
GRADIENTS = 16.0        # of the gradient of a sum of features for the prompts: measured 4.1 to 13.6


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """||a - b|| / ||b||."""
    a, b = torch.as_tensor(a).detach().double(), torch.as_tensor(b).detach().double()
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a - b).norm() / b.norm())


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    """max |a - b|."""
    a, b = torch.as_tensor(a).detach().double(), torch.as_tensor(b).detach().double()
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a - b).abs().max())


def sums(n: int, u: float = U) -> float:
    """Relative change of n weights that stands for the rounding of a sum of n products."""
    return u * n**0.5


def longest_sum(model: torch.nn.Module) -> int:
    """The most products that a layer of a CLIP adds up: those of the wide layer of a block, or of a patch."""
    weights = [p for name, p in model.named_parameters() if p.ndim >= 2 and "token_embedding" not in name]
    return max(p[0].numel() if p.ndim == 4 else max(p.shape[-2:]) for p in weights)


def features(clip) -> float:
    """Relative error of float32 features, tokens and inputs of blocks."""
    return FEATURES * sums(longest_sum(clip.model))


def gradients(clip) -> float:
    """Relative error of the float32 gradient of a plain sum of features."""
    return GRADIENTS * sums(longest_sum(clip.model))


def logits(clip) -> float:
    """Absolute error of float32 logits: both unit vectors are off by `features`, times the temperature."""
    return 2 * float(clip.logit_scale) * features(clip)


def half(dtype: torch.dtype, condition: float = FEATURES) -> float:
    """Relative error where encoders run in half precision. Sums are kept in float32, so a product is off by
    the rounding of its two factors and of the result, sqrt(3) u, however many there are."""
    return condition * sums(3, torch.finfo(dtype).eps / 2)


def resampling(side: int) -> float:
    """Absolute error of a pixel in [0, 1] of an image of `side` pixels that was resized. Coordinates of up to
    `side` are off by a few U of it; the steepest kernel (bicubic) has slopes below 1.3 and spans 4 pixels."""
    return 4 * U * side * 1.3 * 4


def perturbed(model: torch.nn.Module, size: float, seed: int = 0) -> torch.nn.Module:
    """A copy whose weights are each off by `size` times a normal random number, but for the table of words:
    they are looked up, which rounds nothing."""
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    other, generator = copy.deepcopy(model, {id(m): m for m in tables}), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in other.named_parameters():
            if "token_embedding" not in name:
                p *= 1 + size * torch.randn(p.shape, generator=generator).to(p)
    return other


def with_perturbed_weights(clip, size: float, seed: int = 0):
    """The `Clip` of a `perturbed` model."""
    other = copy.copy(clip)
    other._modules = dict(clip._modules) | {"model": perturbed(clip.model, size, seed)}
    return other


def condition(result, clip, size: float = 1e-4) -> float:
    """Relative change of result(clip) per relative change of the weights. float32 can measure it: `size` is
    far above rounding errors, and far below what would bend the function."""
    return relative(result(with_perturbed_weights(clip, size)), result(clip)) / size


def moves(result, clip, size: float = 1e-5) -> float:
    """Absolute error of the entries of float32 result(clip): three times the largest change that weights off
    by sqrt(n) U make in two draws (measured at `size` and scaled down, as in `condition`).

    AssertionError if they move far, as where a choice is another one: that is a tie, and no bound."""
    want = result(clip)
    change = max(largest(result(with_perturbed_weights(clip, size, seed)), want) for seed in range(2))
    assert change < 0.01 * want.abs().max(), f"a tie, or ill-conditioned: entries move by {change:.1e}"
    return 3 * change * sums(longest_sum(clip.model)) / size


def assert_agrees(ours, exact, apart, what=""):
    """float32 `ours` is the `exact` float64 result up to rounding, as entries taken together (norms).

    apart: the float64 result of weights `perturbed` by 10 sqrt(n) U. How far it is from `exact` is 10 times
    what rounding may do; 4 tenths are allowed, as one draw may be smaller than another. And it is near: no
    choice (which views, which class is first, ...) was another one, though all moved as far."""
    ours, exact, apart = (torch.as_tensor(x).detach().double() for x in (ours, exact, apart))
    assert ours.shape == exact.shape == apart.shape
    change = (apart - exact).norm()
    assert change < 0.01 * exact.norm(), f"{what}: a tie, or ill-conditioned: {change / exact.norm():.1e}"
    assert (ours - exact).norm() < 0.4 * change, f"{what}: {(ours - exact).norm() / (0.4 * change):.2f} of 1"


def assert_apart(values, k: int, error: float, times: float = 10.0):
    """The k smallest of `values`, their order and the next one stay what they are if each is off by `error`,
    with room to spare: every two neighbours are more than `times` the error apart."""
    values = torch.as_tensor(values).detach().double().sort(dim=-1).values[..., :k + 1]
    gaps = values.diff(dim=-1)
    assert gaps.min() > times * error, f"a tie: neighbours are {gaps.min():.1e} apart, errors are {error:.1e}"


class GradientDescent(torch.optim.SGD):
    """Takes the place of AdamW in tests of what must not depend on batch, order or machine.

    AdamW's first step is lr * g / |g|: where a gradient is as good as 0, the sign of its rounding error is
    worth a step of full length. Plain descent with a like change of the result depends on g smoothly."""

    faster = 10

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, lr=self.faster * lr, weight_decay=weight_decay)
