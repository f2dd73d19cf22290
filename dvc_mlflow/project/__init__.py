"""The DVC project: everything that touches DVC, mostly by its internal API.

Only `restoring`, `healing`, `experiments` and `changes` take DVC's lock, and only the first three
write into a work tree, so the rest works beside a running `dvc repro`. Tests run with the oldest
and the newest DVC that are supported.
"""

from .files import SMALL, File
from .opened import parse
from .past import Past
from .restoring import restore, share
from .running import Checkout, Project

__all__ = ["SMALL", "Checkout", "File", "Past", "Project", "parse", "restore", "share"]
