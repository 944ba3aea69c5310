"""Typeset the equations of a page when it is made: browsers show MathML by themselves, without a network."""

import html
import re

from latex2mathml.converter import convert

# What is shown as it is written (code, scripts, styles, tags, comments) is matched first, and left alone.
_PARTS = re.compile(r"(?P<code><(?P<tag>pre|code|script|style|textarea)\b.*?</(?P=tag)\s*>)|<!--.*?-->"
                    r"|\$\$(?P<block>.+?)\$\$"
                    r"|(?<![\\\w$])\$(?![\s$])(?P<inline>[^$]*?[^\s\\$])\$(?![\w$])"
                    r"|<[^>]+>", re.S)
_SCRIPT = re.compile(r"<script\b[^>]*>.*?</script\s*>", re.S | re.I)


def to_mathml(page: str) -> str:
    """A page with `$…$` and `$$…$$` of its text as MathML; code is left as it is.

    Raises ValueError, with the equation, where one cannot be typeset.
    """
    return _PARTS.sub(_typeset, page)


def without_network(page: str) -> str:
    """A page without the scripts that load something from the network: MathJax, mermaid, require.js."""
    return _SCRIPT.sub(lambda found: "" if _loads(found[0]) else found[0], page)


def _loads(script: str) -> bool:
    return bool(re.search(r"""(\bsrc\s*=\s*|\bfrom\s+|\bimport\s*\(?\s*|\.src\s*=\s*)["'](https?:)?//""", script))


def _typeset(found: re.Match[str]) -> str:
    latex = found["block"] or found["inline"]
    if latex is None:
        return found[0]
    try:
        return convert(html.unescape(latex).strip(), display="block" if found["block"] else "inline")
    except Exception as error:                       # latex2mathml has an error for each kind of mistake
        raise ValueError(f"the equation {latex!r} cannot be typeset ({type(error).__name__}: {error}); "
                         "write it with the LaTeX that latex2mathml knows") from error
