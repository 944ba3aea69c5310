"""Cells to play with: controls above, figures below. Without a reader there are the figures alone."""

import inspect
import os
from collections.abc import Callable, Iterable
from typing import Any


def explore(show: Callable[..., Iterable[Any]], live: bool | None = None, **controls: Any) -> None:
    """Display what `show` returns, and again whenever a reader moves a control.

    show:     a function of the controls, with the values to start from as defaults; it returns figures,
              tables or texts
    live:     whether a reader is there. By default in JupyterLab and Notebook, and not in papermill,
              nbconvert and tests, where only the start is shown
    controls: for each argument a range of whole numbers (low, high), a list of choices, or bool for a switch

    Raises TypeError for an argument without a default or without a control, and the other way round.
    """
    start = {name: p.default for name, p in inspect.signature(show).parameters.items()}
    if set(start) != set(controls) or inspect.Parameter.empty in start.values():
        raise TypeError(f"controls are {', '.join(controls)} and the arguments of {show.__name__} "
                        f"{', '.join(start)}: expected a control and a default for each")
    if live is None:
        live = "JPY_SESSION_NAME" in os.environ            # set by Jupyter's server for a notebook's kernel
    from IPython.display import display

    if not live:
        display(*show())
        return
    import ipywidgets

    boxes = {name: control(name, kind, start[name]) for name, kind in controls.items()}
    output = ipywidgets.interactive_output(lambda **values: display(*show(**values)), boxes)
    display(ipywidgets.VBox([*boxes.values(), output]))


def control(name: str, kind: Any, value: Any) -> Any:
    """The widget for one argument: a slider for (low, high), a menu for a list, a box to tick for bool."""
    import ipywidgets

    if kind is not bool and not isinstance(kind, tuple | list):
        raise TypeError(f"{name}={kind!r}: expected (low, high), a list of choices, or bool")
    about: dict[str, Any] = {"value": value, "description": name.replace("_", " "),
                             "style": {"description_width": "9em"}}
    if kind is bool:
        return ipywidgets.Checkbox(**about, indent=False)
    if isinstance(kind, list):
        return ipywidgets.Dropdown(options=kind, **about)
    return ipywidgets.IntSlider(min=kind[0], max=kind[1], continuous_update=False, **about)
