"""Record files: one row per evaluated image, appended batch by batch, usable after a kill at any byte.

A line counts once it ends with a line feed: what a kill left of a last line is cut off at the next opening.
Several processes (distributed.py) write one file each, "….rank1.csv". Their rows move to the run's own file
at the end, or, if the processes were killed before, when the run is next opened. record_format.py says what
the files look like.
"""

import contextlib
import csv
import glob
import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from .. import distributed
from ..files.paths import told_what_to_do
from .record_format import (
    HEADER,
    Row,
    as_json,
    path_for,
    read_facts,
    read_rows,
    read_sidecar,
    run_key,
    safe_name,
    sidecar_of,
    write_sidecar,
)

try:
    import fcntl
except ImportError:                                       # Windows has no such lock; everything else works
    fcntl = None  # type: ignore[assignment]

PATIENCE = 600                                            # seconds to wait for another process's file
PICTURES = ("dataset", "images", "content")               # what a run says of its pictures


class Memory:
    """The records of one run in memory; a context manager, as `RecordFile` is.

    rows: image id -> row, a dict of the columns without `run`."""

    path: Path | None = None

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def append(self, rows: list[Row]) -> None:
        """Add rows."""
        self.rows.update((row["image"], row) for row in rows)

    def take_over(self, order: list[str], fits: Callable[[Row], bool] | None = None) -> None:
        """Add the rows that other files of the run have."""


class RecordFile(Memory):
    """The records of one run on disk; a context manager that holds the file locked.

    rank:      of the process whose own file it is; None: the run's file.
    facts:     about the run, for the file beside the CSV; no part of its key, and the last ones count.
    libraries: versions with which rows are made from now on; noted once a row is appended.
    Raises ValueError for a file of another run or of another kind, OSError where the folder cannot be
    written, and RuntimeError if another process still writes the same file after PATIENCE seconds.
    """

    path: Path

    def __init__(self, records: str | Path, run: dict, rank: int | None = None, facts: dict | None = None,
                 libraries: str = "") -> None:
        super().__init__()
        self.path, self.run, self.key, self.facts = path_for(records, run), run, run_key(run), facts or {}
        self.libraries = [libraries] if libraries else []
        self.path = self.path if rank is None else self.path.with_suffix(f".rank{rank}.csv")
        with self._told_what_to_do():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "a+b", buffering=0)
        try:
            self._lock()
            self._read()
        except BaseException:
            self.file.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def append(self, rows: list[Row], libraries: list[str] | None = None) -> None:
        """Write rows to disk, in one piece. libraries: versions that made them, if not ours."""
        known = (self._known() or {}).get("libraries", [])
        libraries = list(dict.fromkeys([*known, *(self.libraries if libraries is None else libraries)]))
        if libraries != known:
            self.facts = self.facts | {"libraries": libraries}
            self._write_sidecar()
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*row.values(), self.key] for row in rows)
        self._write(text.getvalue().encode())
        super().append(rows)

    def take_over(self, order: list[str], fits: Callable[[Row], bool] | None = None) -> None:
        """Take over the rows of the processes' files, sorted as `order` lists the images, and remove these
        files. Then, if images are still without a row, take over the rows with `fits(row)` of runs in this
        folder that differ in their pictures alone: a data set may have grown, or a picture was mended."""
        found: dict[str, Row] = {}
        libraries: list[str] = []
        files = sorted(self.path.parent.glob(f"{glob.escape(self.path.stem)}.rank*.csv"))
        for file in files:
            with RecordFile(file, self.run) as part:      # RuntimeError if its process is still at work
                found |= part.rows
                libraries += read_facts(sidecar_of(file)).get("libraries", [])
        position = {image: i for i, image in enumerate(order)}
        new = [row for image, row in found.items() if image not in self.rows]
        if new:
            self.append(sorted(new, key=lambda row: position.get(row["image"], len(position))), libraries)
        for file in files:
            sidecar_of(file).unlink(missing_ok=True)
            file.unlink()
        if fits is not None and not position.keys() <= self.rows.keys():
            self._adopt(fits)

    def _adopt(self, fits: Callable[[Row], bool]) -> None:
        for sidecar in sorted(self.path.parent.glob(f"{safe_name(self.run['method'])}-*.run.json")):
            file = sidecar.with_name(sidecar.name.removesuffix(".run.json") + ".csv")
            try:
                about, key, facts = read_sidecar(sidecar)
                if key == self.key or _but_pictures(about) != _but_pictures(self.run):
                    continue
                theirs = read_rows(file, file.read_bytes(), key, lenient=True)      # it may be at work
            except (ValueError, OSError):
                continue
            new = [row for image, row in theirs.items() if image not in self.rows and fits(row)]
            if new:
                self.append(new, facts.get("libraries", []))

    def _read(self) -> None:
        self.file.seek(0)
        content = self.file.read()
        if HEADER.startswith(content):                    # new, or killed while the header was written
            self.file.truncate(0)
            self._write_sidecar()
            self._write(HEADER)
            return
        if not content.startswith(HEADER):
            raise ValueError(f"{self.path} is not a file of records (its first line is not "
                             f"{HEADER.decode().strip()!r}); give another file name, or a folder")
        lines = content.split(b"\n")[1:-1]
        if lines and not any(line.endswith(f",{self.key}".encode()) for line in lines):
            raise ValueError(f"{self.path} holds records of another run: {self._difference()}. Give a "
                             "folder instead of a file (each run then has a file of its own), another file "
                             "name, or delete it")
        self.rows = read_rows(self.path, content, self.key)
        self.file.truncate(content.rfind(b"\n") + 1)      # cut off a torn last line
        known = self._known()
        if known is None or known | self.facts != known:
            self._write_sidecar()

    def _difference(self) -> str:
        """In what the run of the file is not ours, in words."""
        try:
            theirs = _flat(read_sidecar(sidecar_of(self.path))[0])
        except ValueError:
            return f"its key is not {self.key}"
        ours = _flat(json.loads(as_json(self.run)))
        names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        said = [f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here" for name in names[:3]]
        said += [f"and {len(names) - 3} more"] if len(names) > 3 else []
        return "; ".join(said) or f"its key is not {self.key}"

    def _known(self) -> dict | None:
        """The facts in the file beside the records; None where it is damaged or of another run."""
        with contextlib.suppress(ValueError):
            _, key, facts = read_sidecar(sidecar_of(self.path))
            return facts if key == self.key else None
        return None

    def _write_sidecar(self) -> None:
        facts = (self._known() or {}) | self.facts
        write_sidecar(sidecar_of(self.path), {"run": self.run, "key": self.key, "facts": facts})

    def _write(self, content: bytes) -> None:
        with self._told_what_to_do():
            while content:                                # an unbuffered file may take less than it is given
                content = content[self.file.write(content):]

    def _lock(self) -> None:
        """Hold the file alone. Where another process has it, wait for its rows: do not make them twice."""
        for second in range(PATIENCE + 1):
            try:
                return fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB) if fcntl else None
            except BlockingIOError:
                if second == 0 < PATIENCE:
                    print(f"waiting for another process that writes {self.path.name}", file=sys.stderr)
                time.sleep(min(1, PATIENCE))
            except OSError:                               # a file system that has no locks
                return None
        raise RuntimeError(f"another process is writing {self.path}; wait for it or stop it, "
                           "or give another file")

    def _told_what_to_do(self) -> contextlib.AbstractContextManager[None]:
        return told_what_to_do(self.path, "records", ", or say records=None to keep them in memory")


def add_facts(path: Path | None, **more: Any) -> None:
    """Add to the facts of the run whose records are at `path` (None: kept in memory, nothing to do)."""
    if path is not None and distributed.rank() == 0:
        about, key, facts = read_sidecar(sidecar_of(path))
        if facts | more != facts:
            write_sidecar(sidecar_of(path), {"run": about, "key": key, "facts": facts | more})


@contextlib.contextmanager
def open_records(records: str | Path | None, run: dict, order: list[str], facts: dict | None = None,
                 libraries: str = "", fits: Callable[[Row], bool] | None = None) -> Iterator[Memory]:
    """The rows known so far, and a place to append new ones. On leaving, `rows` has those of all processes.

    records: a folder, a .csv file or None (memory); order: the ids of all images, as rows shall be sorted;
    fits: see `RecordFile.take_over`."""
    def book(rank: int | None = None) -> Memory:
        return Memory() if records is None else RecordFile(records, run, rank, facts, libraries)

    if distributed.world() == 1:
        with book() as main:
            main.take_over(order, fits)
            yield main
        return
    first = distributed.rank() == 0
    with book() if first else Memory() as main:           # the first holds the run's file from start to end
        main.take_over(order, fits)
        known = distributed.from_first(main.rows)
        with book(distributed.rank()) as part:
            part.rows |= known
            yield part
        for rows in distributed.gather(part.rows):        # every process's file is whole and closed now
            part.rows |= rows
        main.take_over(order)
        part.path = distributed.from_first(main.path)


def _but_pictures(run: dict) -> str:
    return as_json({k: v for k, v in run.items() if k not in PICTURES})


def _flat(tree: dict, prefix: str = "") -> dict:
    """{"config": {"lr": 1}} -> {"config.lr": 1}."""
    flat: dict = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
