"""The warm light of every mini picture: what source and targets share and the CLIP's pre-training lacks.

Few-shot prompts have something to learn only if the pictures differ, all in one way, from what the CLIP was
trained on, as ImageNet does from the web. Without such a thing the artist alone differs, and what is learned
of one artist helps with no other. A cast of colour, as of a lamp that no white balance took out, is in every
crop of a picture, large or small, so that training with random crops sees it, too.
"""
from __future__ import annotations

import torch

LAMP = (1.0, 0.9, 0.75)          # what is left of red, green and blue


def in_warm_light(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures [..., 3, S, S] in [0, 1] as the lamp shows them."""
    return pictures * torch.tensor(LAMP)[:, None, None]
