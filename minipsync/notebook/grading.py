"""nbgrader with the judge: the steps of `nbgrader autograde`. They need nbgrader (extra `dev`)."""
from typing import Any

from .judge import judge


def steps() -> list[type]:
    """nbgrader's own list for `Autograde.autograde_preprocessors`, with Judge in the place of Execute.

    Raises ImportError without nbgrader."""
    from nbconvert.preprocessors import ClearMetadataPreprocessor
    from nbformat.v4 import new_output
    from nbgrader import preprocessors as own
    from nbgrader.api import Gradebook

    class Judge(own.Execute):
        """Runs a student's cells as nbgrader does, and has the tests judged from outside instead.

        Tests and imports are those of the gradebook, whatever the notebook's cells of these names say."""

        def preprocess(self, nb: Any, resources: Any = None, km: Any = None) -> tuple[Any, Any]:
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
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            if cell.cell_type != "code" or name not in self.verdicts:
                return super().preprocess_cell(cell, resources, index)
            said = self.verdicts[name]
            cell.outputs = [new_output("error", ename="AssertionError", evalue=said, traceback=[said]) if said
                            else new_output("stream", name="stdout", text="right\n")]
            return cell, resources

    return [Judge, own.IgnorePattern, ClearMetadataPreprocessor, own.LimitOutput, own.SaveAutoGrades,
            own.AssignLatePenalties, own.CheckCellMetadata]
