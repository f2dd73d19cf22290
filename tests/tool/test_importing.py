"""Commands start sooner because nothing looks for garbage while their modules are imported."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.pipeline

PROGRAM = """
import gc
from dvc_mlflow.fast_imports import without_collector

collected = []
gc.callbacks.append(lambda phase, info: collected.append(phase))
with without_collector():
    import dvc.repo
assert collected == [], collected
assert gc.isenabled()
frozen = gc.get_freeze_count()
assert frozen > 10_000, frozen
with without_collector():
    import dvc.repo
assert gc.get_freeze_count() == frozen
"""


def test_without_collector() -> None:
    """No garbage is collected during an import, and what it has made is never looked at again."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
