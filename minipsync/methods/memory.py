"""Batches that fit into memory: how many images at a time, and what to do when that was too many."""

import warnings
from collections.abc import Callable
from typing import Any

import torch

from ..files.tensors import first_line

FLOATS_PER_CHANNEL = 30          # that backward keeps for each token and channel of a block, about


def in_batches(method: Any, run: Callable[[Any], Any], items: Any, size: int) -> list:
    """Call `run` on parts of `items` of at most `size`; the list of what it gave.

    Where memory runs out, parts half as large are tried and `method.max_batch` is set to that, with a
    warning. What `run` gives for an item must not depend on what else is in its part. Raises
    torch.OutOfMemoryError that says what to lower if a single item is too much.
    """
    results: list = []
    done = 0
    while done < len(items):
        part = items[done:done + min(size, method.max_batch or size)]
        try:
            results.append(run(part))
            done += len(part)
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(part) == 1:
                views = f"n_views={method.config.n_views}, " if hasattr(method.config, "n_views") else ""
                raise torch.cuda.OutOfMemoryError(
                    f"{method.name}: memory ran out with one image at a time ({first_line(error)}); lower "
                    f"{views}method.image_batch={method.image_batch} or the number of classes "
                    f"({len(method.class_names)}), or take load_clip(…, precision='bf16')") from error
        # not in the except clause, where the error's frames still hold their tensors
        method.max_batch = len(part) // 2
        torch.cuda.empty_cache()
        warnings.warn(f"{method.name}: memory ran out with {len(part)} images at a time; going on with "
                      f"{method.max_batch}", stacklevel=4)
    return results


def is_out_of_memory(error: BaseException) -> bool:
    """Does this error say that the memory of a device, or of the machine, was not enough?"""
    words = ("out of memory", "can't allocate memory", "_ALLOC_FAILED")        # CUDA and MPS; CPU; cuBLAS
    kinds = (torch.cuda.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or any(word in str(error) for word in words)


def episodes_in_memory(method: Any, views: int = 0) -> int:
    """How many images with prompts of their own, and `views` views each, to run at once: 1 to 32.

    What backward keeps shall stay within 1.5 GB, on a GPU within 40 % of what is free.
    """
    clip = method.clip
    budget = 0.4 * torch.cuda.mem_get_info(clip.device)[0] if clip.device.type == "cuda" else 1.5e9
    channels = len(method.packed.ids) * clip.text_width * clip.text_layers
    if views:
        tokens = len(clip.model.visual.positional_embedding)
        channels += views * tokens * clip.vision_width * clip.vision_layers
    bytes_per_episode = 4 * FLOATS_PER_CHANNEL * channels
    return int(max(1, min(32, budget // bytes_per_episode)))
