"""The site of `make book`: no broken link, equations as MathML, every section named is in METHODS."""
import base64
import importlib.util
import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from versions import ROOT, declared

sys.path.insert(0, str(ROOT / "docs"))
import build_page  # noqa: E402
from check_links import Page, broken  # noqa: E402
from mathml import to_mathml  # noqa: E402
from methods_links import anchor, mentions, sections, with_anchors  # noqa: E402

METHODS = (ROOT / "docs/METHODS.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
SOLUTIONS = sorted(ROOT.glob("notebooks/solutions/*.ipynb"))
MODULES = {"sphinx": "sphinx", "myst-nb": "myst_nb", "furo": "furo", "docutils": "docutils"}
MISSING = [name for name in declared()["book"] if not importlib.util.find_spec(MODULES[name])]


def keys(text, later=False):
    """The numbers of the sections that a text names."""
    return [key for mention in mentions(text, later) for key in mention.keys]


def texts():
    """(where, text) of all that may mention METHODS: code, guides, cells of notebooks."""
    folders = ["minipsync", "benchmarks", "data_scripts", "docs", "tests", "notebooks"]
    for path in [*ROOT.glob("*.md"), *(path for folder in folders for path in ROOT.glob(f"{folder}/**/*"))]:
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in (".md", ".py") and name not in ("tests/test_book.py", "docs/methods_links.py"):
            yield name, path.read_text(encoding="utf-8")
        elif path.suffix == ".ipynb" and ("exercises" not in path.parts or "source" in path.parts):
            for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
                yield name, "".join(cell["source"])


@pytest.mark.parametrize(("text", "found"), [
    ("(METHODS 5.9.2) and", ["5.9.2"]),
    ("(METHODS 3.1, 3.6).", ["3.1", "3.6"]),
    ("METHODS 3.5 and 3.6.", ["3.5", "3.6"]),
    ("(METHODS 3.1 to 3.3)", ["3.1", "3.3"]),
    ("(METHODS 6, point 11).", ["6.11"]),
    ("(METHODS 4; 6, points 1 and 2).", ["4", "6.1", "6.2"]),
    ("(METHODS 5.2; 6, point 18).", ["5.2", "6.18"]),
    ("(METHODS 7d), (METHODS 7, j)", ["7.d", "7.j"]),
    ("(METHODS\n# 5.2; the paper's)", ["5.2"]),
    ("docs/METHODS.md,\n5.8)", ["5.8"]),
    ("[METHODS.md](METHODS.md), section 3.1, and", ["3.1"]),
    ("[METHODS 5.9](docs/METHODS.md)", ["5.9"]),
    ("METHODS[label] of METHODS 100 %", ["100"]),
    ("METHODS has the equations", []),
    ("METHODS 6, a list", ["6"]),
])
def test_mentions_are_understood(text, found):
    assert keys(text) == found


def test_a_number_in_brackets_counts_where_methods_is_named():
    assert keys("docs/METHODS.md has the choices (5.9.4)", later=True) == ["5.9.4"]
    assert not keys("docs/METHODS.md has the choices (5.9.4)") and not keys("version (2.10.0)", later=True)


def test_sections_and_points_are_numbered():
    text = ("# T\n\n## 6. Quirks\n 1 one\n   more\n 2 two (3)\n12 tries were made\n"
            "## 7. Compute\n a Cut it\n b Pack\n"
            "### 7.1 More\n7.1.1 Formulas\nh =\n  x = 1\n  y = 2\n| a |\n|---|\n| b |\nafter\n8.1 of others")
    assert sections(text) == ["6", "6.1", "6.2", "7", "7.a", "7.b", "7.1", "7.1.1"]
    shown = with_anchors(text)
    assert [line for line in shown.splitlines() if line.startswith("(section")] == [
        f"({anchor(key)})=" for key in sections(text)]
    assert "\n\n(section-6-2)=\n**2** two (3)\n" in shown            # a paragraph of its own
    assert "  x = 1\\\n  y = 2" in shown and "| b |\n\nafter" in shown


def test_sections_of_methods_are_found_once():
    found = sections(METHODS)
    assert len(found) == len(set(found)) and {"1", "3.8", "5.10", "5.9.4", "6.25", "7.l", "8.1"} <= set(found)
    headings = re.findall(r"^#{2,} (\d[\d.]*\d|\d)", METHODS, re.M)
    assert len(headings) > 20 and set(headings) <= set(found)


def test_every_mentioned_section_exists():
    known, found = set(sections(METHODS)), 0
    wrong = []
    for name, text in texts():
        for key in keys(text, later=name.endswith(".py")):
            found += 1
            wrong += [f"{name} names METHODS {key}"] if key not in known else []
    assert found > 80 and not wrong


def test_equations_become_mathml():
    inline = to_mathml(r"\theta' \in \mathbb{R}^D")
    block = to_mathml(r"\frac1K \sum_k \lVert x_k\rVert", block=True)
    assert inline.startswith("<math") and 'display="inline"' in inline and "&#x003B8;" in inline
    assert 'display="block"' in block and "<mfrac>" in block and "<munder>" in block
    assert '<mo stretchy="true" minsize="1.623em"' in to_mathml(r"x\Big(y\Big)")
    assert "&#x02112;" in to_mathml(r"\mathcal L_D") == to_mathml(r"\mathcal{L}_D")        # ℒ, not L
    assert to_mathml("1/|A|").count('lspace="0" rspace="0"') == 3


@pytest.mark.parametrize("latex", [r"\frac{1}{", r"\nosuchcommand x"])
def test_an_equation_that_cannot_be_typeset_is_named(latex):
    with pytest.raises(ValueError, match=re.escape(repr(latex))):
        to_mathml(latex)


def test_a_page_of_a_notebook_needs_no_network(tmp_path):
    cells = [nbformat.v4.new_markdown_cell("# 1 · A\n\nCost `$5`, with $x_i < 2$ and\n\n$$\\sum_i x_i$$"),
             nbformat.v4.new_code_cell("print('$HOME')")]
    notebook = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), notebook)
    page = build_page.build(notebook).read_text(encoding="utf-8")
    assert page.count("<math") == 2 and "$x_i" not in page and "$$" not in page and "<code>$5</code>" in page
    assert "MathJax" not in page and "STIX Two Math" in page and broken(tmp_path) == []


@pytest.fixture
def described(tmp_path):
    """A notebook with three pictures in a cell, the second without an alternative text; and the texts."""
    alts = ['Bars: 5 < 7, & "so"', None, "A line"]
    outputs = []
    for k, (kind, alt) in enumerate(zip(("image/png", "image/png", "image/jpeg"), alts, strict=True)):
        Image.new("RGB", (8 + k, 8)).save(raw := io.BytesIO(), kind.removeprefix("image/"))
        metadata = {} if alt is None else {kind: {"alt": alt, "width": 400}}
        data = {kind: base64.b64encode(raw.getvalue()).decode(), "text/plain": "a figure"}
        outputs.append(nbformat.v4.new_output("display_data", data, metadata=metadata))
    cells = [nbformat.v4.new_code_cell("draw()", outputs=outputs)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "described.ipynb")
    return tmp_path / "described.ipynb", alts


def pictures(page):
    """The <img> tags of a page that hold figures of a notebook, as dicts of their attributes."""
    class Parser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            src = dict(attrs).get("src", "")
            if tag == "img" and (src.startswith("data:image/") or "_images/" in src):
                found.append(dict(attrs))
    found = []
    Parser().feed(page)
    return found


def test_pictures_of_a_page_have_their_texts(described):
    notebook, alts = described
    shown = pictures(build_page.build(notebook).read_text(encoding="utf-8"))
    assert [image["alt"] for image in shown][::2] == alts[::2] and shown[0]["width"] == "400"
    assert len(shown) == 3 and shown[1]["alt"] not in alts                 # nbconvert's own words for a lack


@pytest.mark.slow
def test_equations_of_all_notebooks_are_typeset(tmp_path):
    """Also those of the demo, which is notebook 07."""
    for path in [*NOTEBOOKS, *SOLUTIONS]:
        page = build_page.build(Path(shutil.copy(path, tmp_path))).read_text(encoding="utf-8")
        text = re.sub(r"<(pre|code|script|style)\b.*?</\1>|<[^>]+>", "", page, flags=re.S)
        assert "$" not in text, path.name
        assert path.name.startswith("00") or path in SOLUTIONS or "<math" in page, path.name


PAGE = '<a href="other.html#there">there</a><h1 id="top">T</h1><img src="a%20b.png"><a href="#top">up</a>'


@pytest.fixture
def site(tmp_path):
    """A folder with two pages, a picture and a style, without a broken link."""
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "sub").mkdir()
    (tmp_path / "other.html").write_text('<p id="there"><a href="http://a.org/x"><a href="sub/p.html">')
    (tmp_path / "sub/p.html").write_text('<link rel=stylesheet href="../s.css"><a href="../index.html#top">')
    (tmp_path / "s.css").write_text("p { background: url('a b.png') }")
    (tmp_path / "a b.png").write_bytes(b"")
    return tmp_path


def test_a_sound_site_has_no_broken_link(site):
    assert broken(site) == []


@pytest.mark.parametrize(("planted", "why"), [
    ('<a href="nowhere.html">', "is not there"),
    ('<img src="pictures/none.png">', "is not there"),
    ('<a href="other.html#nowhere">', "has no such anchor"),
    ('<a href="#nowhere">', "has no such anchor"),
    ('<a href="sub/">', "is a folder, not a page"),
    ('<a href="../outside.html">', "leads out of the site"),
    ('<a href="/other.html">', "begins with /, which is no folder of this site"),
    ('<a href="api:x.html">', "is nothing that a browser knows"),
    ('<script src="https://example.org/x.js"></script>', "is loaded from elsewhere"),
    ('<link rel="stylesheet" href="//example.org/x.css">', "is loaded from elsewhere"),
    ('<img srcset="a%20b.png 1x, none.png 2x">', "is not there"),
    ('<meta http-equiv="refresh" content="0; url=./none.html">', "is not there"),
    ("<style>p { background: url(none.png) }</style>", "is not there"),
])
def test_a_planted_broken_link_is_found(site, planted, why):
    (site / "sub/deep.html").write_text(planted.replace("sub/", "../sub/"))
    (site / "index.html").write_text(PAGE + planted)
    assert [line for line in broken(site) if line.startswith("index.html: ") and line.endswith(f", {why}")]


def test_a_style_that_loads_from_elsewhere_is_found(site):
    (site / "s.css").write_text('@import "https://example.org/fonts.css";')
    assert broken(site) == ["s.css: 'https://example.org/fonts.css', is loaded from elsewhere"]


def test_a_folder_without_pages_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="build the site first"):
        broken(tmp_path)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The folder of the whole site. `build` raises RuntimeError for a broken link."""
    if MISSING:
        pytest.skip(f"the extra `book` is not installed (no {MISSING[0]}); `make book` installs it")
    import build_book
    folder = tmp_path_factory.mktemp("book")
    build_book.build(folder)
    return folder


def read(folder, name):
    return (folder / name).read_text(encoding="utf-8")


@pytest.mark.slow
def test_site_has_every_page_and_no_broken_link(book):
    pages = ["index", *(f"notebooks/{path.stem}" for path in NOTEBOOKS), "docs/METHODS", "docs/mini",
             "docs/full", "docs/data", "minipsync/assets/MODEL_CARD", "CONTRIBUTING", "CHANGELOG", "api",
             "api/minipsync/methods/tpt", "search"]
    pages += [f"notebooks/solutions/{path.stem}" for path in SOLUTIONS]
    assert not [page for page in pages if not (book / f"{page}.html").is_file()]
    assert broken(book) == []
    assert "METHODS" in read(book, "searchindex.js")
    for path in SOLUTIONS:                                             # each leads to its notebook
        assert f'href="../{path.stem}.html"' in read(book, f"notebooks/solutions/{path.stem}.html"), path.name


@pytest.mark.slow
def test_site_shows_every_figure_and_equation_of_the_notebooks(book):
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
        figures = [data for data in outputs if any(kind.startswith("image/") for kind in data)]
        page = read(book, f"notebooks/{path.stem}.html")
        shown = [place for tag, place in Page(page).places if tag == "img" and "_images/" in place]
        assert figures and len(shown) >= len(figures), path.name
        text = re.sub(r"<(pre|code|script|style)\b.*?</\1>|<[^>]+>", "", page, flags=re.S)
        assert "$" not in text, path.name
        assert path.name.startswith("00") or "<math" in page, path.name


@pytest.mark.slow
def test_pictures_of_the_site_have_their_texts(book):
    """In the order of the notebook, and as wide as it says."""
    found = 0
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        about = [output["metadata"][kind] for cell in cells for output in cell.get("outputs", [])
                 for kind in output.get("data", {}) if "alt" in output.get("metadata", {}).get(kind, {})]
        shown = pictures(read(book, f"notebooks/{path.stem}.html"))
        kept = [(image["alt"], image.get("width")) for image in shown if image["alt"] != image["src"]]
        described = [(one["alt"], str(one["width"])) for one in about]
        assert [each for each in kept if each in described] == described, path.name
        found += len(described)
    assert found


def test_each_picture_of_a_cell_keeps_its_own_text(described, tmp_path):
    """One that has none keeps none."""
    if MISSING:
        pytest.skip(f"the extra `book` is not installed (no {MISSING[0]}); `make book` installs it")
    import build_book
    path, alts = described
    notebook = nbformat.read(path, as_version=4)
    (cell,) = notebook.cells
    cell.metadata["alternatives"] = build_book.alternatives(cell.outputs)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# X"))
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.md").write_text("# T\n\n```{toctree}\nx\n```\n")
    nbformat.write(notebook, pages / "x.ipynb")
    options = ["-q", "-c", str(ROOT / "docs/book"), "-d", str(tmp_path / "states")]
    assert build_book.sphinx([*options, str(pages), str(tmp_path / "site")]) == 0
    shown = pictures(read(tmp_path / "site", "x.html"))
    assert [image["alt"] for image in shown][::2] == alts[::2] and shown[1]["alt"] == shown[1]["src"]


@pytest.mark.slow
def test_notebooks_lead_to_the_next_and_back(book):
    names = ["index", *(f"notebooks/{path.stem}" for path in NOTEBOOKS)]
    for before, after in zip(names, names[1:], strict=False):
        href = {page: re.findall(r'<a class="(next|prev)-page" href="([^"]+)"', read(book, f"{page}.html"))
                for page in (before, after)}
        to, back = dict(href[before])["next"], dict(href[after])["prev"]
        assert to.split("/")[-1] == f"{after.split('/')[-1]}.html"
        assert back.split("/")[-1] == f"{before.split('/')[-1]}.html"


@pytest.mark.slow
def test_mentions_of_methods_are_links_in_the_site(book):
    """As many as the Markdown of notebooks, README and guides names, but within METHODS itself."""
    ids = Page(read(book, "docs/METHODS.html")).anchors
    assert {anchor(key) for key in sections(METHODS)} <= ids
    assert 'href="../docs/METHODS.html#section-6-11"><span>METHODS 6, point 11<' in read(
        book, "notebooks/03_cocoop.html")
    assert 'href="docs/METHODS.html#section-5-9"' in read(book, "index.html")
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        source = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        linked = re.findall(r"METHODS\.html#section-", read(book, f"notebooks/{path.stem}.html"))
        assert len(linked) == sum(len(list(mentions(text))) for text in source), path.name
