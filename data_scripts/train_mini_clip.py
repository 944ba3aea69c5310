"""Pre-train the mini CLIP: `python -m data_scripts.train_mini_clip`.

About two hours on two CPU cores, minutes on a GPU. Contrastive pre-training (Radford et al. 2021) on the
captioned scenes of `captions.Web`, with a class head as auxiliary task, patch dropout as in FLIP (Li et al.
2023), a constant learning rate that falls to zero over the last part, and an average of the weights.
Writes a checkpoint every few minutes and picks up from it when started again; a log goes to CSV. The result
is `minipsync/assets/mini_clip.safetensors`.
"""
from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES, get_tokenizer
from torch import nn
from tqdm import tqdm

from minipsync.clip.weights import MINI_PATH, new_model, save_mini
from minipsync.data.mini import Mini

from .captions import Web

CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 48, "layers": 5, "width": 192, "head_width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3},
    "quick_gelu": False,                              # the plain GELU is one fused kernel on a CPU
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "seed": 0,
}
MORE_LINES = 5400             # step from which a third of the colour drawings are turned into line art
FIXED = ("seed", "pairs", "lr", "patch_keep", "width", "layers")     # what a run may not change on its way
MONITORED = ("imagenet", "val", "v2", "sketch", "r")


class Student(nn.Module):
    """open_clip's CLIP with a compact token table (rows of used tokens only) and a class head for training.

    Its parameter and buffer names are the checkpoint's.
    """

    def __init__(self, config: dict, token_ids: list[int], n_classes: int, patch_keep: float):
        super().__init__()
        self.clip = new_model(config)
        table = self.clip.token_embedding.weight.data
        self.register_buffer("rows", torch.tensor(token_ids))
        compact = torch.zeros(len(table), dtype=torch.long)
        compact[self.rows] = torch.arange(len(token_ids))
        self.register_buffer("compact", compact)
        self.clip.token_embedding = nn.Embedding.from_pretrained(table[self.rows].clone(), freeze=False)
        self.head = nn.Linear(config["embed_dim"], n_classes)
        self.patch_keep = patch_keep

    def image(self, x: torch.Tensor, keep: float = 1.0) -> torch.Tensor:
        """Features [N, D] of normalised pictures [N, 3, S, S], from a random share `keep` of the patches."""
        v = self.clip.visual
        x = v.conv1(x).flatten(2).mT                                                   # [N, patches, width]
        x = x + v.positional_embedding[1:]
        if keep < 1:
            kept = torch.rand(x.shape[:2], device=x.device).argsort(1)[:, :round(keep * x.shape[1])]
            x = x.gather(1, kept[..., None].expand(-1, -1, x.shape[-1]))
        cls = (v.class_embedding + v.positional_embedding[0]).expand(len(x), 1, -1)
        x = v.transformer(v.ln_pre(torch.cat([cls, x], 1)))
        return v.ln_post(x[:, 0]) @ v.proj

    def text(self, tokens: torch.Tensor) -> torch.Tensor:
        """Features [N, D] of token ids [N, 77], computed up to the longest caption."""
        end = tokens.argmax(1)
        n = int(end.max()) + 1
        c = self.clip
        x = c.token_embedding(self.compact[tokens[:, :n]]) + c.positional_embedding[:n]
        x = c.ln_final(c.transformer(x, attn_mask=c.attn_mask[:n, :n]))
        return x[torch.arange(len(x)), end] @ c.text_projection

    def loss(self, pictures, tokens, labels):
        """Symmetric contrastive loss (equal captions share the target), and cross-entropy of the head.

        pictures [N, 3, S, S] normalised, tokens [N, 77], labels [N] -> two scalars.
        """
        image, text = self.image(pictures, self.patch_keep), self.text(tokens)
        logits = self.clip.logit_scale.exp() * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
        same = (tokens[:, None] == tokens[None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        contrastive = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return contrastive, F.cross_entropy(self.head(image), labels)


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by five Newton-Schulz steps (Jordan et al. 2024), at AdamW's step size.

    torch.optim.Muon does these steps in bfloat16, which a CPU without such units multiplies a hundred times
    slower than float32.
    """

    def __init__(self, params, lr: float, weight_decay: float, momentum: float):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for w in group["params"]:
                buffer = self.state[w].setdefault("momentum", torch.zeros_like(w))
                buffer.lerp_(w.grad, 1 - group["momentum"])
                x = w.grad.lerp(buffer, group["momentum"])                             # Nesterov
                x = x.mT if (tall := x.shape[0] > x.shape[1]) else x
                x = x / x.norm().clamp_min(1e-7)
                for _ in range(5):
                    a = x @ x.mT
                    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
                w.mul_(1 - group["lr"] * group["weight_decay"])
                w.add_(x.mT if tall else x, alpha=-0.2 * group["lr"] * max(w.shape) ** 0.5)


def learning_rate(step: int, total: int, peak: float, decay: float) -> float:
    """Linear warm-up over 150 steps, constant, then a 1 - sqrt fall over the last share `decay` of steps."""
    left = (total - step) / (decay * total)
    return peak * min(1.0, (step + 1) / 150) * (1.0 if left >= 1 else 1 - (1 - left) ** 0.5)


def monitor(student: Student, mini: Mini, tokenizer, size: int, mean, std) -> dict[str, float]:
    """Zero-shot accuracy (%), one template, on 400 scenes of each of MONITORED; nothing is chosen by it."""
    student.eval()
    out = {}
    with torch.no_grad():
        for name in MONITORED:
            data = mini.dataset(name)
            rows = np.linspace(0, len(data) - 1, 400).round().astype(int)
            pictures = [np.array(data[i][0].resize((size, size), 3)) for i in rows]
            x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
            image = student.image((x / 255 - mean) / std)
            text = student.text(tokenizer([f"a photo of a {c}." for c in data.class_names]))
            guess = (F.normalize(image, dim=1) @ F.normalize(text, dim=1).T).argmax(1).numpy()
            out[name] = round(100 * float((guess == data.labels[rows]).mean()), 1)
    student.train()
    return out


def arguments() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--drawings", type=Path, default=Path("build/drawings.npz"), help="written by make_mini")
    p.add_argument("--work", type=Path, default=Path("build/mini_clip"), help="checkpoint and log")
    p.add_argument("--out", type=Path, default=MINI_PATH)
    p.add_argument("--steps", type=int, default=7600)
    p.add_argument("--pairs", type=int, default=64, help="classes per batch, two pictures each")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--decay", type=float, default=0.15,
                   help="last share of the steps, over which the rate falls and all patches are seen")
    p.add_argument("--patch-keep", type=float, default=0.5, help="share of patches seen before the decay")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--width", type=int, default=CONFIG["vision_cfg"]["width"])
    p.add_argument("--layers", type=int, default=CONFIG["vision_cfg"]["layers"])
    return p.parse_args()


def make_optimisers(student: Student, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer blocks, AdamW for everything else."""
    def in_block(name, w):
        return w.ndim == 2 and ".resblocks." in name

    named = list(student.named_parameters())
    return [Muon([w for n, w in named if in_block(n, w)], lr=2 * lr, weight_decay=0.05, momentum=0.95),
            torch.optim.AdamW([w for n, w in named if not in_block(n, w)], lr=lr, betas=(0.9, 0.98),
                              eps=1e-6, weight_decay=0.01)]


@dataclass
class Run:
    """One pre-training run: what it learns on, what it learns, and its files in --work."""

    args: argparse.Namespace
    config: dict
    web: Web
    tokenizer: Callable
    student: Student
    average: torch.optim.swa_utils.AveragedModel
    optimisers: list[torch.optim.Optimizer]

    def __post_init__(self):
        self.size = self.config["vision_cfg"]["image_size"]
        self.mean, self.std = (torch.tensor(self.config[k])[:, None, None]              # [3, 1, 1]
                               for k in ("image_mean", "image_std"))
        self.checkpoint, self.log = self.args.work / "checkpoint.pt", self.args.work / "log.csv"

    def resume(self) -> int:
        """Read the checkpoint, if there is one; the step to go on from."""
        if not self.checkpoint.exists():
            return 0
        state = torch.load(self.checkpoint, map_location=self.args.device, weights_only=True)
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        for name, value in state["settings"].items():
            if value != getattr(self.args, name):
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self.args, name)}: {self.checkpoint} "
                                 f"was begun with {value}; say the same, or give another --work")
        print(f"goes on from step {state['step']} of {self.checkpoint}")
        return state["step"]

    def step(self, step: int, rate: float) -> tuple[float, float]:
        """One step on the batch and the random numbers that belong to `step`; its two losses."""
        args, student = self.args, self.student
        seed = args.seed * 1_000_003
        torch.manual_seed(seed + step)
        student.patch_keep = args.patch_keep if step < (1 - args.decay) * args.steps else 1.0
        for optimiser, factor in zip(self.optimisers, (2, 1), strict=True):
            optimiser.param_groups[0]["lr"] = factor * rate
        pictures, captions, labels = self.web.batch(
            np.random.RandomState(seed % 2**31 + step), args.pairs, self.size,
            hardness=1.1 * min(1.0, 0.25 + step / 3000), lines=0.18 if step < MORE_LINES else 0.34)
        batch = (pictures - self.mean) / self.std, self.tokenizer(captions), torch.from_numpy(labels)
        contrastive, auxiliary = student.loss(*(x.to(args.device) for x in batch))
        student.zero_grad(set_to_none=True)
        (contrastive + 0.5 * auxiliary).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            student.clip.logit_scale.clamp_(max=np.log(100))
        self.average.update_parameters(student)
        return float(contrastive.detach()), float(auxiliary.detach())

    def save(self, step: int) -> None:
        """Write the checkpoint after `step` steps; a crash meanwhile leaves the last one whole."""
        part = self.checkpoint.with_suffix(".part")
        torch.save({"student": self.student.state_dict(), "average": self.average.state_dict(), "step": step,
                    "settings": {name: getattr(self.args, name) for name in FIXED},
                    "optimisers": [o.state_dict() for o in self.optimisers]}, part)
        os.replace(part, self.checkpoint)

    def write_log(self, step: int, rate: float, losses, began: float, mini: Mini) -> None:
        """A row of log.csv: the mean of `losses`, and the zero-shot accuracy of the averaged weights."""
        averaged = self.average.module.to("cpu")
        scores = monitor(averaged, mini, self.tokenizer, self.size, self.mean, self.std)
        self.average.module.to(self.args.device)
        new = not self.log.exists()
        with self.log.open("a", newline="", encoding="utf-8") as f:
            writer = csv.writer(f)
            if new:
                writer.writerow(["step", "lr", "contrastive", "auxiliary", "scale", "seconds", *scores])
            scale = float(self.student.clip.logit_scale.detach().exp())
            writer.writerow([step, f"{rate:.2e}", *(f"{v:.3f}" for v in np.mean(losses, 0)), f"{scale:.1f}",
                             round(time.time() - began), *scores.values()])

    def export(self) -> None:
        """Write the averaged weights to --out, with the full token table in place of the compact one."""
        final, model = self.average.module.cpu(), new_model(self.config)
        table = model.token_embedding.weight.data
        table[final.rows] = final.clip.token_embedding.weight.data
        model.load_state_dict({**final.clip.state_dict(), "token_embedding.weight": table})
        save_mini(self.args.out, model, self.config, final.rows.tolist())
        print(f"{self.args.out}: {self.args.out.stat().st_size / 1e6:.1f} MB")


def start(args: argparse.Namespace, mini: Mini) -> Run:
    """A run at step 0: everything built in the order in which it draws random numbers."""
    torch.manual_seed(args.seed)
    vision = {**CONFIG["vision_cfg"], "width": args.width, "layers": args.layers}
    config = {**CONFIG, "seed": args.seed, "vision_cfg": vision}
    web = Web(args.drawings, favoured={c["name"] for c in mini.index["classes"]})
    tokenizer = get_tokenizer("ViT-B-16")
    used = {int(t) for t in tokenizer(web.words() + [t("") for t in OPENAI_IMAGENET_TEMPLATES]).unique()}
    student = Student(config, sorted(used), len(web.emoji), args.patch_keep).to(args.device).train()
    average = torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998))
    args.work.mkdir(parents=True, exist_ok=True)
    return Run(args, config, web, tokenizer, student, average, make_optimisers(student, args.lr))


def main() -> None:
    args, mini = arguments(), Mini()
    run = start(args, mini)
    first = run.resume()
    began, losses = time.time(), []
    for step in (bar := tqdm(range(first, args.steps), initial=first, total=args.steps, smoothing=0.05)):
        rate = learning_rate(step, args.steps, args.lr, args.decay)
        losses.append(run.step(step, rate))
        bar.set_postfix(loss=f"{losses[-1][0]:.2f}", aux=f"{losses[-1][1]:.2f}", refresh=False)
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            run.write_log(step + 1, rate, losses, began, mini)
            losses = []
            run.save(step + 1)
    run.export()


if __name__ == "__main__":
    main()
