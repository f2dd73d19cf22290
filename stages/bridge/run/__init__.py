"""What DVC runs: stages, the files that they write whole or not at all, and params.yaml."""

from .errors import FileError, StageError
from .stage import Stage, run

__all__ = ["FileError", "Stage", "StageError", "run"]
