"""What mkdocs calls for each page of the book: equations of notebooks become MathML, nothing is loaded."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from mathml import to_mathml, without_network  # noqa: E402


def on_post_page(output, page, config):
    """The page as it is written to disk; only notebooks have equations, elsewhere a $ is a shell's."""
    output = without_network(output)
    return to_mathml(output) if page.file.src_uri.endswith(".ipynb") else output
