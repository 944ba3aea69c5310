"""nbgrader's settings for this course: its folder is the one of this file."""

from pathlib import Path

c = get_config()  # noqa: F821  (nbgrader puts it there)
c.CourseDirectory.course_id = "prompt_learning"
c.CourseDirectory.root = str(Path(__file__).resolve().parent)
# a model that is loaded for the first time on a slow disk takes a while
c.ExecutePreprocessor.timeout = 300
