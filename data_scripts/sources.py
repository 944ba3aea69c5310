"""Where the full benchmark's data sets are given out: files, mirrors in the order they are tried, terms.

The official host comes first. Checksums are those of TensorFlow Datasets (sha256) and torchvision (md5); None
where no source publishes one. `HUB` is the collection of PromptKD's authors: each data set in one zip file,
laid out as CoOp's DATASETS.md says, with CoOp's split file in it. It is pinned to a commit, and the hub tells
the checksum of a file when it sends it.
"""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mirror:
    """One place that gives out a file."""

    url: str
    take: str | None = None        # the folder or file of the archive that is wanted; None: it is no archive
    check: str | None = None       # "sha256:…" or "md5:…"
    size: int | None = None        # bytes
    inner: str | None = None       # an archive in the archive, which has what `take` says


@dataclass(frozen=True)
class Piece:
    """A folder or file below the root, and who has it."""

    target: str                    # as FOLDERS (minipsync/data/imagenet.py) and SPLITS (splits.py) expect it
    mirrors: tuple[Mirror, ...] = ()   # none: people fetch it, as the source's `by_hand` says


@dataclass(frozen=True)
class Source:
    """A data set, or several that come in one archive."""

    gb: float                      # to download, and about as much again when unpacked
    terms: str                     # licence and terms in a line
    home: str
    pieces: tuple[Piece, ...] = ()     # small ones first: a copy that lacks only a list gets only the list
    by_hand: str = ""              # how people fetch what no program may or can, and where below {root}
    names: tuple[str, ...] = ()    # the data sets in it, where that is not its own name


def drive(key: str, name: str) -> str:
    """The address of a public file on Google Drive, past the page that says it is not scanned for viruses."""
    return f"https://drive.usercontent.google.com/download?id={key}&export=download&confirm=t#{name}"


HF = "https://huggingface.co"
HUB = f"{HF}/zhengli97/prompt_learning_dataset/resolve/ceb3112337fb6e1bf71534e355ca5569b63f19a6"
GITHUB = ("https://raw.githubusercontent.com/linzhiqiu/cross_modal_adaptation/"
          "c7e7e68ae4eeadfab98e7886b2d6c9cf48a7ceb5/splits")
VGG = "https://www.robots.ox.ac.uk/~vgg/data"
NONE = "no licence stated, the pictures' owners keep their rights; used for research"
OLD_CARS = "http://ai.stanford.edu/~jkrause/car196"        # gone since 2023, as the SUN server since 2025


def coop(target: str, key: str, archive: str, github: bool = True) -> Piece:
    """CoOp's split file: its authors' copy on Drive, one on GitHub for seven of the nine, the one in HUB."""
    name = target.rpartition("/")[2]
    copies = [Mirror(drive(key, name)), Mirror(f"{HUB}/{archive}", name)]
    if github:
        copies.insert(1, Mirror(f"{GITHUB}/{name}"))
    return Piece(target, tuple(copies))


def sha(digest: str) -> str:
    return f"sha256:{digest}"


PUG = ("Worlds", "Camera_Yaw", "Camera_Pitch", "Camera_Roll", "Object_Yaw", "Object_Pitch", "Object_Roll",
       "Object_Scale", "Object_Texture", "Scene_Light")
SOURCES = {
    "imagenet": Source(
        145, "ImageNet's terms of access: for non-commercial research and teaching", "image-net.org",
        by_hand="""\
ImageNet is given out only to people who register at https://image-net.org. From "ILSVRC 2012" there put
    ILSVRC2012_devkit_t12.tar.gz, ILSVRC2012_img_val.tar (6.3 GB)
and, if you mean to train, ILSVRC2012_img_train.tar (138 GB) into {root}/imagenet. torchvision unpacks and
sorts them; then the same with 'train' for 'val':
    python -c "from torchvision.datasets import ImageNet; ImageNet('{root}/imagenet', 'val')"
Or link to a sorted copy that you have elsewhere: {root}/imagenet/val/n01440764/… and so on, and train."""),
    "v2": Source(
        1.3, "code MIT; pictures from Flickr, to be used as ImageNet is",
        "github.com/modestyachts/ImageNetV2",
        (Piece("imagenetv2/imagenetv2-matched-frequency-format-val", (
            Mirror(f"{HF}/datasets/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",
                   "imagenetv2-matched-frequency-format-val",
                   sha("f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c"), 1_264_079_360),
            Mirror("https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-matched-frequency.tar.gz",
                   "imagenetv2-matched-frequency-format-val",
                   sha("a32004f9e773279307499059d320336a23ccdc62cb32063da29bae9bd04c122c"), 1_253_959_680),
            Mirror(f"{HUB}/imagenetv2.zip", "imagenetv2-matched-frequency-format-val"))),)),
    "sketch": Source(
        7.6, "repository MIT; pictures from a web search, their owners keep their rights",
        "github.com/HaohanWang/ImageNet-Sketch",
        (Piece("imagenet-sketch/images", (
            Mirror(drive("1Mj0i5HBthqH1p_yeXzsg22gZduvgoNeA", "ImageNet-Sketch.zip"), "sketch",
                   sha("4d3ce6b82a7c48aabf14aeac105eb533e75707f152cc858f55bfc022031a72ed"), 7_593_573_012),
            Mirror(f"{HF}/datasets/songweig/imagenet_sketch/resolve/main/data/ImageNet-Sketch.zip", "sketch"),
            Mirror(f"{HUB}/imagenet-sketch.zip", "imagenet-sketch/images"))),)),
    "a": Source(
        0.7, "repository MIT; the pictures' owners keep their rights",
        "github.com/hendrycks/natural-adv-examples",
        (Piece("imagenet-adversarial/imagenet-a", (
            Mirror("https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar", "imagenet-a",
                   sha("3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e"), 687_552_512),
            Mirror(f"{HUB}/imagenet-adversarial.zip", "imagenet-a"))),)),
    "r": Source(
        2.2, NONE, "github.com/hendrycks/imagenet-r",
        (Piece("imagenet-rendition/imagenet-r", (
            Mirror("https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar", "imagenet-r",
                   sha("18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52"), 2_191_079_936),
            Mirror(f"{HUB}/imagenet-rendition.zip", "imagenet-r"))),)),
    "pug": Source(
        27, "CC BY-NC, and not to train generative models", "github.com/facebookresearch/PUG",
        (Piece("PUG_ImageNet/classnames.txt"), *(Piece(f"PUG_ImageNet/{variant}", (
            Mirror("https://dl.fbaipublicfiles.com/large_objects/pug/PUG_IMAGENET.tar.gz", variant),))
            for variant in PUG)),
        """\
PUG's class names lie in a folder on Google Drive, which only a browser can list: fetch classnames.txt from
    https://drive.google.com/drive/folders/1VwLorkHbEnZBqM6EuQcxQc3AtoLxyc_L
(linked from docs/datasets.md of github.com/jameelhassan/PromptAlign) and put it there:
    {root}/PUG_ImageNet/classnames.txt""",
        tuple(f"pug_{variant.lower()}" for variant in PUG)),
    "caltech101": Source(
        0.14, "CC BY 4.0", "data.caltech.edu/records/mzrjq-6wc02",
        (coop("caltech-101/split_zhou_Caltech101.json", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
              "caltech-101.zip"),
         Piece("caltech-101/101_ObjectCategories", (
             Mirror("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                    "101_ObjectCategories", "md5:3138e1922a9193bfa496528edbbc45d0",
                    inner="101_ObjectCategories.tar.gz"),
             Mirror(drive("137RyRjvTBkBiIfeYBNZBtViDHQ6_Ewsp", "101_ObjectCategories.tar.gz"),
                    "101_ObjectCategories",
                    sha("af6ece2f339791ca20f855943d8b55dd60892c0a25105fcd631ee3d6430f9926"), 131_740_031),
             Mirror(f"{HUB}/caltech-101.zip", "101_ObjectCategories"))))),
    "oxford_pets": Source(
        0.8, "CC BY-SA 4.0", "robots.ox.ac.uk/~vgg/data/pets",
        (coop("oxford_pets/split_zhou_OxfordPets.json", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
              "oxford_pets.zip"),
         Piece("oxford_pets/images", (
             Mirror(f"{VGG}/pets/data/images.tar.gz", "images",
                    sha("67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d"), 791_918_971),
             Mirror(f"{HUB}/oxford_pets.zip", "oxford_pets/images"))))),
    "stanford_cars": Source(
        2.0, NONE, "ai.stanford.edu/~jkrause/cars",
        (coop("stanford_cars/split_zhou_StanfordCars.json", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
              "stanford_cars.zip"),
         Piece("stanford_cars/cars_train", (
             Mirror(f"{OLD_CARS}/cars_train.tgz", "cars_train",
                    sha("512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288"), 979_269_282),
             Mirror(f"{HUB}/stanford_cars.zip", "cars_train"))),
         Piece("stanford_cars/cars_test", (
             Mirror(f"{OLD_CARS}/cars_test.tgz", "cars_test",
                    sha("bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243"), 977_350_468),
             Mirror(f"{HUB}/stanford_cars.zip", "cars_test"))))),
    "oxford_flowers": Source(
        0.35, NONE, "robots.ox.ac.uk/~vgg/data/flowers/102",
        (coop("oxford_flowers/split_zhou_OxfordFlowers.json", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
              "oxford_flowers.zip"),
         Piece("oxford_flowers/jpg", (
             Mirror(f"{VGG}/flowers/102/102flowers.tgz", "jpg",
                    sha("2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246"), 344_862_509),
             Mirror(f"{HUB}/oxford_flowers.zip", "oxford_flowers/jpg"))))),
    "food101": Source(
        5.0, "pictures of Foodspotting's users: no use beyond scientific fair use",
        "vision.ee.ethz.ch (Food-101)",
        (coop("food-101/split_zhou_Food101.json", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl", "food101.zip",
              github=False),
         Piece("food-101/images", (
             Mirror("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "food-101/images",
                    sha("d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4"), 4_996_278_331),
             Mirror(f"{HUB}/food101.zip", "images"))))),
    "fgvc_aircraft": Source(
        2.8, "for non-commercial research only; the photographers keep their rights",
        "robots.ox.ac.uk/~vgg/data/fgvc-aircraft",
        (Piece("fgvc_aircraft", (
            Mirror(f"{VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", "fgvc-aircraft-2013b/data",
                   sha("d5f68b1b81d6d7831eb9d5c5517074176b5dfbce6bcb43dc14ed1c66a87b8d75"), 2_770_575_360),
            Mirror(f"{HUB}/fgvc_aircraft.zip", "fgvc_aircraft"))),)),
    "sun397": Source(
        39, NONE, "vision.princeton.edu/projects/2010/SUN",
        (coop("sun397/split_zhou_SUN397.json", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq", "sun397.zip",
              github=False),
         Piece("sun397/SUN397", (
             Mirror("http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz", "SUN397",
                    sha("f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec"), 39_077_296_924),
             Mirror(f"{HF}/zhengli97/SUN397_Dataset/resolve/main/SUN397.tar.gz", "SUN397",
                    "md5:8ca2778205c41d23104230ba66911c7a"),
             Mirror(f"{HUB}/sun397.zip", "sun397/SUN397"))))),
    "dtd": Source(
        0.63, "for research", "robots.ox.ac.uk/~vgg/data/dtd",
        (coop("dtd/split_zhou_DescribableTextures.json", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x", "dtd.zip"),
         Piece("dtd/images", (
             Mirror(f"{VGG}/dtd/download/dtd-r1.0.1.tar.gz", "dtd/images",
                    sha("e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205"), 625_239_812),
             Mirror(f"{HUB}/dtd.zip", "dtd/images"))))),
    "eurosat": Source(
        0.1, "MIT; Copernicus Sentinel data", "github.com/phelber/EuroSAT",
        (coop("eurosat/split_zhou_EuroSAT.json", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o", "eurosat.zip"),
         Piece("eurosat/2750", (
             Mirror("https://madm.dfki.de/files/sentinel/EuroSAT.zip", "2750",
                    sha("8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd"), 94_280_567),
             Mirror(f"{HF}/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/"
                    "EuroSAT.zip", "2750", "md5:c8fa014336c82ac7804f0398fcb19387"),
             Mirror(f"{HUB}/eurosat.zip", "2750"))))),
    "ucf101": Source(
        0.14, NONE, "crcv.ucf.edu/data/UCF101.php; the middle frames from CoOp's DATASETS.md",
        (coop("ucf101/split_zhou_UCF101.json", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y", "ucf101.zip"),
         Piece("ucf101/UCF-101-midframes", (
             Mirror(drive("10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O", "UCF-101-midframes.zip"), "UCF-101-midframes"),
             Mirror(f"{HUB}/ucf101.zip", "UCF-101-midframes"))))),
}
