"""ImageNet's 1000 classes: WordNet ids in label order, the names that CLIP's authors gave them, and parts."""

from functools import cache
from pathlib import Path

from ..files.lines import read_lines
from .checks import fingerprint

CLASSES = Path(__file__).resolve().parent.parent / "assets/imagenet_classes.txt"
NAMES = "571ae1c583b4be7d"                         # fingerprint of CLIP's 1000 names (METHODS 3.2)


@cache
def imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Return ImageNet's 1000 WordNet ids, their class names, and the labels of {"all", "a", "r"}.

    The ids are those of timm, copied into the package; the names are open_clip's. Raises RuntimeError if
    open_clip has changed them.
    """
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES  # here, because open_clip loads torch models
    if (found := fingerprint(IMAGENET_CLASSNAMES)) != NAMES:
        raise RuntimeError("open_clip's IMAGENET_CLASSNAMES are not the names of CLIP's notebook "
                           f"(fingerprint {found}, expected {NAMES}); install open_clip_torch 3.3.0, "
                           "which has them")
    rows = [line.split() for line in read_lines(CLASSES)]
    part = {key: tuple(i for i, row in enumerate(rows) if key in row[1:]) for key in ("a", "r")}
    return tuple(row[0] for row in rows), tuple(IMAGENET_CLASSNAMES), {"all": tuple(range(len(rows))), **part}
