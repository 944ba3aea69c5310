"""Pre-train the mini CLIP: `python -m data_scripts.train_mini_clip`.

Contrastive pre-training (Radford et al. 2021) on the captioned scenes of `captions.Web`: AdamW, a cosine,
half of the patches (FLIP, Li et al. 2023) until the last part, an average of the weights. The logit scale is
on a schedule up to SCALE, as learned from batches of 128 pictures it stays at 27; the file has FINAL_SCALE.
At the end the weights are rescaled (`rescaled`), which leaves the function as it is and brings embeddings
and prompts to the size they have in the released CLIPs. The model card says which weights the shipped file
was continued from (--start). Writes a checkpoint every few minutes and picks up from it when started again; a
log goes to CSV. The result is `minipsync/assets/mini_clip.safetensors`.
"""
from __future__ import annotations

import argparse
import copy
import csv
import math
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

from minipsync.clip.weights import MINI_PATH, load_clip, new_model, save_mini
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
SCALE, RISE = 60.0, 0.4       # the logit scale at the end of its schedule, over this first share of the steps
SMOOTHING = 0.05              # of the targets over the last steps, which makes the model less sure …
FINAL_SCALE = 90.0            # … so that this scale fits better: on `val` 70 would be best, on the source 100
TEXT_FACTOR, VISION_FACTOR = 0.04, 0.12           # of `rescaled`
FIXED = ("seed", "pairs", "lr", "patch_keep", "steps")               # what a run may not change on its way
MONITORED = ("imagenet", "val")


class Student(nn.Module):
    """An open_clip CLIP with a compact token table (rows of used tokens only) for training.

    Its parameter and buffer names are the checkpoint's.
    """

    def __init__(self, clip: nn.Module, token_ids: list[int], patch_keep: float):
        super().__init__()
        self.clip = clip
        table = self.clip.token_embedding.weight.data
        self.register_buffer("rows", torch.tensor(token_ids))
        compact = torch.zeros(len(table), dtype=torch.long)
        compact[self.rows] = torch.arange(len(token_ids))
        self.register_buffer("compact", compact)
        self.clip.token_embedding = nn.Embedding.from_pretrained(table[self.rows].clone(), freeze=False)
        self.patch_keep, self.smoothing = patch_keep, 0.0

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

    def loss(self, pictures: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Symmetric contrastive loss; equal captions share the target.

        pictures [N, 3, S, S] normalised, tokens [N, 77] -> scalar.
        """
        image, text = self.image(pictures, self.patch_keep), self.text(tokens)
        logits = self.clip.logit_scale.exp() * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
        same = (tokens[:, None] == tokens[None]).all(-1).float()
        target = same / same.sum(1, keepdim=True)
        return (F.cross_entropy(logits, target, label_smoothing=self.smoothing)
                + F.cross_entropy(logits.T, target, label_smoothing=self.smoothing)) / 2


def learning_rate(step: int, total: int, peak: float) -> float:
    """Linear warm-up over 100 steps, then half a cosine to zero."""
    return peak * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / total))


def logit_scale(step: int, total: int, start: float) -> float:
    """From `start` to SCALE, geometrically over the first share RISE of the steps."""
    return start * (SCALE / start) ** min(1.0, step / (RISE * total))


@torch.no_grad()
def rescaled(model: nn.Module) -> nn.Module:
    """Multiply what is added to the residual streams, in place: embeddings and both maps of every block.

    LayerNorms undo it, up to their epsilon. Embeddings, and the prompts beside them, come nearer to the size
    that they have in the released CLIPs, so that the papers' learning rates can be taken.
    """
    text, vision = model.transformer, model.visual.transformer
    parts = [(TEXT_FACTOR, [model.token_embedding.weight, model.positional_embedding]),
             (VISION_FACTOR, [*model.visual.ln_pre.parameters()])]
    for factor, tower in ((TEXT_FACTOR, text), (VISION_FACTOR, vision)):
        parts += [(factor, [*block.attn.out_proj.parameters(), *block.mlp.c_proj.parameters()])
                  for block in tower.resblocks]
    for factor, weights in parts:
        for w in weights:
            w.mul_(factor)
    return model


def monitor(student: Student, mini: Mini, tokenizer, size: int, mean, std) -> dict[str, float]:
    """Zero-shot accuracy (%), one template, on 400 scenes of each of MONITORED."""
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
    p.add_argument("--start", type=Path, help="a file of save_mini to go on from; else random weights")
    p.add_argument("--steps", type=int, default=3000)
    p.add_argument("--pairs", type=int, default=64, help="classes per batch, two pictures each")
    p.add_argument("--lr", type=float, default=6e-4)
    p.add_argument("--decay", type=float, default=0.3, help="last share of the steps: all patches are seen")
    p.add_argument("--patch-keep", type=float, default=0.5, help="share of patches seen before that")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return p.parse_args()


@dataclass
class Run:
    """One pre-training run: what it learns on, what it learns, and its files in --work."""

    args: argparse.Namespace
    config: dict
    web: Web
    tokenizer: Callable
    student: Student
    average: torch.optim.swa_utils.AveragedModel
    optimiser: torch.optim.Optimizer

    def __post_init__(self):
        self.start_scale = float(self.student.clip.logit_scale.detach().exp())
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
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["settings"].items():
            if value != getattr(self.args, name):
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self.args, name)}: {self.checkpoint} "
                                 f"was begun with {value}; say the same, or give another --work")
        print(f"goes on from step {state['step']} of {self.checkpoint}")
        return state["step"]

    def step(self, step: int, rate: float) -> float:
        """One step on the batch and the random numbers that belong to `step`; its loss."""
        args, student = self.args, self.student
        seed = args.seed * 1_000_003
        torch.manual_seed(seed + step)
        last = step >= (1 - args.decay) * args.steps
        student.patch_keep, student.smoothing = (1.0, SMOOTHING) if last else (args.patch_keep, 0.0)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        student.clip.logit_scale.data.fill_(math.log(logit_scale(step, args.steps, self.start_scale)))
        rng = np.random.RandomState(seed % 2**31 + step)
        pictures, captions, _ = self.web.batch(rng, args.pairs, self.size)
        loss = student.loss(((pictures - self.mean) / self.std).to(args.device),
                            self.tokenizer(captions).to(args.device))
        student.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        self.optimiser.step()
        self.average.update_parameters(student)
        return float(loss.detach())

    def save(self, step: int) -> None:
        """Write the checkpoint after `step` steps; a crash meanwhile leaves the last one whole."""
        part = self.checkpoint.with_suffix(".part")
        torch.save({"student": self.student.state_dict(), "average": self.average.state_dict(), "step": step,
                    "settings": {name: getattr(self.args, name) for name in FIXED},
                    "optimiser": self.optimiser.state_dict()}, part)
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
                writer.writerow(["step", "lr", "loss", "scale", "seconds", *scores])
            scale = float(self.student.clip.logit_scale.detach().exp())
            writer.writerow([step, f"{rate:.2e}", f"{np.mean(losses):.3f}", f"{scale:.1f}",
                             round(time.time() - began), *scores.values()])

    def export(self) -> None:
        """Write the averaged weights, rescaled, to --out, with the full token table for the compact one."""
        final, model = copy.deepcopy(self.average.module).cpu(), new_model(self.config)
        table = model.token_embedding.weight.data
        table[final.rows] = final.clip.token_embedding.weight.data
        model.load_state_dict({**final.clip.state_dict(), "token_embedding.weight": table,
                               "logit_scale": torch.tensor(math.log(FINAL_SCALE))})
        save_mini(self.args.out, rescaled(model), self.config, final.rows.tolist())
        print(f"{self.args.out}: {self.args.out.stat().st_size / 1e6:.1f} MB")


def start(args: argparse.Namespace, mini: Mini) -> Run:
    """A run at step 0: everything built in the order in which it draws random numbers."""
    torch.manual_seed(args.seed)
    config = {**CONFIG, "seed": args.seed}
    web = Web(args.drawings, favoured={c["name"] for c in mini.index["classes"]})
    tokenizer = get_tokenizer("ViT-B-16")
    used = {int(t) for t in tokenizer(web.words() + [t("") for t in OPENAI_IMAGENET_TEMPLATES]).unique()}
    model = load_clip("mini", weights=args.start, device="cpu").model if args.start else new_model(config)
    student = Student(model.train().requires_grad_(), sorted(used), args.patch_keep).to(args.device)
    student.clip.logit_scale.requires_grad_(False)
    matrices = [w for w in student.parameters() if w.ndim >= 2 and w.requires_grad]
    others = [w for w in student.parameters() if w.ndim < 2 and w.requires_grad]
    optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05},
                                   {"params": others, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.98), eps=1e-6)
    average = torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.998))
    args.work.mkdir(parents=True, exist_ok=True)
    return Run(args, config, web, tokenizer, student, average, optimiser)


def main() -> None:
    args, mini = arguments(), Mini()
    run = start(args, mini)
    first = run.resume()
    began, losses = time.time(), []
    for step in (bar := tqdm(range(first, args.steps), initial=first, total=args.steps, mininterval=30)):
        rate = learning_rate(step, args.steps, args.lr)
        losses.append(run.step(step, rate))
        bar.set_postfix(loss=f"{losses[-1]:.2f}", refresh=False)
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            run.write_log(step + 1, rate, losses, began, mini)
            losses = []
            run.save(step + 1)
    run.export()


if __name__ == "__main__":
    main()
