"""Text views of a class: its name, and variants that WordNet gives (PromptSync; docs/METHODS.md, 5.9)."""

import functools
import json
import re
import warnings
from collections.abc import Sequence
from importlib import resources
from typing import Any

from ..settings import require

RELATIONS = {"synonym": "{word}", "meronym": "{name} with {word}", "antonym": "{name}, not {word}"}


def text_variants(class_names: Sequence[str], relations: Sequence[str] = tuple(RELATIONS), limit: int = 4,
                  wnids: Sequence[str] | None = None) -> list[list[str]]:
    """Text views of each class: its name, then WordNet variants of it, at most `limit` in all.

    PromptSync names synonyms, antonyms and meronyms (part words) and leaves the rest open. Ours: the first
    (most frequent) noun sense, or the sense of `wnids`; a synonym stands for the name, a part or an antonym
    is added to it ("teapot with spout", "man, not woman"), so that every text still names its class;
    relations take turns. A name that WordNet lacks stands alone. ValueError: unknown relation, limit < 1.
    """
    unknown = [r for r in relations if r not in RELATIONS]
    require(not unknown, "text_variants", "relations", tuple(relations), f"some of {', '.join(RELATIONS)}")
    require(limit >= 1, "text_variants", "limit", limit, "at least 1, the name itself")
    variants = []
    for i, name in enumerate(class_names):
        name = name.replace("_", " ")
        words = wordnet_words(name, wnids[i] if wnids is not None else None)
        lists = [[RELATIONS[r].format(name=name, word=w) for w in words.get(r, ())] for r in relations]
        turns = [texts[k] for k in range(limit) for texts in lists if k < len(texts)]
        variants.append(list(dict.fromkeys([name, *turns]))[:limit])
    return variants


@functools.cache
def _shipped_words() -> dict[str, dict]:
    """The lemmas of minipsync/assets/wordnet.json (made by data_scripts/make_wordnet.py)."""
    file = resources.files("minipsync") / "assets" / "wordnet.json"
    return json.loads(file.read_text("utf-8"))["words"] if file.is_file() else {}


@functools.cache
def wordnet_words(name: str, wnid: str | None = None) -> dict[str, tuple[str, ...]]:
    """WordNet words of a class name by relation (see `sense_words`); {} where WordNet lacks the name.

    The shipped list answers first; other names need NLTK and its WordNet corpus, without which they get {}
    and one warning. wnid: a WordNet 3.0 noun such as "n02084071" (ImageNet's folder names), which fixes the
    sense; ValueError if there is none.
    """
    if wnid is None and name.lower() in _shipped_words():
        return {k: tuple(v) for k, v in _shipped_words()[name.lower()].items()}
    try:
        from nltk.corpus import wordnet
        wordnet.ensure_loaded()
    except (ImportError, LookupError):
        warnings.warn("WordNet is not installed, so class names outside the shipped list have no text "
                      "variants; `python -m nltk.downloader wordnet` installs it", stacklevel=3)
        return {}
    return sense_words(name, first_sense(wordnet, name) if wnid is None else _sense_of(wordnet, wnid))


_ABUSE = re.compile(r"ethnic slur|\b(offensive|disparaging|derogatory|obscene)\b.*\b(terms?|names?|words)\b")


def first_sense(wordnet: Any, name: str) -> Any:
    """The first noun sense of `name` that is no term of abuse ("taco" has one), or None. wordnet: NLTK's."""
    senses = wordnet.synsets(name.replace(" ", "_"), pos="n")
    return next((sense for sense in senses if not _ABUSE.search(sense.definition())), None)


def _sense_of(wordnet: Any, wnid: str) -> Any:
    found = re.fullmatch(r"n(\d{8})", wnid)
    sense = found and wordnet.synset_from_pos_and_offset("n", int(found[1]))       # None, and NLTK warns
    if sense is None:
        raise ValueError(f"wnid {wnid!r} is no noun of WordNet {wordnet.get_version()}; expected an id such "
                         "as 'n02084071'")
    return sense


def sense_words(name: str, sense: Any) -> dict[str, tuple[str, ...]]:
    """Words of a sense (an NLTK synset, or None) by relation, without `name` itself; {} for None.

    Synonyms and antonyms are in WordNet's order. Meronyms are parts, then substances, then members, the more
    frequent first: NLTK keeps them in a set, whose order changes from one process to the next.
    """
    if sense is None:
        return {}
    same = sense.lemmas()
    parts = [part.lemmas()[0] for parts in (sense.part_meronyms(), sense.substance_meronyms(),
                                            sense.member_meronyms())
             for part in sorted(parts, key=lambda part: (-part.lemmas()[0].count(), part.name()))]
    words = {"synonym": same, "meronym": parts, "antonym": [w for lemma in same for w in lemma.antonyms()]}
    plain = {k: dict.fromkeys(w.name().replace("_", " ") for w in v) for k, v in words.items()}
    return {k: tuple(w for w in v if w.lower() != name.lower()) for k, v in plain.items()}
