"""How Sphinx shows the pages of docs/build_book.py: notebooks as stored, and nothing from a network."""

import posixpath
import sys
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mathml import to_mathml  # noqa: E402
from methods_links import anchor, mentions  # noqa: E402

project = html_title = "minipsync"
extensions = ["myst_nb"]
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"                    # equations in what a cell says, too
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4                             # anchors of headings as GitHub makes them
myst_url_schemes = ["http", "https", "mailto", "api"]
suppress_warnings = ["myst.header"]                  # a level of headings may be left out
highlight_language = "none"                          # a block is code where it says so
html_theme = "furo"
html_math_renderer = "mathml"
html_static_path, html_css_files = ["book.css"], ["book.css"]
html_use_index = html_copy_source = html_show_sphinx = html_show_copyright = False
html_show_search_summary = False                     # it is fetched, which a page opened from a disk cannot
METHODS = "docs/METHODS"


class Links(SphinxPostTransform):
    """"METHODS 5.9.2" in a sentence leads there, and "api:…" to the page of a module."""

    default_priority = 999                           # when links between pages have been resolved

    def run(self, **_):
        """Change the links of one page."""
        page = self.env.docname
        folder = posixpath.dirname(page) or "."
        methods = "" if page == METHODS else posixpath.relpath(f"{METHODS}.html", folder)
        for link in self.document.findall(nodes.reference):
            address = link.get("refuri", "")
            if address.startswith("api:"):
                link["refuri"] = posixpath.relpath(f"api/{address.removeprefix('api:')}", folder)
                link["internal"] = True
            elif methods and address == methods:
                for mention in mentions(link.astext()):
                    link["refuri"] = f"{methods}#{anchor(mention.keys[0])}"
        if methods:
            for text in list(self.document.findall(nodes.Text)):
                if not _within(text, nodes.reference, nodes.literal, nodes.literal_block, nodes.raw):
                    self._link(text, methods)

    def _link(self, text, methods):
        """Put links for the sections that a piece of text names; "METHODS" belongs to the first of them."""
        before = _before(text)
        whole, done, made = before + str(text), len(before), []
        for mention in mentions(whole):
            start, end = mention.start, mention.end
            head = whole[done:start]
            if head.endswith("METHODS "):
                start -= len("METHODS ")
            if start < done:
                continue
            made.append(nodes.Text(whole[done:start]))
            link = nodes.reference(refuri=f"{methods}#{anchor(mention.keys[0])}", internal=True)
            link += nodes.inline("", whole[start:end])
            made.append(link)
            done = end
        if made:
            text.parent.replace(text, [*made, nodes.Text(whole[done:])])


class Alternatives(SphinxPostTransform):
    """Pictures in the outputs of a cell get the text that stands for them, from the cell's metadata: myst-nb
    takes their width from there, and has one text for all pictures of a cell."""

    default_priority = 998                           # when the kind of each output has been chosen

    def run(self, **_):
        """Change the pictures of one page."""
        for cell in self.document.findall(nodes.container):
            if texts := cell.get("cell_metadata", {}).get("alternatives"):
                for image, text in zip(cell.findall(nodes.image), texts, strict=True):
                    if text:
                        image["alt"] = text


def _before(text):
    """What a link right before a piece of text says, as in "[METHODS.md](…), section 3.1", else ""."""
    place = text.parent.index(text)
    previous = text.parent[place - 1] if place else None
    return previous.astext() if isinstance(previous, nodes.reference) else ""


def _within(node, *kinds):
    """Whether a node lies in one of these kinds."""
    while node is not None:
        if isinstance(node, kinds):
            return True
        node = node.parent
    return False


def _typeset(block):
    def visit(translator, node):
        translator.body.append(to_mathml(node.astext(), block))
        raise nodes.SkipNode
    return visit


def setup(app):
    """Sphinx calls this."""
    app.add_html_math_renderer("mathml", (_typeset(False), None), (_typeset(True), None))
    app.add_post_transform(Links)
    app.add_post_transform(Alternatives)
