"""Record a pipeline in MLflow: each row is one result, of one model on one test set.

No run id travels through files: a stage finds the run of a model by the md5 of its file, the same
that DVC writes to dvc.lock.
"""

from .store import Store  # before MLflow, which it sets up

# isort: split
from .files import Data
from .rows import evaluation, training

__all__ = ["Data", "Store", "evaluation", "training"]
