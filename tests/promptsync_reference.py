"""PromptSync for one image, written as literally as possible: loops, one text or image at a time, float64.

Made from the equations (METHODS 5.9.2) and the choices (5.9.4), before the library's version was read; the
paper itself could not be read. A text or an image becomes a *sample* {"feature": ..., "text" or "vision" and
"cls": the prototypes of the sample}.
`s` is any object with the settings' names (PromptSyncConfig); `theta` is {official name: tensor}.
"""

import copy

import reference
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def unit(x):
    return x / x.pow(2).sum().sqrt()


def cosine(a, b):
    return unit(a) @ unit(b)


def maple_prompts(theta):
    """The prompts that MaPLe's tensors give: [depth, n, Wt] and [depth, n, Wv]."""
    text, vision = [theta["ctx"]], [theta["ctx"] @ theta["proj.weight"].T + theta["proj.bias"]]
    while f"compound_prompts_text.{len(text) - 1}" in theta:
        i = len(text) - 1
        p, name = theta[f"compound_prompts_text.{i}"], f"compound_prompt_projections.{i}"
        text.append(p)
        vision.append(p @ theta[f"{name}.weight"].T + theta[f"{name}.bias"])
    return torch.stack(text), torch.stack(vision)


class Model:
    """The CLIP in float64, and how theta becomes prompts. Texts have `length` tokens; pads change nothing."""

    def __init__(self, clip, tail="of a", prompts=maple_prompts, length=16):
        self.model, self.tail, self.prompts, self.length = copy.deepcopy(clip.model), tail, prompts, length
        self.model.double().requires_grad_(False)
        self.model.positional_embedding.data = self.model.positional_embedding.data[:length]
        self.model.attn_mask = self.model.attn_mask[:length, :length]
        self.scale = self.model.logit_scale.exp()

    def text(self, theta, name):
        prompts = self.prompts(theta)[0]
        ids, slots = reference.layout([name], prompts.shape[1], tail=self.tail, context_length=self.length)
        tokens = reference.text_tokens(self.model, ids, slots, prompts)[0]
        eot = ids[0].tolist().index(reference.EOT)
        return {"feature": unit(tokens[eot]), "text": unit(tokens[1:eot].mean(dim=0))}

    def image(self, theta, image):
        tokens, _ = reference.image_tokens(self.model.visual, image[None].double(), self.prompts(theta)[1])
        cls = unit(tokens[0, 0])
        return {"feature": cls, "vision": unit(tokens[0, 1:].mean(dim=0)), "cls": cls}

    def probabilities(self, image, texts):
        """softmax of scale * cosine over the texts."""
        return torch.stack([self.scale * (image["feature"] @ t["feature"]) for t in texts]).softmax(dim=0)


def prototypes(model, theta, images, texts):
    """p_c = mean over the samples of class c. images[c], texts[c]: lists -> [{part: [D]}] per class."""
    result = []
    with torch.no_grad():
        for of_class, names in zip(images, texts, strict=True):
            seen = [model.image(theta, x) for x in of_class]
            read = [model.text(theta, name) for name in names]
            result.append({"text": sum(r["text"] for r in read) / len(read),
                           "vision": sum(x["vision"] for x in seen) / len(seen),
                           "cls": sum(x["cls"] for x in seen) / len(seen)})
    return result


def discrimination(model, theta, batch, p, s):
    """L_D. batch: [(class, its augmented images, its texts)]; p: prototypes of all source classes."""
    tau = s.tau or 1 / model.scale

    def e(a, b):
        return torch.exp(cosine(a, b) / tau)

    def samples(part, row):
        _, images, texts = row
        return [model.text(theta, t)[part] for t in texts] if part == "text" else \
            [model.image(theta, x)[part] for x in images]

    drawn = {(m, row[0]): samples(m, row) for m in s.parts for row in batch}
    loss = 0.0
    for k, _, _ in batch:
        positive, negative = 0.0, 0.0
        for m in s.parts:
            own = drawn[m, k]
            for a in own:
                positive = positive + e(a, p[k][m]) / len(own)
            for j, _, _ in batch:
                if j == k:
                    continue
                negative = negative + e(p[k][m], p[j][m])
                for a in own:
                    negative = negative + e(a, p[j][m]) / len(own)
                for b in drawn[m, j]:
                    negative = negative + e(p[k][m], b) / len(drawn[m, j])
        loss = loss - torch.log(positive / negative) / len(batch)
    return loss


def entropy(p):
    return -sum(x * x.log() for x in p)


def mean(vectors):
    return sum(vectors) / len(vectors)


def view_losses(model, theta, views, target_names, source_names, p, s):
    """(L_ent, L_A, F, weights of the source classes) of the views of one image."""
    seen = [model.image(theta, v) for v in views]
    target = [model.text(theta, name) for name in target_names]
    source = [model.text(theta, name) for name in source_names]
    probabilities = [model.probabilities(x, target) for x in seen]
    order = sorted(range(len(seen)), key=lambda i: entropy(probabilities[i]).item())
    kept = order[: max(1, int(len(seen) * s.selection))]
    l_ent = entropy(mean([probabilities[i] for i in kept]))

    weights = [torch.zeros((), dtype=torch.float64) for _ in source]
    counted = sorted({0, *kept}) if s.p_bar_of == "views and image" else kept
    if s.outside == "source":
        weights = list(mean([model.probabilities(seen[i], source) for i in counted]))
    else:
        for t, weight in zip(target, mean([probabilities[i] for i in counted]), strict=True):
            likeness = [(t["feature"] @ x["feature"]).item() for x in source]
            nearest = likeness.index(max(likeness))
            weights[nearest] = weights[nearest] + weight
    if s.weights == "top1":
        best = max(range(len(source)), key=lambda c: weights[c].item())
        weights = [w if c == best else 0 * w for c, w in enumerate(weights)]
    if not s.weights_gradient:
        weights = [w.detach() for w in weights]

    l_a = 0.0
    for c in range(len(source)):
        for m in s.parts:
            if m == "text":
                h = source[c]["text"]
            elif s.prototype_of == "image":
                h = seen[0][m]
            else:
                h = mean([seen[i][m] for i in kept])
            l_amp = torch.log(1 + (h - p[c][m]).pow(2).sum())
            l_ang = -torch.log((1 + cosine(h, p[c][m])) / 2)
            l_a = l_a + weights[c] * (l_amp + l_ang)
    return l_ent, l_a, kept, torch.stack(weights)


def gradient(loss, theta, tuned, graph=False):
    """{name: gradient}; zeros where the loss does not depend on theta."""
    grads = torch.autograd.grad(loss, [theta[n] for n in tuned], create_graph=graph, allow_unused=True)
    return {n: torch.zeros_like(theta[n]) if g is None else g for n, g in zip(tuned, grads, strict=True)}


def one_step(model, theta, tuned, views, batch, target_names, source_names, p, s):
    """Meta-train, meta-test, and the averaged gradient g; also theta'."""
    zero = {n: torch.zeros_like(theta[n]) for n in tuned}
    g_d = zero
    if s.discrimination:
        g_d = gradient(discrimination(model, theta, batch, p, s), theta, tuned, graph=s.second_order)
    moved = dict(theta)
    for n in tuned:
        moved[n] = theta[n] - s.alpha * g_d[n]
        if not s.second_order:
            moved[n] = moved[n].detach().requires_grad_()
    l_ent, l_a, *_ = view_losses(model, moved, views, target_names, source_names, p, s)
    loss = 0.0
    if s.entropy:
        loss = loss + l_ent
    if s.alignment:
        loss = loss + s.lambda_a * l_a
    g_a = zero
    if s.entropy or s.alignment:
        g_a = gradient(loss, theta if s.second_order else moved, tuned)
    return {n: ((s.lambda_d * g_d[n] + g_a[n]) / 2).detach() for n in tuned}, moved


def is_prompt(name):
    return not name.endswith((".weight", ".bias"))


def mean_gradient(model, theta_0, views, batches, target_names, source_names, p, s):
    """The mean g of n steps by name; batches: the source batch of each step (None where L_D is off)."""
    start = {n: t.detach().double().clone() for n, t in theta_0.items()}
    tuned = [n for n in start if s.tune == "all" or is_prompt(n)]
    total = {n: torch.zeros_like(start[n]) for n in tuned}
    theta = {n: t.clone().requires_grad_() for n, t in start.items()}
    for batch in batches:
        with sdpa_kernel(SDPBackend.MATH):                             # the others have no second derivative
            g, _ = one_step(model, theta, tuned, views, batch, target_names, source_names, p, s)
        for n in tuned:
            total[n] += g[n] / s.steps
        if s.advance:
            theta = {n: (t - s.alpha * g[n] if n in g else t).detach().requires_grad_()
                     for n, t in theta.items()}
    return total


def update(theta_0, g, s):
    """theta after one optimiser update with gradients g."""
    tuned = {n: t.detach().double().clone() for n, t in theta_0.items()}
    for n in g:
        tuned[n].grad = g[n].double()
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[s.optimizer]
    kind([tuned[n] for n in g], lr=s.lr, weight_decay=s.weight_decay).step()
    return tuned


def predict(model, theta, image, target_names):
    """Logits [C] of the image itself."""
    seen = model.image(theta, image)
    return torch.stack([model.scale * (seen["feature"] @ model.text(theta, name)["feature"])
                        for name in target_names])
