"""Class names and templates as packed tokens, ready for `Clip.encode_text`.

CLIP's text tower is causal: what stands behind a token cannot change it. Two things follow, both exact:
padding behind the end-of-text token (EOT) need not be computed, and what all texts start with (SOS, the
learned context, the first template words) needs to be computed only once. So a list of texts is kept as

    [ shared prefix | suffix of text 0 | suffix of text 1 | ... ]           packed, N tokens in all

where a suffix runs from the first token that differs to EOT: about 4.5 tokens for an ImageNet class where the
usual batch has 77. Linear layers run on the packed tokens; attention gathers the suffixes into [U, S].
Every layout of the context is the same packing, only with a shorter prefix (METHODS 5.2).
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

POSITIONS = ("end", "middle", "front")


@lru_cache(maxsize=1)
def tokenizer() -> SimpleTokenizer:
    """CLIP's byte-pair tokenizer: lower case, 49,408 tokens, SOS 49406, EOT 49407."""
    return SimpleTokenizer()


def tokenize(text: str) -> list[int]:
    """SOS, the tokens of `text`, EOT: no padding, and nothing behind the first EOT (CLIP reads that one)."""
    bpe = tokenizer()
    ids = [bpe.sot_token_id, *bpe.encode(text), bpe.eot_token_id]
    return ids[: ids.index(bpe.eot_token_id) + 1]


@dataclass(frozen=True, eq=False)
class PackedText:
    """C texts as N packed tokens: P shared ones, then the suffixes of the U different texts, each up to EOT.

    A token is fixed or a *slot*, whose embedding comes from the prompts. Equal texts share one suffix, so
    their features are equal to the last bit; `row` gives each of the C texts its own row again.
    """

    class_names: tuple[str, ...]  # C, as they were given
    texts: tuple[str, ...]  # C, as tokenized; a slot reads "X"
    ids: Tensor  # [N] token ids
    positions: Tensor  # [N] place in the sentence, 0 = SOS
    n_prefix: int  # P: packed tokens 0..P-1 are shared by all texts
    n_slots: int  # S_l: slots that the prompts fill
    slot_at: Tensor  # [K] packed tokens that are slots
    slot_of: Tensor  # [K] which slot each of them is
    pad: Tensor  # [U, S] packed token of every suffix place; behind EOT the EOT again (hidden by causality)
    unpad: Tensor  # [N - P] place in the flattened [U * S] of every packed suffix token
    eot: Tensor  # [U] packed token of the EOT
    row: Tensor  # [C] which of the U suffixes a text has

    @property
    def n_classes(self) -> int:
        return len(self.texts)

    @property
    def length(self) -> int:
        """Tokens of the longest text, SOS and EOT included."""
        return self.n_prefix + self.pad.shape[1]

    def to(self, device: torch.device | str) -> "PackedText":
        """The same packing with its index tensors on `device`."""
        if self.ids.device == torch.device(device):
            return self
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)

    def inner_tokens(self) -> tuple[Tensor, Tensor]:
        """Packed tokens strictly between SOS and EOT: index [C, T] (0 at pads) and mask [C, T] (bool)."""
        device = self.ids.device
        prefix = torch.arange(1, self.n_prefix, device=device).expand(self.n_classes, -1)
        index = torch.cat([prefix, self.pad[self.row]], dim=1)[:, : self.length - 2]  # (C, T)
        inner = self.positions[self.eot][self.row] - 1  # (C,) tokens between SOS and EOT
        mask = torch.arange(index.shape[1], device=device) < inner[:, None]
        return index.where(mask, 0), mask


def pack_texts(texts: list[str], context_length: int = 77) -> PackedText:
    """Pack finished sentences, such as a template with its names filled in: no slots.

    Raises ValueError if there is no text, or one has more than `context_length` tokens.
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
    """Pack "X ... X {tail} {name}." where the `n_ctx` words X are learnable slots (CoOp, arXiv:2109.01134).

    `tail` are fixed words between context and name (MaPLe: 2 slots, then "of a").
    `position` of the name (METHODS 5.2): "end" = behind the slots; "front" = before them; "middle" = behind
    n_ctx // 2 of them.
    `class_specific`: every class has its own slots, slot = class * n_ctx + m; else all share 0..n_ctx-1.
    Underscores in names are read as spaces. Equal names keep a row each.
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
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"expected a list with at least one {what}, got {texts!r}")
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise ValueError(f"the {what} {wrong[0]!r} is {type(wrong[0]).__name__}, expected a string")
    return list(texts)


def _pack(rows: list, class_names: list[str], texts: list[str], n_slots: int) -> PackedText:
    """`rows`: the (token id, slot) pairs of every text, slot -1 for a fixed token."""
    different: dict = {}
    row = [different.setdefault(tuple(pairs), len(different)) for pairs in rows]
    tokens = list(different)  # U
    p, shortest = 0, min(map(len, tokens))
    while p < shortest - 1 and all(t[p] == tokens[0][p] for t in tokens):  # every suffix keeps its EOT
        p += 1
    width = max(map(len, tokens)) - p
    ids, positions = list(tokens[0][:p]), list(range(p))
    pad, unpad, eot = [], [], []
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
