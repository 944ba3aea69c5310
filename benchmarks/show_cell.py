"""Print what the cells with one tag of an executed notebook show: `show_cell.py run.ipynb accuracy`."""

import sys

import nbformat


def text_of(notebook, tag: str) -> str:
    """The text outputs of every code cell that carries `tag`; a ValueError names the tags there are."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in cells if tag in cell.metadata.get("tags", [])]
    if not tagged:
        known = sorted({name for cell in cells for name in cell.metadata.get("tags", [])})
        raise ValueError(f"no code cell is tagged {tag!r}; the tags there are: {', '.join(known) or 'none'}")
    parts = []
    for output in (output for cell in tagged for output in cell.outputs):
        if output.output_type == "stream" and output.name == "stdout":
            parts.append(output.text)
        elif "data" in output:
            parts.append(output.data.get("text/plain", ""))
    return "\n".join(part.rstrip() for part in parts if part.strip())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python show_cell.py NOTEBOOK TAG")
    try:
        print(text_of(nbformat.read(sys.argv[1], as_version=4), sys.argv[2]))
    except (OSError, ValueError) as error:
        sys.exit(f"show_cell: {error}")
