"""nbgrader's settings for this course: its folder is the one of this file."""

from pathlib import Path

from minipsync.notebook.grading import steps

c = get_config()  # noqa: F821  (nbgrader puts it there)
c.CourseDirectory.course_id = "prompt_learning"
c.CourseDirectory.root = str(Path(__file__).resolve().parent)
# tests are run by the judge, where a student's code cannot reach them
c.Autograde.autograde_preprocessors = steps()
# a model that is loaded for the first time on a slow disk takes a while
c.Judge.timeout = 300
