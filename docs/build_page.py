"""Write a notebook as one page that needs no network: `python docs/build_page.py results/demo_07.ipynb`.

`make demo` calls it. The page lies beside the notebook, with the ending .html, and holds its pictures.
"""

import sys
from pathlib import Path

from mathml import to_mathml, without_network
from nbconvert import HTMLExporter


def build(notebook: Path) -> Path:
    """Write the page of a notebook with its stored outputs, equations typeset; its path."""
    page, _ = HTMLExporter().from_filename(str(notebook))
    target = notebook.with_suffix(".html")
    target.write_text(to_mathml(without_network(page)), encoding="utf-8")
    return target


if __name__ == "__main__":
    build(Path(sys.argv[1]))
