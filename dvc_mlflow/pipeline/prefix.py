"""The prefix `dvc-mlflow run`, by which a command in dvc.yaml records its stage."""

import re

_PREFIX = re.compile(r"(^|[\s;&|(/])dvc-mlflow\s+run\s")


def is_prefixed(command: str) -> bool:
    """Whether a command has the prefix anywhere in it."""
    return bool(_PREFIX.search(f"{command} "))
