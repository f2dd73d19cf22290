"""Run a stage's script and print the CPU-seconds of its process, with or without tracking.

`python stage_cpu.py SCRIPT [without]`: with `without`, MLflow is imported but not used.
"""

import gc
import runpy
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock

script = sys.argv[1]
sys.path[0] = str(Path(script).parent)
if sys.argv[2:] == ["without"]:
    gc.disable()  # a stage also collects no garbage while it imports
    import mlflow  # noqa: F401

    gc.enable()
    for module in ("store", "rows"):
        sys.modules[f"bridge.record.{module}"] = MagicMock()
sys.argv = [script]
runpy.run_path(script, run_name="__main__")
print(time.process_time())
