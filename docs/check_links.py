"""Find what is broken in a folder of HTML pages: `python docs/check_links.py build/book`.

Every link, picture, script and style that lies in the folder has to be there, with the anchor that the link names;
none that a page loads may lie elsewhere, as the pages are read without a network. Links that a reader follows to
other sites are not followed.
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


class Page(html.parser.HTMLParser):
    """The places that a page names, as (tag, place), and its anchors."""

    def __init__(self, text: str):
        super().__init__()
        self.places: list[tuple[str, str]] = []
        self.anchors: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif name == "srcset":
                self.places += [(tag, part.split()[0]) for part in (value or "").split(",") if part.split()]
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
        for tag, place in _read(path).places:
            if why := _why(folder, path, tag, place):
                found.append(f"{path.relative_to(folder)}: {place!r}, {why}")
    for path in sorted(folder.rglob("*.css")):
        for place in re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""",
                                path.read_text(encoding="utf-8")):
            if why := _why(folder, path, "style", "".join(place)):
                found.append(f"{path.relative_to(folder)}: {''.join(place)!r}, {why}")
    return list(dict.fromkeys(found))


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
        return "is loaded from elsewhere" if parts.scheme in ("http", "https", "") else "is nothing a browser knows"
    if parts.path.startswith("/"):
        return "begins with /, which is no folder of this site"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if folder not in [target, *target.parents]:
        return "leads out of the site"
    if not target.is_file():
        return "is a folder, not a page" if target.is_dir() else "is not there"
    if parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in _read(target).anchors:
        return "has no such anchor"
    return ""


if __name__ == "__main__":
    lines = broken(Path(sys.argv[1]))
    print("\n".join(lines) or "no broken link")
    sys.exit(bool(lines))
