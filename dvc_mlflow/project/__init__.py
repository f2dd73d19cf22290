"""The DVC project: everything that touches DVC, mostly by its internal API.

Only `restored_files` and `experiments` take DVC's lock and write into a work tree, so the rest
works beside a running `dvc repro`. Tests run with the oldest and the newest DVC that are supported.
"""

from .at_commits import ProjectAt, stages_in
from .dvc_repo import parse
from .experiment_names import is_generated
from .files import SMALL, File
from .project import Project
from .restored_files import restore, restored_project

__all__ = [
    "SMALL",
    "File",
    "Project",
    "ProjectAt",
    "is_generated",
    "parse",
    "restore",
    "restored_project",
    "stages_in",
]
