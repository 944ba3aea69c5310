"""Time against the official way, at equal outputs: `python -m benchmarks.speed --model mini`.

Plain is what the official codes do: every text padded to 77 tokens, one image at a time, all views with
gradient (TPT: text alone), CoCoOp's text encoder once per image. Ours is the library. Both run in one
process, by turns, on the same inputs, and must give the same logits; the table has the medians and their
ratio. Random weights do for a speed: `--model ViT-B-16 --classes 100 --views 32` needs about 10 GB. Rows go
to results/speed/<device>.csv.
"""
import argparse
import math
import time
from pathlib import Path
from statistics import median

import open_clip
import pandas as pd
import torch
import torch.nn.functional as F

import minipsync as mp
from minipsync.clip.encoders import Clip
from minipsync.methods.tpt import marginal_entropy, select_confident
from tests import reference

OUT = Path(__file__).resolve().parent.parent / "results/speed"


class Plain:
    """CoOp, CoCoOp, TPT and MaPLe + TPT as the official codes run them, with the parameters of ours."""

    def __init__(self, method):
        self.method, self.model = method, method.clip.model
        self.ids, self.slots = (t.to(method.clip.device) for t in reference.layout(
            method.class_names, method.learner.n_ctx, tail=method.learner.tail))

    def logits(self, images, prompts):
        """images [N, 3, S, S] with one set of prompts -> [N, C]."""
        text = reference.text_features(self.model, self.ids, self.slots, prompts.text)
        image = reference.image_features(self.model.visual, images, prompts.vision)
        return self.method.clip.logit_scale * image @ text.T

    def cocoop(self, images):
        """CoCoOp: the text encoder once per image."""
        features = reference.image_features(self.model.visual, images)
        prompts = self.method.learner(features).text                                   # [N, 1, M, W]
        rows = []
        for k in range(len(images)):
            text = reference.text_features(self.model, self.ids, self.slots, prompts[k])
            rows.append(self.method.clip.logit_scale * features[k] @ text.T)
        return torch.stack(rows)

    def tune(self, images):
        """views [B, V, 3, S, S]: one image after the other, all views with gradient -> logits [B, C]."""
        return torch.stack([self.tune_one(views) for views in images])

    def tune_one(self, views):
        method, c = self.method, self.method.config
        params = {k: p.detach().clone().requires_grad_() for k, p in method.learner.named_parameters()}
        optimizer = torch.optim.AdamW(list(params.values()), lr=c.lr, weight_decay=c.weight_decay)
        for _ in range(c.steps):
            logits = self.logits(views, method.learner(params))[None]                  # [1, V, C]
            chosen = select_confident(logits.detach(), c.selection)                    # [1, k]
            loss = marginal_entropy(logits[:, chosen[0]]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return self.logits(views[:1], method.learner(params))[0]


def train_step(method, logits, images, labels):
    """A step of training: `logits`, their loss and its gradient."""
    method.zero_grad()
    out = logits(images)
    F.cross_entropy(out, labels).backward()
    return out.detach()


def cases(clip, names, n_views, n_images):
    """(method, what, ours, plain): two functions that give the same logits."""
    size, dev = clip.image_size, clip.device
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n_images, 3, size, size, generator=generator).to(dev)
    labels = torch.arange(n_images, device=dev) % len(names)
    first = torch.randn(n_images, 1, 3, size, size, generator=generator)
    views = (first + 0.35 * torch.randn(n_images, n_views, 3, size, size, generator=generator)).to(dev)
    coop = mp.build("coop", clip, names, n_ctx=4, init="a photo of a")
    cocoop = mp.build("cocoop", clip, names)
    yield ("coop", "training step", lambda: train_step(coop, coop.logits, images, labels),
           lambda: train_step(coop, lambda x: Plain(coop).logits(x, coop.learner()), images, labels))
    yield ("cocoop", "training step", lambda: train_step(cocoop, cocoop.logits, images, labels),
           lambda: train_step(cocoop, Plain(cocoop).cocoop, images, labels))
    for name in ("tpt", "maple_tpt"):
        tuned = mp.build(name, clip, names, n_views=n_views, lr=5e-3)
        yield (name, "one step on each image", lambda m=tuned: m.predict_views(views),
               lambda m=tuned: Plain(m).tune(views))


def random_clip(name):
    """`name` with random weights, the logits' scale of a trained CLIP."""
    model = open_clip.create_model(name, pretrained=None)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(100))
    return Clip(model, name=name)


def seconds(function, device):
    start = time.perf_counter()
    out = function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, out


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="mini", help="mini, or an open_clip ViT, which gets random weights")
    p.add_argument("--classes", type=int, default=200)
    p.add_argument("--views", type=int, default=64)
    p.add_argument("--images", type=int, default=8)
    p.add_argument("--repeat", type=int, default=5)
    args = p.parse_args()
    clip = mp.load_clip("mini") if args.model == "mini" else random_clip(args.model)
    if torch.cuda.is_available():
        clip = clip.cuda()
    bench = mp.benchmark("mini")
    names = bench.dataset("imagenet").class_names + [n for t in ("faces", "signs", "animals", "vehicles")
                                                     for n in bench.dataset(t).class_names]
    names = [names[i % len(names)] for i in range(args.classes)]
    device = torch.cuda.get_device_name() if clip.device.type == "cuda" else "cpu"
    rows = []
    for method, what, ours, plain in cases(clip, names, args.views, args.images):
        times, found = {"ours": [], "plain": []}, {}
        for turn in range(args.repeat + 1):
            for key, function in (("ours", ours), ("plain", plain)):
                spent, out = seconds(function, clip.device)
                if turn or args.repeat == 1:                                   # the first warms up
                    times[key].append(spent / args.images)
                found[key] = out
        difference, size = float((found["ours"] - out).abs().max()), float(out.abs().max())
        if difference > 5e-3 * size:
            raise SystemExit(f"{method}: ours and plain differ by {difference}; this is no comparison")
        ours_s, plain_s = median(times["ours"]), median(times["plain"])
        rows.append({"method": method, "what": what, "model": args.model, "classes": args.classes,
                     "views": args.views if "tpt" in method else 1, "images": args.images, "device": device,
                     "threads": torch.get_num_threads(), "ours_s": ours_s, "plain_s": plain_s,
                     "ratio": plain_s / ours_s, "difference": difference,
                     "torch": torch.__version__.split("+")[0]})
        print(f"{method:10} {what:24} ours {ours_s:.4g} s, plain {plain_s:.4g} s an image: "
              f"{plain_s / ours_s:.1f} times; logits differ by {difference:.1e}", flush=True)
    table, file = pd.DataFrame(rows), OUT / f"{device.lower().replace(' ', '_')}.csv"
    if file.exists():
        old, keys = pd.read_csv(file), ["method", "model", "classes", "views", "threads"]
        table = pd.concat([old, table]).drop_duplicates(keys, keep="last")
    OUT.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, index=False, float_format="%.5g")
    print(f"written: {file.name}")


if __name__ == "__main__":
    main()
