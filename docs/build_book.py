"""Write notebooks, guides and API reference as one static site: `python docs/build_book.py build/book`.

`make book` calls it. The pages need no network, neither to be made nor to be read: no script, style, picture
or font of theirs lies elsewhere. Notebooks are shown with the outputs they are stored with. A broken link,
picture or anchor stops the build.
"""

import inspect
import json
import os
import re
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path, PurePosixPath

import build_api
from check_links import broken
from methods_links import with_anchors
from sphinx.cmd.build import main as sphinx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FRONT = "index.md"                                       # README.md is the front page
CARD = "minipsync/assets/MODEL_CARD.md"
GUIDES = ["docs/METHODS.md", "docs/mini.md", "docs/full.md", "docs/data.md"]
PICTURES = {".webp", ".png", ".jpg", ".svg"}
# code, in fences, indented or within a line, has no links
CODE = r"(?P<code>^(?P<fence>```+)[\s\S]*?^(?P=fence)|^(?: {4}|\t).*$|`[^`\n]+`(?!\]))"
LINK = r"(?P<picture>!?)\[(?P<text>[^\[\]]*(?:\[[^\]]*\][^\[\]]*)*)\]\((?P<place>[^()\s]+)\)"


def pages() -> dict[str, list[str]]:
    """{caption: paths in the repository} of all pages but the front page, in the order of reading."""
    notebooks = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("notebooks/*.ipynb"))
    solutions = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("notebooks/solutions/*.ipynb"))
    others = sorted({path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")} - set(GUIDES))
    return {"Notebooks": notebooks, "Guides": [*GUIDES, *others, CARD], "Solutions": solutions,
            "Project": ["CONTRIBUTING.md", "CHANGELOG.md"]}


def lead_to_pages(text: str, page: str, known: set[str]) -> str:
    """The Markdown of `page` with links that fit the site: to its pages, and for code to the API reference.

    A link to another file or folder of the repository becomes its text, as the site does not have it. One
    that leads nowhere is left as it is, and stops the build.
    """
    def lead(found: re.Match[str]) -> str:
        place, _, fragment = (found["place"] or "").partition("#")
        if found["code"] or found["picture"] or not place or re.match(r"[a-z]+:", place):
            return found[0]
        target = PurePosixPath(os.path.normpath(PurePosixPath(page).parent / place)).as_posix()
        if target == "README.md":
            front = os.path.relpath(FRONT, PurePosixPath(page).parent)
            return f"[{found['text']}]({front}{'#' + fragment if fragment else ''})"
        module = target.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if target not in known and module in build_api.modules():
            return f"[{found['text']}](api:{module.replace('.', '/')}.html)"
        return found["text"] if target not in known and (ROOT / target).exists() else found[0]
    return re.sub(f"{CODE}|{LINK}", lead, text, flags=re.M)


def stage(folder: Path) -> None:
    """Lay out what becomes a page, in the repository's own tree, so that links between pages hold."""
    paths = ["README.md", *(path for group in pages().values() for path in group)]
    pictures = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*")
                if path.suffix in PICTURES]
    known = {*paths, *pictures}
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    for name in paths:
        text = (ROOT / name).read_text(encoding="utf-8")
        target = folder / (FRONT if name == "README.md" else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".ipynb"):
            notebook = json.loads(text)
            for cell in notebook["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = lead_to_pages("".join(cell["source"]), name, known)
                else:
                    cell["metadata"]["alternatives"] = alternatives(cell["outputs"])
            text = json.dumps(notebook)
        else:
            text = lead_to_pages(with_anchors(text) if name == "docs/METHODS.md" else text, name, known)
        target.write_text(text, encoding="utf-8")
    (folder / "api.md").write_text(list_of_modules(), encoding="utf-8")
    with (folder / FRONT).open("a", encoding="utf-8") as front:
        front.write("".join(map(contents, pages(), pages().values())))


def alternatives(outputs: list[dict]) -> list[str]:
    """The alternative text of each picture in a cell's outputs, "" where it has none; conf.py sets them."""
    found = [(output, kind) for output in outputs
             for kind in output.get("data", {}) if kind.startswith("image/")]
    return [output.get("metadata", {}).get(kind, {}).get("alt", "") for output, kind in found]


def contents(caption: str, paths: list[str]) -> str:
    """A part of the table of contents; the API reference stands before what is about the project."""
    reference = ["api"] if caption == "Project" else []
    names = "\n".join([*reference, *(str(PurePosixPath(path).with_suffix("")) for path in paths)])
    names = names.replace("docs/METHODS", "METHODS: what every method computes <docs/METHODS>")
    return f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n{names}\n```\n"


def list_of_modules() -> str:
    """A page that leads to the API reference: each module with the first sentence of its docstring."""
    lines = ["# API reference", "", "What the docstrings say, a page for each module.", "",
             "| module | |", "|---|---|"]
    for name in build_api.modules():
        first = (inspect.getdoc(import_module(name)) or "").split("\n\n")[0].replace("\n", " ")
        first = first.replace("|", r"\|")
        lines.append(f"| [`{name}`](api:{name.replace('.', '/')}.html) | {first} |")
    return "\n".join(lines) + "\n"


def build(folder: Path) -> None:
    """Write the site to a folder. Raises RuntimeError where Sphinx warns, or a link is broken."""
    with tempfile.TemporaryDirectory() as parent:
        staged, states = Path(parent) / "pages", Path(parent) / "states"
        staged.mkdir()
        stage(staged)
        options = ["-q", "-W", "--keep-going", "-c", str(HERE / "book"), "-d", str(states)]
        if sphinx([*options, str(staged), str(folder)]):
            raise RuntimeError(f"Sphinx did not make {folder}: mend what it complains of above, in the page "
                               "that it names")
    build_api.build(folder / "api", site="index.html")
    if lines := broken(folder):
        raise RuntimeError("\n".join(["these links are broken; mend them in the pages named:", *lines]))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
