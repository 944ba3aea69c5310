"""A torch module on a CLIP that several methods share: what is its own moves, the CLIP stays."""

import copy
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ..clip.encoders import Clip


class OnSharedClip(nn.Module):
    """A module that uses a CLIP without owning it.

    `to(device)` moves only what is the module's own, and one whose CLIP is on another device says so
    (`check_device`). `copy.deepcopy` shares the CLIP, too; a pickle holds it.
    """

    name: ClassVar[str] = ""

    def __init__(self, clip: Clip):
        super().__init__()
        if not hasattr(clip, "encode_image"):
            raise TypeError(f"{self.name}: clip is a {type(clip).__name__}; expected load_clip(...)")
        self.__dict__["_clip"] = clip                # not a submodule: parameters() are the prompts alone

    @property
    def clip(self) -> Clip:
        """The frozen CLIP that others may share."""
        return self.__dict__["_clip"]

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        if fn(torch.zeros(())).dtype != torch.float32:
            raise TypeError(f"{self.name}: prompts stay float32; .half() or .to(torch.bfloat16) would round "
                            "them for good: for half precision say load_clip(…, precision='fp16')")
        return super()._apply(fn, recurse)           # not the CLIP: other methods may share it

    def __deepcopy__(self, memo: dict) -> "OnSharedClip":
        memo[id(self.clip)] = self.clip              # frozen, so one is enough
        memo[id(self)] = other = type(self).__new__(type(self))
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other

    def own_tensors(self) -> list[Tensor]:
        """The tensors that must be where the CLIP is."""
        return list(self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the method's own tensors are; without any, where its CLIP is."""
        return next((t.device for t in self.own_tensors()), self.clip.device)

    def check_device(self) -> None:
        """Raise ValueError that says what to move if something of the method is not where its CLIP is."""
        if wrong := {t.device for t in self.own_tensors()} - {self.clip.device}:
            mine, home = str(wrong.pop()), str(self.clip.device)
            raise ValueError(f"{self.name} is on {mine!r} and its CLIP on {home!r}; to move "
                             "a method leaves the CLIP, which others may share, where it is: say "
                             f"method.to({home!r}), or clip.to({mine!r}) for all that share it")

    def copy_prompts(self) -> list[Tensor]:
        """The parameters as they are now; `prompts_are` tells whether they have changed since."""
        return [p.detach().clone() for p in self.parameters()]

    def prompts_are(self, copies: list[Tensor]) -> bool:
        """Are the parameters still these? Wherever the method was moved meanwhile."""
        return all(torch.equal(old.to(p), p) for old, p in zip(copies, self.parameters(), strict=True))
