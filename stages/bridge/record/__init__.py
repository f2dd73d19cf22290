"""Record a pipeline in MLflow: each row is one result, of one model on one test set.

No run id is passed through files: a stage finds a model's run by the md5 of the model file, the
same that DVC writes to dvc.lock.
"""

from .store import Store  # before MLflow, which it sets up

# isort: split
from .files import Data
from .rows import evaluation, training

__all__ = ["Data", "Store", "evaluation", "training"]
