"""What record files look like: a CSV of rows, one per image, and a JSON file beside it about their run.

Every row ends with the key of the run that wrote it, a hash of everything its prediction depends on
(identity.py). The file "….run.json" beside the CSV spells the run out, so that an error can say what differs.
It also holds facts that change no prediction, but decide what the numbers may be compared with: the origin of
the data, the CLIP's name, where the prompts were trained, how many images were asked for, and the versions of
the libraries that made the rows ("libraries", a list).
"""

import contextlib
import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ..files.paths import expand, read_text, write_whole
from .rows import COLUMNS

HEADER = (",".join(COLUMNS) + "\n").encode()

Row = dict[str, Any]                                      # the columns of COLUMNS, without `run`


# ---- runs -------------------------------------------------------------------------------------------
def as_json(value: object) -> str:
    """One text for equal values, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True, default=str)


def run_key(run: dict) -> str:
    """12 hex digits that stand for the settings in `run`."""
    return hashlib.sha256(as_json(run).encode()).hexdigest()[:12]


def path_for(records: str | Path, run: dict) -> Path:
    """`records` itself if it ends in .csv, else a file in that folder whose name is the run's own."""
    path = expand(records)
    if path.suffix == ".csv" and not path.is_dir():
        return path
    parts = (run["method"], run["dataset"], f"seed{run['seed']}", run_key(run))
    return path / ("-".join(map(safe_name, parts)) + ".csv")


def safe_name(part: object) -> str:
    """A part of a file name."""
    return re.sub(r"[^\w.]+", "_", str(part))


def sidecar_of(path: Path) -> Path:
    """The JSON file beside a record file."""
    return path.with_suffix(".run.json")


def write_sidecar(path: Path, content: dict) -> None:
    """Write the JSON file beside the records, whole or not at all."""
    write_whole(path, (json.dumps(content, indent=1, default=str) + "\n").encode(), "records")


def read_sidecar(sidecar: Path) -> tuple[dict, str, dict]:
    """(description, key, facts) of a run. ValueError for a file that is missing, damaged or of another run
    than its key says."""
    try:
        content = json.loads(read_text(sidecar))
        about, key, facts = content["run"], content["key"], content.get("facts") or {}
        if not {"method", "dataset", "seed"} <= set(about) or run_key(about) != key:
            raise ValueError("it does not describe the run that its key stands for")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{sidecar} is broken or missing ({error}); it says what the records beside it are "
                         "of: delete it and evaluate again, which writes it anew, or delete both") from None
    return about, key, facts


def read_facts(sidecar: Path) -> dict:
    """The facts in the file beside the records; {} where there are none."""
    with contextlib.suppress(ValueError):
        return read_sidecar(sidecar)[2]
    return {}


# ---- rows -------------------------------------------------------------------------------------------
def read_rows(path: Path, content: bytes, key: str, *, lenient: bool = False) -> dict[str, Row]:
    """{image id: row} of the whole lines in `content`, what the file at `path` holds; the first row of an
    image counts. ValueError names a line that is no row of the run `key`; lenient: such lines do not count.
    """
    rows: dict[str, Row] = {}
    for number, line in enumerate(content[len(HEADER):].split(b"\n")[:-1], start=2):      # the last is torn
        try:
            [fields] = csv.reader([line.decode()])
            row: Row = {name: kind(x) for (name, kind), x in zip(COLUMNS.items(), fields, strict=True)}
            if row.pop("run") != key or row["correct"] not in (0, 1):
                raise ValueError(f"expected correct to be 0 or 1, and the key {key} at the end")
            rows.setdefault(row["image"], row)
        except (ValueError, csv.Error) as error:
            if not lenient:
                raise ValueError(f"{path}, line {number} is not a record of its run ({error}): "
                                 f"{line[:80]!r}; delete that line, its image will be evaluated again"
                                 ) from None
    return rows
