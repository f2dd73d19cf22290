"""Import DVC and MLflow without the garbage collector, which takes half of a command's time."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Collect no garbage in the block, and never look at the objects of modules imported in it.

    Imports create half a million objects, which stay.
    """
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:  # else the block may have been run before, and left garbage
            gc.freeze()
        gc.enable()
