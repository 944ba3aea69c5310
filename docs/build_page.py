"""Write a notebook as one page that needs no network: `python docs/build_page.py results/demo_07.ipynb`.

`make demo` calls it. The page lies beside the notebook, ends in .html, and holds its pictures, with the texts
that stand for them, and its equations.
"""

import sys
from html import escape
from pathlib import Path

from mathml import to_mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

STYLE = (Path(__file__).parent / "book/book.css").read_text(encoding="utf-8")
# nbconvert's page without what it loads from the network (MathJax, mermaid, require.js, widgets) and with the
# site's style of equations
BLOCKS = {"html_head_js_requirejs": "", "html_head_js_mathjax": "", "html_head_js_mermaidjs": "",
          "jupyter_widgets": "", "html_head_css": f"<style>{STYLE}</style>"}
BLOCKS |= {f"data_{kind} scoped": "{{ super() | described(output.metadata) }}" for kind in ("png", "jpg")}
TEMPLATE = "{%- extends 'lab/index.html.j2' -%}" + "".join(
    f"{{% block {name} %}}{content}{{% endblock %}}" for name, content in BLOCKS.items())


class Typeset(IPythonRenderer):
    """nbconvert's Markdown, with equations as MathML."""

    def inline_math(self, body):
        """An equation within a sentence."""
        return to_mathml(body)

    def block_math(self, body):
        """An equation on a line of its own."""
        return to_mathml(body, block=True)


def to_html(markdown: str) -> str:
    """A Markdown cell as HTML."""
    return MarkdownWithMath(renderer=Typeset(escape=False)).render(markdown)


def described(image: str, metadata: dict) -> str:
    """The HTML of a picture with its alternative text, where the metadata of its output has one."""
    texts = [about["alt"] for kind, about in metadata.items() if kind.startswith("image/") and "alt" in about]
    return image.replace("<img ", f'<img alt="{escape(texts[0])}" ', 1) if texts else image


def build(notebook: Path) -> Path:
    """Write the page of a notebook; its path. Raises ValueError for an equation that cannot be typeset."""
    exporter = HTMLExporter(raw_template=TEMPLATE)
    exporter.register_filter("markdown2html", to_html)
    exporter.register_filter("described", described)
    page, _ = exporter.from_filename(str(notebook))
    target = notebook.with_suffix(".html")
    target.write_text(page, encoding="utf-8")
    return target


if __name__ == "__main__":
    build(Path(sys.argv[1]))
