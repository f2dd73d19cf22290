"""The names that MLflow makes up for runs that have none, such as `bouncing-fish-123`."""

from mlflow.utils import name_utils


def is_random_name(name: str) -> bool:
    """Whether MLflow has made up the name of a run."""
    first, _, rest = name.partition("-")
    second, _, number = rest.partition("-")
    known = first in name_utils._GENERATOR_PREDICATES and second in name_utils._GENERATOR_NOUNS
    return known and number.isdecimal()
