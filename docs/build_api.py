"""Write the API reference, a page per module, from the docstrings: `python docs/build_api.py docs/api`.

`make docs` calls it. The pages need no network, neither to be made nor to be read.
"""

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import minipsync


def modules() -> list[str]:
    """Names of all modules of the package but the one that runs it: ["minipsync", "minipsync.clip", …]."""
    found = pkgutil.walk_packages(minipsync.__path__, "minipsync.")
    return ["minipsync", *(module.name for module in found if module.name != "minipsync.__main__")]


def build(folder: Path, site: str = "") -> None:
    """Write index.html and a page for each of `modules()` to `folder`.

    site: a page beside `folder`, such as "index.html", to which every page leads back; "" for none.
    """
    pdoc.render.env.globals["site"] = site
    pdoc.render.configure(docformat="markdown", template_directory=Path(__file__).parent / "pdoc",
                          footer_text=f"minipsync {minipsync.__version__}")
    with warnings.catch_warnings():
        # pdoc finds the modules of a package by itself, unless the package says what it offers (__all__)
        warnings.filterwarnings("ignore", "The module specification .* adds a module named")
        pdoc.pdoc(*modules(), output_directory=folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
