"""Record files: one CSV row per evaluated image, appended batch by batch, usable after a kill at any byte.

Every row ends with the key of the run that wrote it, a hash of everything its prediction depends on
(identity.py). A JSON file beside the CSV spells the run out, so that an error can say what differs, and
beside it facts that change no prediction, but decide what the numbers may be compared with: the origin of the
data, the CLIP's name, where the prompts were trained, how many images were asked for, and the versions of
the libraries that rows were made with ("libraries", a list). Only complete lines count: what a kill left of
a last line is cut off at the next opening. Several processes (distributed.py) write a file each beside the
run's own, "….rank1.csv"; their rows move to the run's own file at the end, or when the run is next opened if
they were killed before.
"""

import contextlib
import csv
import glob
import hashlib
import io
import json
import re
import sys
import time
from pathlib import Path

from .. import distributed
from ..files.paths import expand, read_text, told_what_to_do, write_whole
from .rows import COLUMNS

try:
    import fcntl
except ImportError:                                       # Windows: no lock, everything else works
    fcntl = None

PATIENCE = 600                                            # seconds to wait for another process's file
HEADER = (",".join(COLUMNS) + "\n").encode()


def run_key(run: dict) -> str:
    """12 hex digits that stand for the settings in `run`."""
    return hashlib.sha256(json.dumps(run, sort_keys=True, default=str).encode()).hexdigest()[:12]


def path_for(records, run: dict) -> Path:
    """`records` itself if it ends in .csv, else a file in that folder whose name is the run's own."""
    path = expand(records)
    if path.suffix == ".csv" and not path.is_dir():
        return path
    parts = (run["method"], run["dataset"], f"seed{run['seed']}", run_key(run))
    return path / ("-".join(map(_safe, parts)) + ".csv")


def _safe(part) -> str:
    """A part of a file name."""
    return re.sub(r"[^\w.]+", "_", str(part))


def write_sidecar(path: Path, content: dict):
    """The JSON file beside the records, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=1, default=str) + "\n").encode(), "records")


def read_facts(sidecar: Path) -> dict:
    """The facts in the file beside the records; {} where there are none."""
    return _read_sidecar(sidecar)[2]


def _read_sidecar(sidecar: Path) -> tuple[dict, str | None, dict]:
    """(description, key, facts) of a run; the key is None where the file is not whole."""
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
        return content["run"], content["key"], content.get("facts", {})
    except (OSError, ValueError, KeyError, TypeError):
        return {}, None, {}


def parse_row(fields: list[str], key: str) -> dict:
    """A row of a record file, without its last column, the key of its run; ValueError for anything else."""
    row = {name: kind(value) for (name, kind), value in zip(COLUMNS.items(), fields, strict=True)}
    if row.pop("run") != key or row["correct"] not in (0, 1):
        raise ValueError(f"expected correct to be 0 or 1, and the key {key} at the end")
    return row


def _whole_rows(path: Path, key: str) -> list[dict]:
    """The rows of another run's file, which may be at work; without lines that are not whole."""
    rows = []
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        text = content[len(HEADER):content.rfind(b"\n") + 1].decode(errors="replace")
        for fields in csv.reader(io.StringIO(text, newline="")):
            with contextlib.suppress(ValueError):
                rows.append(parse_row(fields, key))
    return rows


def _but_pictures(run: dict) -> str:
    return json.dumps({k: v for k, v in run.items() if k not in ("dataset", "images", "content")},
                      sort_keys=True, default=str)


def add_facts(path: Path | None, **more):
    """Add to the facts of the run whose records are at `path` (None: kept in memory, nothing to do)."""
    if path is not None and distributed.rank() == 0:
        sidecar = Path(path).with_suffix(".run.json")
        content = json.loads(sidecar.read_text(encoding="utf-8"))
        if any(content.get("facts", {}).get(name) != value for name, value in more.items()):
            write_sidecar(sidecar, content | {"facts": content.get("facts", {}) | more})


class RecordFile:
    """The records of one run, on disk; a context manager that holds the file locked.

    rows:   image id -> row (dict of the columns, without `run`), those read from disk and those appended.
    rank:   of the process whose own file it is; None: the run's.
    facts:  about the run, for the file beside the CSV; they are no part of its key, and the last ones count.
    libraries: versions with which rows are made from now on; noted once one is appended.
    Raises ValueError for a file of another run or of another kind, OSError where the folder cannot be
    written, RuntimeError while another process writes the same file, after PATIENCE seconds.
    """

    def __init__(self, records, run: dict, rank: int | None = None, facts: dict | None = None,
                 libraries: str = ""):
        self.path, self.run, self.key, self.facts = path_for(records, run), run, run_key(run), facts or {}
        self.libraries = [libraries] if libraries else []
        self.path = self.path if rank is None else self.path.with_suffix(f".rank{rank}.csv")
        self.rows: dict[str, dict] = {}
        with self._told_what_to_do():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "a+b", buffering=0)
        try:
            self._lock()
            self._read()
        except BaseException:
            self.file.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def append(self, rows: list[dict], libraries: list[str] | None = None):
        """Write rows to disk, in one piece; libraries: with which they were made, if not with ours."""
        self._note(self.libraries if libraries is None else libraries)
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*row.values(), self.key] for row in rows)
        self._write(text.getvalue().encode())
        self.rows.update((row["image"], row) for row in rows)

    def absorb(self, order: list[str]):
        """Take over the rows of the processes' files, as `order` lists their images, and remove the files."""
        found, libraries = {}, []
        files = sorted(self.path.parent.glob(f"{glob.escape(self.path.stem)}.rank*.csv"))
        for file in files:
            with RecordFile(file, self.run) as part:      # RuntimeError if its process is still at work
                found |= part.rows
                libraries += read_facts(part._sidecar()).get("libraries", [])
        position = {image: i for i, image in enumerate(order)}
        new = [row for image, row in found.items() if image not in self.rows]
        if new:
            self.append(sorted(new, key=lambda row: position.get(row["image"], len(position))), libraries)
        for file in files:
            file.with_suffix(".run.json").unlink(missing_ok=True)
            file.unlink()

    def adopt(self, fits):
        """Take over the rows with `fits(row)` of runs in this folder that differ in their pictures alone: a
        data set may have grown, or a picture that could not be read was mended."""
        for sidecar in sorted(self.path.parent.glob(f"{_safe(self.run['method'])}-*.run.json")):
            about, key, facts = _read_sidecar(sidecar)
            file = sidecar.with_name(sidecar.name.removesuffix(".run.json") + ".csv")
            if key not in (None, self.key) and _but_pictures(about) == _but_pictures(self.run):
                rows = [row for row in _whole_rows(file, key) if row["image"] not in self.rows and fits(row)]
                if rows:
                    self.append(rows, facts.get("libraries", []))

    # ---- reading -------------------------------------------------------------------------------------
    def _read(self):
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
        whole = content.rfind(b"\n") + 1
        try:
            lines = list(csv.reader(io.StringIO(content[len(HEADER):whole].decode(), newline="")))
        except (UnicodeDecodeError, csv.Error) as error:  # a disk's or an editor's damage
            raise ValueError(f"{self.path} is damaged ({error}); delete it, or the lines that are no "
                             "records, whose images will be evaluated again") from None
        rows = [self._parse(number, row) for number, row in enumerate(lines, start=2)]
        if whole < len(content):
            self.file.truncate(whole)                     # the torn last line
        for row in rows:
            self.rows.setdefault(row["image"], row)
        known = read_facts(self._sidecar())
        if not self._sidecar().exists() or any(known.get(k) != v for k, v in self.facts.items()):
            self._write_sidecar()

    def _parse(self, number, fields):
        if fields[-1:] != [self.key] and len(fields) == len(COLUMNS):
            raise ValueError(f"{self.path} holds records of another run: {self._difference()}. Give a "
                             "folder instead of a file (each run then has a file of its own), another file "
                             "name, or delete it")
        try:
            return parse_row(fields, self.key)
        except ValueError:
            raise ValueError(f"{self.path}, line {number} is not a record: {','.join(fields)[:80]!r}; delete "
                             "that line, its image will be evaluated again") from None

    def _difference(self) -> str:
        try:
            theirs = _flat(json.loads(read_text(self._sidecar()))["run"])
        except (OSError, ValueError, KeyError, TypeError):
            return f"its key is not {self.key}"
        ours = _flat(json.loads(json.dumps(self.run, default=str)))
        names = [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)]
        said = [f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here" for name in names[:3]]
        said += [f"and {len(names) - 3} more"] if len(names) > 3 else []
        return "; ".join(said) or f"its key is not {self.key}"

    # ---- writing -------------------------------------------------------------------------------------
    def _sidecar(self) -> Path:
        return self.path.with_suffix(".run.json")

    def _write_sidecar(self):
        facts = read_facts(self._sidecar()) | self.facts
        write_sidecar(self._sidecar(), {"run": self.run, "key": self.key, "facts": facts})

    def _note(self, libraries):
        """Add the libraries that rows are made with to the list of the file beside the CSV."""
        known = read_facts(self._sidecar()).get("libraries", [])
        if new := [each for each in dict.fromkeys(libraries) if each not in known]:
            self.facts = self.facts | {"libraries": [*known, *new]}
            self._write_sidecar()

    def _write(self, content: bytes):
        with self._told_what_to_do():
            while content:                                # an unbuffered file may take less than it is given
                content = content[self.file.write(content):]

    def _lock(self):
        """Hold the file alone; where another process has it, wait for its rows, not make them twice."""
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

    def _told_what_to_do(self):
        return told_what_to_do(self.path, "records", ", or say records=None to keep them in memory")


class Memory:
    """Stands in for a RecordFile where records are not kept on disk."""

    path = None

    def __init__(self):
        self.rows = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def append(self, rows):
        self.rows.update((row["image"], row) for row in rows)

    def absorb(self, order):
        pass

    def adopt(self, fits):
        pass


@contextlib.contextmanager
def open_records(records, run, order, facts=None, libraries="", fits=None):
    """The rows known so far, and a place to append new ones; on leaving, `rows` has those of all processes.

    records: a folder, a .csv file or None (memory); order: the ids of all images, as rows shall be sorted;
    fits: see `RecordFile.adopt`."""
    def book(rank=None):
        return Memory() if records is None else RecordFile(records, run, rank, facts, libraries)

    def take_over(main):
        main.absorb(order)
        if fits is not None and any(image not in main.rows for image in order):
            main.adopt(fits)

    if distributed.world() == 1:
        with book() as main:
            take_over(main)
            yield main
        return
    first = distributed.rank() == 0
    with book() if first else Memory() as main:           # the first holds the run's file from start to end
        take_over(main)
        known = distributed.from_first(main.rows)
        with book(distributed.rank()) as part:
            part.rows |= known
            yield part
        for rows in distributed.gather(part.rows):          # every process's file is whole and closed now
            part.rows |= rows
        main.absorb(order)
        part.path = distributed.from_first(main.path)


def _flat(tree, prefix=""):
    """{"config": {"lr": 1}} -> {"config.lr": 1}."""
    flat = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
