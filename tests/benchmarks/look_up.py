"""Look a model's row up, as evaluate does: `python look_up.py MD5` in a clone with its store.

Prints how many rows were found, and then the milliseconds that it took.
"""

import sys
import time

sys.path.insert(0, "stages")
from bridge.record.store import Store

store = Store("vanilla-lstm")
store.results_of(sys.argv[1])  # the first one loads what later ones have
started = time.perf_counter()
found = store.results_of(sys.argv[1])
milliseconds = 1000 * (time.perf_counter() - started)
print("found", len(found))
print(milliseconds)
