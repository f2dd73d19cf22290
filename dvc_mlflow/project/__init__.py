"""The DVC project: everything that touches DVC, mostly by its internal API.

Only `restoring` and `experiments` take DVC's lock and write into a work tree, so the rest works
beside a running `dvc repro`. Tests run with the oldest and the newest DVC that are supported.
"""

from .earlier import Earlier, is_generated, values_in
from .files import SMALL, File
from .locks import entry_texts
from .opened import parse
from .past import Past
from .restoring import restore, restored_project, share
from .running import Project, Seen
from .workspace import Checkout

__all__ = [
    "SMALL",
    "Checkout",
    "Earlier",
    "File",
    "Past",
    "Project",
    "Seen",
    "entry_texts",
    "is_generated",
    "parse",
    "restore",
    "restored_project",
    "share",
    "values_in",
]
