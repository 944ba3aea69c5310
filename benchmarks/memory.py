"""Peak memory of a test-time method at ImageNet's size: `python -m benchmarks.memory promptsync`.

One picture, 1000 classes, 64 views, a ViT-B/16 with random weights (memory does not depend on them), source
prototypes and statistics of the right shapes. Prints seconds and the peak: of the process on a CPU, of the
allocator on a GPU.
"""
import argparse
import resource
import time

import torch
from torchvision.transforms.functional import to_pil_image

import minipsync as mp
from minipsync.data.imagenet_classes import imagenet_classes
from minipsync.methods import REGISTRY
from minipsync.source.domain import SourceDomain
from minipsync.source.moments import Moments
from minipsync.source.prototypes import Prototypes

from .speed import random_clip


class Source:
    """As many pictures of noise as classes."""

    name = "noise"

    def __init__(self, names, size):
        self.class_names, self.labels, self.size = names, list(range(len(names))), size

    def __len__(self):
        return len(self.labels)

    def image_id(self, i):
        return str(i)

    def subset(self, rows):
        return self

    def __getitem__(self, i):
        pixels = torch.rand(3, self.size, self.size, generator=torch.Generator().manual_seed(i))
        return to_pil_image(pixels), i


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("method", choices=[name for name, each in REGISTRY.items()
                                      if "n_views" in each.Config.model_fields])
    p.add_argument("--model", default="ViT-B-16")
    p.add_argument("--classes", type=int, default=1000)
    p.add_argument("--views", type=int, default=64)
    args = p.parse_args()
    clip = random_clip(args.model)
    clip = clip.cuda() if torch.cuda.is_available() else clip
    names = list(imagenet_classes()[1])[:args.classes]
    method = mp.build(args.method, clip, names, n_views=args.views)
    source = Source(names, clip.image_size)
    if method.needs == "moments":
        tokens = len(clip.model.visual.positional_embedding) + method.config.n_ctx
        shape = (clip.vision_layers, tokens, clip.vision_width)
        method.source = SourceDomain(Moments(torch.zeros(shape), torch.ones(shape)))
    elif method.needs == "prototypes":
        parts = [torch.randn(len(names), clip.embed_dim) / clip.embed_dim**0.5 for _ in range(3)]
        method.prepare(source, found=SourceDomain(prototypes=Prototypes(*parts, [[n] for n in names]),
                                                  class_names=names))
    start = time.perf_counter()
    logits = method.predict([source[0][0]])
    seconds = time.perf_counter() - start
    gpu = clip.device.type == "cuda"
    process = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = torch.cuda.max_memory_allocated() if gpu else process
    print(f"{args.method}, {args.model}, {len(names)} classes, {args.views} views: {seconds:.1f} s, peak "
          f"{peak / 2**30:.1f} GiB on {'the GPU' if gpu else 'the CPU'}, logits {tuple(logits.shape)}, "
          f"{'finite' if logits.isfinite().all() else 'NOT FINITE'}")


if __name__ == "__main__":
    main()
