"""Write the book, notebooks, guides and API reference in one static site: `python docs/build_book.py build/book`.

`make book` calls it. The pages need no network, neither to be made nor to be read: no script, style, picture or
font of theirs lies elsewhere. Notebooks are shown with the outputs they are stored with. A broken link, picture or
anchor stops the build.
"""

import re
import shutil
import sys
import tempfile
from pathlib import Path

import build_api
from mkdocs.commands.build import build as build_site
from mkdocs.config import load_config

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "minipsync/assets/MODEL_CARD.md", "docs/*.md",
         "docs/mini/*", "notebooks/*.ipynb"]


def stage(folder: Path) -> None:
    """Copy what becomes a page to a folder, in the repository's own tree, so that links between pages hold."""
    for path in sorted(path for pattern in PAGES for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT)
        target = folder / ("index.md" if str(name) == "README.md" else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target.write_text(lead_to_pages(path.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            shutil.copyfile(path, target)


def lead_to_pages(text: str) -> str:
    """Markdown with links to the package's code led to its API reference, and links to other folders taken off."""
    text = re.sub(r"\]\((minipsync/methods(?:/\w+)?)(?:\.py)?\)", r"](api/\1.html)", text)
    text = re.sub(r"\[([^\]]+)\]\((?:notebooks/exercises|results/\w+)\)", r"\1", text)
    return text.replace("](README.md)", "](index.md)")


def build(folder: Path) -> None:
    """Write the site to a folder. Raises mkdocs' Abort where something does not fit."""
    with tempfile.TemporaryDirectory() as staged:
        stage(Path(staged))
        build_api.build(Path(staged) / "api")
        build_site(load_config(str(HERE / "mkdocs.yml"), docs_dir=staged, site_dir=str(folder.resolve()),
                               strict=True))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
