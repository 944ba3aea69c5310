"""nbgrader with the judge: the step of `nbgrader autograde` that runs a notebook. It needs nbgrader."""
from typing import Any

from nbformat.v4 import new_output
from nbgrader.api import Gradebook
from nbgrader.preprocessors import Execute

from .judge import judge


class Judge(Execute):
    """Runs a student's cells as nbgrader does, and has the tests judged from outside instead.

    Tests and imports are those of the gradebook, whatever the notebook's cells of these names say. Put it in
    the place of Execute in `Autograde.autograde_preprocessors`, as notebooks/exercises/nbgrader_config.py."""

    def preprocess(self, nb: Any, resources: Any = None, km: Any = None) -> tuple[Any, Any]:
        """nb: the notebook that was handed in -> the notebook with outputs, those of tests from the judge."""
        about = resources["nbgrader"]
        with Gradebook(about["db_url"]) as gradebook:
            notebook = gradebook.find_notebook(about["notebook"], about["assignment"])
            sources = {cell.name: cell.source for cell in notebook.source_cells}
            answers = {cell.name for cell in notebook.solution_cells}
            tests = {cell.name: sources[cell.name] for cell in notebook.grade_cells
                     if cell.cell_type == "code" and cell.name not in answers}
        cells = [(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
                 for cell in nb.cells if cell.cell_type == "code"]
        self.verdicts = judge(cells, tests, sources.get("imports", ""), limit=self.timeout or 600)
        return super().preprocess(nb, resources, km)

    def preprocess_cell(self, cell: Any, resources: Any, index: int) -> tuple[Any, Any]:
        """A test's output is the judge's word; other cells run in the notebook's kernel."""
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if cell.cell_type != "code" or name not in self.verdicts:
            return super().preprocess_cell(cell, resources, index)
        said = self.verdicts[name]
        cell.outputs = [new_output("error", ename="AssertionError", evalue=said, traceback=[said]) if said
                        else new_output("stream", name="stdout", text="right\n")]
        return cell, resources
