"""The progress bar of an evaluation, in a terminal and in a notebook."""

import contextlib
import sys
import threading
from collections.abc import Iterator

from tqdm import tqdm

TICK = 1.0                                                # seconds between two looks at the clock
WIDTH = 100                                               # characters


class NotebookLine:
    """A file for tqdm: one line of a notebook's output, rewritten in place, so that a saved notebook keeps
    only the last state of the bar."""

    def __init__(self) -> None:
        from IPython.display import display
        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> None:
        """Show `text` in place of what was there."""
        if text.strip():
            self.handle.update({"text/plain": text.strip("\r\n")}, raw=True)

    def flush(self) -> None:
        """Nothing is held back."""


@contextlib.contextmanager
def progress_bar(name: str, total: int, done: int, show: bool) -> Iterator[tqdm]:
    """A bar that begins at `done` of `total` images; its rate counts only those that come after.

    It counts up when it is told to, after each batch. Its clock goes on by itself every second, so that a
    long batch can be told from a program that hangs. It is as wide as the terminal, elsewhere WIDTH."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    file = NotebookLine() if show and hasattr(shell, "kernel") else None
    # a line that a terminal has to break is not rewritten in place; tqdm measures the terminal
    columns = WIDTH if file or not sys.stderr.isatty() else None
    stop = threading.Event()
    with tqdm(desc=name, total=total, initial=done, unit="image", mininterval=0.5, ncols=columns, file=file,
              ascii=False if file else None, disable=not show) as bar:

        def tick() -> None:
            while not stop.wait(TICK):
                bar.refresh()

        clock = threading.Thread(target=tick, daemon=True)
        if show:
            clock.start()
        try:
            yield bar
        finally:
            stop.set()
            if show:
                clock.join()
