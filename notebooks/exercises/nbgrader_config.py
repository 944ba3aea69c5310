"""nbgrader's settings for this course: its folder is the one of this file."""

from pathlib import Path

from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    IgnorePattern,
    LimitOutput,
    SaveAutoGrades,
)

from minipsync.notebook.grading import Judge

c = get_config()  # noqa: F821  (nbgrader puts it there)
c.CourseDirectory.course_id = "prompt_learning"
c.CourseDirectory.root = str(Path(__file__).resolve().parent)
# nbgrader's own list, with the judge in the place of Execute: tests run where a student's code cannot reach
c.Autograde.autograde_preprocessors = [Judge, IgnorePattern, ClearMetadataPreprocessor, LimitOutput,
                                       SaveAutoGrades, AssignLatePenalties, CheckCellMetadata]
# a model that is loaded for the first time on a slow disk takes a while
c.Judge.timeout = 300
