"""Look up a model's row as `evaluate` does: `python look_up.py MD5` in a clone with a store.

Prints how many rows were found, and then how many milliseconds that took.
"""

import sys
import time

sys.path.insert(0, "stages")
from bridge.record.store import Store

store = Store("vanilla-lstm")
store.results_of(sys.argv[1])  # the first call loads what later calls reuse
started = time.perf_counter()
found = store.results_of(sys.argv[1])
milliseconds = 1000 * (time.perf_counter() - started)
print("found", len(found))
print(milliseconds)
