"""Wait for what another process does."""

import time
from collections.abc import Callable
from typing import Any


def wait(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until a condition holds, and return its value."""
    deadline = (asked := time.monotonic()) + seconds
    while not (found := condition()):
        assert (now := time.monotonic()) < deadline, "it did not happen"
        time.sleep(
            max(0.05, 2 * (now - asked))
        )  # a search in MLflow takes the time of what it awaits
        asked = time.monotonic()
    return found
