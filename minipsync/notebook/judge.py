"""The judge of the coursework: a student's code runs in one process, the tests of it in another.

A test that runs beside what it tests can be switched off by it: by another `check`, another `torch.allclose`,
an end of the program. Here the student's process only gets inputs and gives answers, as data. It sees
neither the tests nor what they expect."""
import contextlib
import io
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .bridge import Bridge

LIMIT = 120.0                                                              # seconds for a cell or an answer


class Pupil:
    """A fresh process that runs a student's cells and answers calls of the functions they define.

    limit: seconds for each cell and each call. Use it in a `with` block, at whose end the process ends."""

    def __init__(self, limit: float = LIMIT):
        # The packages are imported once, in a process of which each pupil is a copy. Windows has no copies.
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload(["minipsync", "IPython.core.interactiveshell"])
        ours, theirs = context.Pipe()
        self.process = context.Process(target=_attend, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.bridge, self.asked = Bridge(ours, limit=limit), 0

    def __enter__(self) -> "Pupil":
        return self

    def __exit__(self, *error: object) -> None:
        self.bridge.connection.close()
        self.process.kill()
        self.process.join()

    def run(self, source: str) -> None:
        """Run a cell. An error in it stays in it: the next cells run, as nbgrader does it."""
        try:
            self.bridge.request({"kind": "run", "source": source})
        except (EOFError, OSError):
            raise
        except RuntimeError:
            pass
        except Exception as error:                                         # it writes to us by itself
            raise EOFError("the process does not answer as it should") from error

    def function(self, name: str) -> Callable[..., Any]:
        """What the student calls `name`, to be called from here."""
        def ask(*args: Any, **kwargs: Any) -> Any:
            self.asked += 1
            return self.bridge.call(name, *args, **kwargs)
        return ask


def _attend(connection: Any) -> None:
    """A pupil's life: run cells as Jupyter does, and answer calls."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config)

    def find(name: str) -> Any:
        if name not in shell.user_ns:
            raise NameError(f"name {name!r} is not defined")
        return shell.user_ns[name]
    Bridge(connection, lookup=find).serve(lambda source: shell.run_cell(source, store_history=False) and None)


def judge(cells: Sequence[tuple[str | None, str]], tests: Mapping[str, str], imports: str = "",
          limit: float = LIMIT) -> dict[str, str]:
    """{grade_id: what is wrong, or ""} for the tests of a notebook.

    cells: (grade_id or None, source) of the code cells that were handed in, in their order. tests: {grade_id:
    source} as the teacher wrote them; the sources of these cells in `cells` are not looked at. A test's id is
    "test_" and the function that it asks for. imports: what every test begins with. A test whose cell was
    taken out is not passed.

    Raises ValueError for a test that never calls the function, as everybody would pass it."""
    found = dict.fromkeys(tests, "its cell is not in the notebook")
    last = max((i for i, (name, _) in enumerate(cells) if name in tests), default=-1)
    with Pupil(limit) as pupil:
        for i, (name, source) in enumerate(cells[:last + 1]):
            try:
                if name is None or name not in tests:
                    pupil.run(source)
                elif i == next(j for j, (other, _) in enumerate(cells) if other == name):
                    found[name] = _judge(pupil, name, tests[name], imports)
            except (EOFError, OSError) as error:                     # ended, or too slow: nothing follows
                said = str(error) or "the process has ended"
                return {k: v if k in {n for n, _ in cells[:i]} else said for k, v in found.items()}
    return found


def _judge(pupil: Pupil, name: str, test: str, imports: str) -> str:
    space: dict[str, Any] = {"__name__": "__judge__"}
    exec(imports, space)
    space[name.removeprefix("test_")] = pupil.function(name.removeprefix("test_"))
    before = pupil.asked
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(test, space)
    except (EOFError, OSError):
        raise
    except AssertionError as error:
        return str(error) or "an assertion failed"
    except Exception as error:
        return f"{type(error).__name__}: {error}" if not isinstance(error, RuntimeError) else str(error)
    if pupil.asked == before:
        raise ValueError(f"{name} never calls {name.removeprefix('test_')}: everybody would pass it")
    return ""
