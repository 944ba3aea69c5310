"""Equations as MathML, which browsers show by themselves: nothing has to be loaded to read them."""

import re

from latex2mathml.converter import convert


def to_mathml(latex: str, block: bool = False) -> str:
    r"""A formula in LaTeX, without its `$`, as a `<math>` element; with `block`, on a line of its own.

    Raises ValueError where latex2mathml cannot read it, or does not know one of its commands.
    """
    braced = re.sub(r"\\mathcal\s+([A-Z])", r"\\mathcal{\1}", latex.strip())    # else a plain letter
    try:
        element = convert(braced, display="block" if block else "inline")
    except Exception as error:                       # latex2mathml has an error for each kind of mistake
        raise ValueError(f"the equation {latex!r} cannot be typeset ({type(error).__name__}: {error}); "
                         "expected LaTeX that latex2mathml knows, so write it in another way") from error
    if unknown := re.findall(r"<m[a-z]+>(\\[A-Za-z]+)", element):      # left as it is, without an error
        raise ValueError(f"the equation {latex!r} has the command {unknown[0]}; "
                         "expected LaTeX that latex2mathml knows, so write it in another way")
    # as in TeX: \Big( has its size wherever it stands, and the signs |, ‖ and / have no space beside them
    element = element.replace("<mo minsize=", '<mo stretchy="true" minsize=')
    return re.sub(r"<mo([^>]*)>(&#x(?:0007C|02016|0002F);)</mo>", r'<mo\1 lspace="0" rspace="0">\2</mo>',
                  element)
