"""Class names and templates as packed tokens, ready for `Clip.encode_text`.

In CLIP's text encoder no token sees what stands behind it. Without changing any result, the padding behind
the end-of-text token (EOT) can therefore be left out, and what all texts begin with (the start token SOS, the
learned context, the first words of a template) can be computed only once. A list of texts is kept as

    [ shared prefix | suffix of text 0 | suffix of text 1 | … ]           packed, N tokens in all

where a suffix runs from the first token that differs between texts to EOT. For ImageNet's classes that is
about 4.5 tokens each, where the usual batch has 77. Linear layers run on the packed tokens [N]; attention
gathers the suffixes into [U, S], U different texts of at most S tokens. Wherever the context stands (METHODS
5.2) the packing is the same, only the shared prefix is shorter.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

POSITIONS = ("end", "middle", "front")


@cache
def tokenizer() -> SimpleTokenizer:
    """Return CLIP's byte-pair tokenizer, made once: lower case, 49,408 tokens, SOS 49406, EOT 49407."""
    return SimpleTokenizer()


def tokenize(text: str) -> list[int]:
    """Return the token ids of SOS, the text and EOT, without padding.

    A text that contains an EOT of its own ends there, since CLIP reads the first one."""
    bpe = tokenizer()
    ids = [bpe.sot_token_id, *bpe.encode(text), bpe.eot_token_id]
    return ids[: ids.index(bpe.eot_token_id) + 1]


@dataclass(frozen=True, eq=False)
class PackedText:
    """C texts as N packed tokens: P that all texts share, then U suffixes, one for each different text.

    A token is fixed, or it is a *slot*, whose embedding comes from the prompts. Equal texts share one suffix,
    so their features are equal to the last bit; `row` gives each of the C texts its row again.
    """

    class_names: tuple[str, ...]  # C names as they were given
    texts: tuple[str, ...]  # C texts as they were tokenized, with "X" for a slot
    ids: Tensor  # [N] token ids
    positions: Tensor  # [N] place of the token in its text, 0 for SOS
    n_prefix: int  # P: the packed tokens 0 … P-1 are shared by all texts
    n_slots: int  # number of slots that the prompts fill
    slot_at: Tensor  # [K] which packed tokens are slots
    slot_of: Tensor  # [K] which slot each of them is
    pad: Tensor  # [U, S] which packed token stands there; behind EOT, where nobody looks, EOT again
    unpad: Tensor  # [N - P] where a packed suffix token stands in the flattened [U * S]
    eot: Tensor  # [U] which packed token is a text's EOT
    row: Tensor  # [C] which of the U suffixes a text has

    @property
    def n_classes(self) -> int:
        """C, the number of texts."""
        return len(self.texts)

    @property
    def length(self) -> int:
        """Number of tokens of the longest text, SOS and EOT included."""
        return self.n_prefix + self.pad.shape[1]

    def to(self, device: torch.device | str) -> "PackedText":
        """Return the same packing with its tensors on `device`."""
        if self.ids.device == torch.device(device):
            return self
        tensors: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)

    def inner_tokens(self) -> tuple[Tensor, Tensor]:
        """Return which packed tokens stand between SOS and EOT of each text.

        The index is [C, T], T for the longest text; the mask [C, T] is False where a text is shorter."""
        device = self.ids.device
        prefix = torch.arange(1, self.n_prefix, device=device).expand(self.n_classes, -1)
        index = torch.cat([prefix, self.pad[self.row]], dim=1)[:, : self.length - 2]  # (C, T)
        inner = self.positions[self.eot][self.row] - 1  # (C,) tokens between SOS and EOT
        mask = torch.arange(index.shape[1], device=device) < inner[:, None]
        return index.where(mask, 0), mask


def pack_texts(texts: list[str], context_length: int = 77) -> PackedText:
    """Pack finished sentences without slots, such as a template with class names filled in.

    Raises ValueError if there is no text, or if one has more than `context_length` tokens.
    """
    texts = _listed(texts, "text")
    rows = [[(i, -1) for i in tokenize(text)] for text in texts]
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        if len(row) > context_length:
            raise ValueError(f"text {i}, {text!r}, has {len(row)} tokens (start and end included), expected "
                             f"at most {context_length}: shorten it")
    return _pack(rows, texts, texts, 0)


def pack_context(class_names: list[str], n_ctx: int, *, tail: str = "", position: str = "end",
                 class_specific: bool = False, context_length: int = 77) -> PackedText:
    """Pack "X … X {tail} {name}.", where the words X are learnable slots (CoOp, arXiv:2109.01134).

    class_names:    C names; underscores are read as spaces, and equal names keep a row each.
    n_ctx:          number of words X.
    tail:           fixed words between the slots and the name; MaPLe has 2 slots and then "of a".
    position:       where the name stands (METHODS 5.2): at the "end" behind the slots, at the "front" before
                    them, or in the "middle", behind n_ctx // 2 of them.
    class_specific: give every class slots of its own, slot m of class c being c * n_ctx + m; otherwise all
                    classes share the slots 0 … n_ctx - 1.
    context_length: the most tokens that a text may have.

    Raises ValueError for an empty list or name, an unknown position, and a name too long for the context.
    """
    if position not in POSITIONS:
        raise ValueError(f"position is {position!r}, expected one of {', '.join(POSITIONS)}")
    if tail and position != "end":
        raise ValueError(f"tail {tail!r} goes with position='end' only, got {position!r}: drop one of them")
    if n_ctx < 0:
        raise ValueError(f"n_ctx is {n_ctx}, expected 0 or more learnable tokens")
    texts, rows = [], []
    for c, given in enumerate(_listed(class_names, "class name")):
        name = given.replace("_", " ").strip()
        text = " ".join([*["X"] * n_ctx, *tail.split(), name]) + "."
        ids, n_name = tokenize(text), len(tokenize(name)) - 2
        if n_name < 1:
            raise ValueError(f"class {c} has the name {given!r}, expected at least one word: name it")
        if len(ids) > context_length:
            raise ValueError(
                f"the name of class {c}, {given!r}, has {n_name} tokens, but only "
                f"{context_length - len(ids) + n_name} of {context_length} are left beside {n_ctx} learnable "
                f"ones, {tail!r}, the full stop, start and end: shorten the name or use a smaller n_ctx")
        first = c * n_ctx if class_specific else 0
        ctx = [(ids[1 + m], first + m) for m in range(n_ctx)]
        sos, *body, eot = [(i, -1) for i in (ids[0], *ids[1 + n_ctx:])]
        before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        n = 0 if position == "end" else n_name
        texts.append(text)
        rows.append([sos, *ctx[:before], *body[:n], *ctx[before:], *body[n:], eot])
    return _pack(rows, class_names, texts, n_ctx * (len(rows) if class_specific else 1))


def _listed(texts: list[str], what: str) -> list[str]:
    """Return the strings as a list. Raises ValueError for no list, an empty one, and what is no string."""
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"expected a list with at least one {what}, got {texts!r}")
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise ValueError(f"the {what} {wrong[0]!r} is {type(wrong[0]).__name__}, expected a string")
    return list(texts)


def _pack(rows: list[list[tuple[int, int]]], class_names: list[str], texts: list[str],
          n_slots: int) -> PackedText:
    """Pack texts given as (token id, slot) pairs, with slot -1 for a fixed token."""
    different: dict[tuple, int] = {}
    row = [different.setdefault(tuple(pairs), len(different)) for pairs in rows]
    tokens = list(different)  # U
    p, shortest = 0, min(map(len, tokens))
    while p < shortest - 1 and all(t[p] == tokens[0][p] for t in tokens):  # every suffix keeps its EOT
        p += 1
    width = max(map(len, tokens)) - p
    ids, positions = list(tokens[0][:p]), list(range(p))
    pad: list[list[int]] = []
    unpad: list[int] = []
    eot: list[int] = []
    for u, t in enumerate(tokens):
        start, n = len(ids), len(t) - p
        eot.append(start + n - 1)
        pad.append([start + min(s, n - 1) for s in range(width)])
        unpad += range(u * width, u * width + n)
        ids += t[p:]
        positions += range(p, len(t))
    slots = torch.tensor([slot for _, slot in ids])
    slot_at = (slots >= 0).nonzero().flatten()
    return PackedText(
        class_names=tuple(class_names), texts=tuple(texts), ids=torch.tensor([i for i, _ in ids]),
        positions=torch.tensor(positions), n_prefix=p, n_slots=n_slots, slot_at=slot_at,
        slot_of=slots[slot_at], eot=torch.tensor(eot), row=torch.tensor(row),
        pad=torch.tensor(pad), unpad=torch.tensor(unpad))
