"""No kill loses a result, at a random moment or while DVC writes: see tests/support/kills.py."""

import pytest

from support.clone import Clone
from support.kills import Ledger, draw
from support.light_stages import SCRIPTS

pytestmark = [pytest.mark.pipeline, pytest.mark.rest]


@pytest.mark.parametrize("aimed", [False, True])
def test_kills(clone: Clone, slow: bool, aimed: bool) -> None:
    """Whatever is killed at whatever moment, the next `make repro` ends like an undisturbed one.

    Outputs and dvc.lock are the same, MLflow has the result once, and no row stays RUNNING. The
    scripts are others, without TensorFlow, but for the hundred kills of `--slow`.
    """
    if not slow:
        for path, text in SCRIPTS.items():
            (clone.path / path).write_text(text)
        clone.commit("Other scripts")
    ledger = Ledger(clone, aimed)
    for kill in draw(100, seed=0) if slow else draw(2, seed=304):
        ledger.survive(kill)
