"""The DVC project: all that touches DVC, most of which is its internal API.

Nothing here but `restoring` takes DVC's lock, or writes into a work tree, so it works beside a
running `dvc repro`. Tests run with the oldest and the newest DVC that are supported.
"""

from .files import SMALL, File
from .opened import parse
from .restoring import restore, share
from .running import Checkout, Project

__all__ = ["SMALL", "Checkout", "File", "Project", "parse", "restore", "share"]
