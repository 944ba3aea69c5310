"""The API reference builds, shows every docstring as it is written, and nothing public is without one."""
import html.parser
import importlib
import inspect
import re
import sys

import pytest
from pydantic import BaseModel
from versions import ROOT

sys.path.insert(0, str(ROOT / "docs"))
import build_api  # noqa: E402


def members(thing):
    """(name, object) of the public classes, functions and methods that a module or class defines itself."""
    home = thing.__name__ if inspect.ismodule(thing) else thing.__module__
    for name in getattr(thing, "__all__", sorted(vars(thing))):
        member = inspect.getattr_static(thing, name)
        member = getattr(member, "fget", getattr(member, "__func__", member))       # property, classmethod
        own = getattr(member, "__module__", None) == home and hasattr(member, "__name__")
        # what pydantic's models have, pdoc leaves out
        theirs = inspect.isclass(thing) and issubclass(thing, BaseModel) and name in vars(BaseModel)
        if own and not name.startswith("_") and not theirs:
            yield member.__qualname__, getattr(thing, name)
            if inspect.isclass(member):
                yield from members(member)


MODULES = {name: importlib.import_module(name) for name in build_api.modules()}
DOCUMENTED = [(module, name, member) for module, imported in MODULES.items()
              for name, member in [("", imported), *members(imported)]]


class Text(html.parser.HTMLParser):
    """The text of a page, its source code left out."""

    def __init__(self, page):
        super().__init__()
        self.parts, self.inside = [], 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "div" and (self.inside or "pdoc-code" in (dict(attributes).get("class") or "")):
            self.inside += 1

    def handle_endtag(self, tag):
        self.inside -= tag == "div" and self.inside > 0

    def handle_data(self, data):
        if not self.inside:
            self.parts.append(data)


def bare(text):
    """Without spaces, and without what Markdown takes away: marks of code, emphasis, tables and lists."""
    text = re.sub(r"\*(\w+)\*", r"\1", text)
    return re.sub(r"[\s`|]|---|^ *(-|\d+\.) ", "", text, flags=re.M)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """{"minipsync.clip.text": its page as HTML, …}"""
    folder = tmp_path_factory.mktemp("api")
    build_api.build(folder)
    assert (folder / "index.html").is_file()
    return {name: (folder / f"{name.replace('.', '/')}.html").read_text(encoding="utf-8") for name in MODULES}


@pytest.mark.slow
def test_reference_shows_every_docstring_as_it_is_written(pages):
    shown = {module: bare("".join(Text(page).parts)) for module, page in pages.items()}
    assert not [f"{module} {name}" for module, name, member in DOCUMENTED
                if bare(inspect.getdoc(member) or "") not in shown[module]]


@pytest.mark.slow
def test_reference_needs_no_network(pages):
    loaded = [re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)\s*=\s*["']?([^"'> ]+)""", page)
              for page in pages.values()]
    assert not [place for places in loaded for place in places if re.match(r"(https?:)?//", place)]


def test_everything_public_is_explained():
    """A method may be explained where it is first defined, in a base class."""
    assert len(DOCUMENTED) > 200
    assert not [f"{module} {name}" for module, name, member in DOCUMENTED if not inspect.getdoc(member)]
