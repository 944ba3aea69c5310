"""Find what is broken in a folder of HTML pages: `python docs/check_links.py build/book`.

Every link, picture, script and style that lies in the folder has to be there, with the anchor that the link
names; none that a page loads may lie elsewhere, as the pages are read without a network. Links that a reader
follows to other sites are not followed.
"""

import html.parser
import re
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

# attributes that name a place; all but those of <a> and <area> are loaded with the page
PLACES = {"href", "src", "poster", "data", "srcset"}
FOLLOWED = {"a", "area"}
# url(x), url("x"), @import "x"; one within another's quotes, as in a picture that is written out, is no place
STYLED = re.compile(r"""url\(\s*(?:"([^"]+)"|'([^']+)'|([^"')\s]+))\s*\)|@import\s+["']([^"']+)""")


class Page(html.parser.HTMLParser):
    """The places that a page names, as (tag, place), and its anchors."""

    def __init__(self, text: str):
        super().__init__()
        self.places: list[tuple[str, str]] = []
        self.anchors: set[str] = set()
        self._in_style = False
        self.feed(text)
        self.close()

    def handle_data(self, data):
        if self._in_style:
            self.places += _loaded_by(data)

    def handle_endtag(self, tag):
        self._in_style = False

    def handle_starttag(self, tag, attrs):
        self._in_style = tag == "style"
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif name == "srcset":
                self.places += [(tag, part.split()[0]) for part in (value or "").split(",") if part.split()]
            elif name == "style":
                self.places += _loaded_by(value or "")
            elif name in PLACES and (name != "data" or tag == "object"):
                self.places.append((tag, value or ""))
        if tag == "meta" and (dict(attrs).get("http-equiv") or "").lower() == "refresh":
            if found := re.search(r"url\s*=\s*['\"]?([^'\"]+)", dict(attrs).get("content") or "", re.I):
                self.places.append(("a", found[1].strip()))


def broken(folder: Path) -> list[str]:
    """What is broken in the pages of a folder, a line each: the page, the place that it names, and why."""
    folder = folder.resolve()
    pages = sorted(folder.rglob("*.html"))
    if not pages:
        raise FileNotFoundError(f"no page (*.html) in {folder}: build the site first")
    found = []
    for path in pages:
        found += _wrong(folder, path, _read(path).places)
    for path in sorted(folder.rglob("*.css")):
        found += _wrong(folder, path, _loaded_by(path.read_text(encoding="utf-8")))
    return list(dict.fromkeys(found))


def _wrong(folder: Path, path: Path, places: list[tuple[str, str]]) -> list[str]:
    """A line for each broken place of a page or style."""
    reasons = [(place, _why(folder, path, tag, place)) for tag, place in places]
    return [f"{path.relative_to(folder).as_posix()}: {place!r}, {why}" for place, why in reasons if why]


def _loaded_by(style: str) -> list[tuple[str, str]]:
    """The places that a style loads, as ("style", place); comments load nothing."""
    found = STYLED.findall(re.sub(r"/\*.*?\*/", "", style, flags=re.S))
    return [("style", next(filter(None, places))) for places in found]


@cache
def _read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def _why(folder: Path, page: Path, tag: str, place: str) -> str:
    """Why a place that a page names is broken, or ""."""
    try:
        parts = urlsplit(place)
    except ValueError as error:
        return f"is no address ({error})"
    if parts.scheme in ("data", "mailto", "javascript"):
        return ""
    if parts.scheme or parts.netloc:
        if parts.scheme in ("http", "https") and tag in FOLLOWED:
            return ""
        web = parts.scheme in ("http", "https", "")
        return "is loaded from elsewhere" if web else "is nothing that a browser knows"
    if parts.path.startswith("/"):
        return "begins with /, which is no folder of this site"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if folder not in [target, *target.parents]:
        return "leads out of the site"
    if not target.is_file():
        return "is a folder, not a page" if target.is_dir() else "is not there"
    if parts.fragment and target.suffix == ".html":
        if not {parts.fragment, unquote(parts.fragment)} & _read(target).anchors:    # browsers look for both
            return "has no such anchor"
    return ""


if __name__ == "__main__":
    lines = broken(Path(sys.argv[1]))
    print("\n".join(lines) or "no broken link")
    sys.exit(bool(lines))
