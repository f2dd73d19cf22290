"""Wait for what another process does."""

import time
from collections.abc import Callable
from typing import Any


def wait(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until a condition holds, and return its value."""
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        if found := condition():
            return found
        now = time.monotonic()
        assert now < deadline, "it did not happen"
        # A search in MLflow takes time from what it awaits.
        time.sleep(max(0.05, 2 * (now - began)))
