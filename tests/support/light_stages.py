"""The scripts in stages/ without TensorFlow, for tests of what happens around them.

They read the same params and write the same files, so dvc.yaml and its rows stay as they are.
"""

_GENERATE = """
import sys
from pathlib import Path

import yaml

(name,) = sys.argv[1:]
params = yaml.safe_load(Path("params.yaml").read_text())
Path(f"data/{name}.npz").write_text(f"{params['data']}\\n{params[f'{name}_data']}\\n")
"""

_TRAIN = """
import time
from pathlib import Path

import yaml

params = yaml.safe_load(Path("params.yaml").read_text())
with Path("data/training.csv").open("w", buffering=1) as file:
    file.write("epoch,n_steps,loss,accuracy,val_loss,val_accuracy\\n")
    for epoch in range(1, params["train"]["epochs"] + 1):
        time.sleep(0.5)
        file.write(f"{epoch},10,{1 / epoch},0.5,{1 / epoch},0.5\\n")
Path("data/model.keras").write_text(f"{params['model']}\\n{params['train']}\\n")
Path("data/model_summary.txt").write_text("no layers\\n")
"""

_EVALUATE = """
import json
import zlib
from pathlib import Path

n_samples = len(Path("data/test.npz").read_text())
loss = zlib.crc32(Path("data/model.keras").read_bytes()) / 2**32  # another for each model
metrics = {"loss": loss, "accuracy": 1.0, "correctly_classified": n_samples}
Path("data/metrics.json").write_text(json.dumps({**metrics, "n_samples": n_samples}))
Path("data/predictions.csv").write_text("actual,predicted\\n1,1\\n")
Path("data/confusion_matrix.html").write_text("<table><th>actual \\\\ predicted</table>\\n")
"""

SCRIPTS = {
    "stages/generate_data.py": _GENERATE,
    "stages/train.py": _TRAIN,
    "stages/evaluate.py": _EVALUATE,
}
"""Their texts, by path."""
