"""The DVC project: all that touches DVC, most of which is its internal API.

Nothing here takes DVC's lock, runs a stage or writes into the work tree, so it works beside a
running `dvc repro`. Tests run with the oldest and the newest DVC that are supported.
"""

from .files import File
from .opened import parse
from .running import Project

__all__ = ["File", "Project", "parse"]
