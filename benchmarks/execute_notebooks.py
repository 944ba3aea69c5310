"""Run notebooks in place and keep them small: `python -m benchmarks.execute_notebooks notebooks/01*.ipynb`.

papermill runs each in an empty folder, from its first cell to its last with its default parameters. Kept are
outputs without progress on stderr and without papermill's own metadata. Records go to --records when it is
given, so that a stopped run goes on. A notebook over 500 kB, a cell of more than 25 lines or a path of this
machine stops it: what came out then has the suffix .refused.
"""
import argparse
import re
import tempfile
from pathlib import Path

import nbformat
import papermill

LIMIT = 500_000                                    # bytes of a notebook
PATHS = re.compile(r"(?<![\w.:/])/(home|root|tmp|Users|work|usr|opt)/")


def clean(notebook) -> None:
    """Drop what is papermill's or the terminal's, in place."""
    notebook.metadata.pop("papermill", None)
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    for cell in notebook.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    if "widget-view" not in nbformat.writes(notebook):       # the state of bars whose output was not kept
        notebook.metadata.pop("widgets", None)


def problems(notebook) -> list[str]:
    """Why this notebook must not be kept."""
    text = nbformat.writes(notebook)
    long = [i for i, c in enumerate(notebook.cells) if c.cell_type == "code" and c.source.count("\n") >= 25]
    found = [f"cell {i} has more than 25 lines" for i in long]
    if len(text.encode()) > LIMIT:
        found.append(f"{len(text.encode()) / 1000:.0f} kB, at most {LIMIT / 1000:.0f}")
    if place := PATHS.search(text):
        found.append(f"a path of this machine: …{text[max(0, place.start() - 40):place.end() + 30]}…")
    return found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("notebooks", nargs="+", type=Path)
    p.add_argument("--records", help="folder that keeps the records of all runs")
    args = p.parse_args()
    for path in args.notebooks:
        with tempfile.TemporaryDirectory() as folder:
            given = {"records": str(Path(args.records).resolve())} if args.records else {}
            out = Path(folder) / "out.ipynb"
            papermill.execute_notebook(str(path.resolve()), str(out), given, cwd=folder,
                                       kernel_name="python3", progress_bar=False)
            notebook = nbformat.read(out, as_version=4)
        clean(notebook)
        for i, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
            cell.execution_count = i + 1           # papermill counts its own cell of parameters
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = i + 1
        if wrong := problems(notebook):
            nbformat.write(notebook, kept := path.with_suffix(".refused"))
            raise SystemExit(f"{path.name}: {'; '.join(wrong)}; what came out is in {kept.name}")
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
